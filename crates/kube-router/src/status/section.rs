//! Parts of a [`Status`] that can be asked for by name.

use clap::ValueEnum;
use serde_json::Value;

/// A part. What every answer has (node, version, uptime, whether all is programmed) is in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Controllers, and watches of the API server
    Controllers,
    /// Tables of the kernel: rows wanted, there, refused, healed
    Tables,
    /// Virtual servers with backends and weights
    Services,
    /// Pods of this node with the policies that restrict them
    Policies,
    /// BGP peers
    Peers,
    /// Learned prefixes, the ways to them, tunnels
    Routes,
    /// What the kernel refuses, and what in objects cannot be used
    Problems,
}

impl Section {
    /// Its fields of a [`super::Status`].
    fn fields(self) -> &'static [&'static str] {
        match self {
            Section::Controllers => &["controllers", "watches"],
            Section::Tables => &["tables"],
            Section::Services => &["services"],
            Section::Policies => &["policies", "announced"],
            Section::Peers => &["peers"],
            Section::Routes => &["routes", "tunnels"],
            Section::Problems => &["refused", "objections"],
        }
    }

    /// Whether a part is shown: none named is all.
    pub(super) fn shown(self, asked: &[Section]) -> bool {
        asked.is_empty() || asked.contains(&self)
    }
}

/// Takes fields of parts that were not asked for out of a status in JSON.
pub(super) fn keep(status: &mut Value, asked: &[Section]) {
    let Some(fields) = status.as_object_mut() else { return };
    for section in Section::value_variants().iter().filter(|section| !section.shown(asked)) {
        section.fields().iter().for_each(|field| drop(fields.remove(*field)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn every_list_of_a_status_is_in_exactly_one_part() {
        let status = serde_json::to_value(Status::default()).unwrap();
        let lists = status.as_object().unwrap().iter().filter(|(_, value)| value.is_array());
        for (field, _) in lists {
            let parts = Section::value_variants().iter();
            assert_eq!(parts.filter(|part| part.fields().contains(&field.as_str())).count(), 1, "{field}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        let mut status = serde_json::to_value(Status::default()).unwrap();
        keep(&mut status, &[]);
        assert!(status.get("services").is_some() && status.get("peers").is_some());
        keep(&mut status, &[Section::Services]);
        assert!(status.get("services").is_some() && status.get("node").is_some());
        assert!(status.get("peers").is_none() && status.get("objections").is_none());
    }
}
