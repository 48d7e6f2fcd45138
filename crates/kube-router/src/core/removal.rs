//! Removing everything of ours from some lanes: the reconciler with nothing desired.
//!
//! Every lane is read, what is ours by the rule of [`Ownership`] is adopted, and since nobody wants it, it goes, in the
//! order the reconciler knows. Decided here, too, is what is told: each object in a line, but what goes with the object it
//! is in (members with their set, addresses with their link) by its number only; then how many of each table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use linux::lane::{Job, Lane, ReadError, run_batch};
use linux::reconciler::{Gate, Reconciler};
use linux::row::{Key, LaneName, Table};

use super::ownership::Ownership;
use crate::node::ThisNode;
use crate::owner::Owner;

/// How long refused rows are tried again before they are left and named.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lanes in the order in which they are read.
pub type Lanes = Vec<(LaneName, Box<dyn Lane>)>;

/// How much is told of what was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The name of each object, then the numbers.
    Names,
    /// The numbers.
    Numbers,
}

/// Something could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// A lane's tables could not be read, so nothing of them was touched.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows the kernel did not let go.
    #[error("left behind: {0}")]
    Left(String),
}

/// Removes what these lanes hold of ours, the last lane's first, and says what it was, and what stays and why. What
/// tells whose a virtual server is must come before IPVS in the list. Blocks. O(rows).
///
/// # Errors
/// [`RemovalError`], after all that could be removed is.
pub fn remove_all(
    mut lanes: Lanes,
    ownership: &Ownership,
    node: &ThisNode,
    told: Told,
) -> Result<(), RemovalError> {
    let mut reconciler: Reconciler<Owner> = Reconciler::new();
    for (name, lane) in &mut lanes {
        reconciler.next_job(*name, Instant::now());
        let rows = lane.read()?;
        let ledger = ownership.of(&reconciler, &rows, node);
        for why in rows.iter().filter_map(|(key, _)| ledger.why_left(key)) {
            tracing::warn!("{why}");
        }
        reconciler.was_read(*name, rows, |key, row| ledger.is_ours(key, row));
    }
    let found: BTreeSet<Key> = reconciler.actual_rows().map(|(key, _)| key.clone()).collect();
    reconciler.allow_removals([Gate::all()]);
    remove(&mut reconciler, &mut lanes);
    for line in lines(&found, |key| reconciler.actual(key).is_none(), told) {
        tracing::info!("removed {line}");
    }
    let left: Vec<String> =
        reconciler.refusals().map(|(key, refused, _)| format!("{key} ({})", refused.reason)).collect();
    if left.is_empty() { Ok(()) } else { Err(RemovalError::Left(left.join("; "))) }
}

/// What is told of the rows found: table by table the names, sorted, and how many there were and are gone.
fn lines(found: &BTreeSet<Key>, is_gone: impl Fn(&Key) -> bool, told: Told) -> Vec<String> {
    let mut tables: BTreeMap<Table, Vec<&Key>> = BTreeMap::new();
    for key in found {
        tables.entry(key.table()).or_default().push(key);
    }
    let mut lines = Vec::new();
    for (table, keys) in tables {
        let gone: Vec<&Key> = keys.iter().copied().filter(|key| is_gone(key)).collect();
        let goes_with = |key: &Key| key.container().is_some_and(|container| found.contains(&container));
        if told == Told::Names {
            let alone = gone.iter().filter(|key| !goes_with(key));
            let mut names: Vec<String> = alone.map(|key| key.to_string()).collect();
            names.sort();
            lines.extend(names);
        }
        lines.push(format!("{} of {} {}", gone.len(), keys.len(), table.as_str().replace('_', " ")));
    }
    lines
}

fn remove(reconciler: &mut Reconciler<Owner>, lanes: &mut Lanes) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let mut worked = false;
        for (name, lane) in lanes.iter_mut().rev() {
            let now = Instant::now();
            if let Some(Job::Apply(stages)) = reconciler.next_job(*name, now) {
                let outcomes = run_batch(lane.as_mut(), stages);
                reconciler.applied(*name, outcomes, now);
                worked = true;
            }
        }
        if worked {
            continue;
        }
        match reconciler.next_deadline() {
            Some(at) if at < give_up => std::thread::sleep(at.saturating_duration_since(Instant::now())),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use linux::row::{ChainKey, Family, FilterTable, Member, SetKey};
    use linux::rule::{Action, Rule};

    use super::*;
    use crate::names;

    #[test]
    fn what_goes_with_its_container_is_counted_only() {
        let set = SetKey { family: Family::V4, name: names::set::SERVICE_IPS.into() };
        let member = |ip: &str| Key::Member(set.clone().into(), Member::Ip(ip.parse().unwrap()));
        let link = |name: &str| Key::Link(name.into());
        let found = BTreeSet::from([
            link("tun-e443169117a"),
            link(names::link::DUMMY),
            Key::Set(set.clone()),
            member("10.96.0.1"),
            member("10.96.0.2"),
        ]);
        let told = |told| lines(&found, |key| *key != link(names::link::DUMMY), told);
        let numbers = ["1 of 2 links", "1 of 1 sets", "2 of 2 set members"];
        assert_eq!(told(Told::Numbers), numbers);
        let names =
            ["link tun-e443169117a", numbers[0], "set kube-router-svip (IPv4)", numbers[1], numbers[2]];
        assert_eq!(told(Told::Names), names);
        assert!(lines(&BTreeSet::new(), |_| true, Told::Names).is_empty(), "nothing found, nothing told");
    }

    #[test]
    fn rules_without_a_comment_are_told_in_words_of_the_field() {
        let chain = ChainKey { family: Family::V4, table: FilterTable::Nat, name: "POSTROUTING".into() };
        let to = "172.31.0.11".parse().unwrap();
        for (action, words) in [
            (Action::SourceNat { to, random_fully: true }, "source NAT to 172.31.0.11"),
            (Action::Masquerade { random_fully: true }, "masquerading"),
            (Action::Jump("KUBE-ROUTER-HAIRPIN".into()), "jump to KUBE-ROUTER-HAIRPIN"),
            (Action::Mark { value: 1, mask: 1 }, "rule that marks"),
            (Action::Log { group: 100, prefix: None }, "rule that logs to group 100"),
        ] {
            let rule = Rule::new([], action).comment(names::comment::MASQUERADE);
            let found = BTreeSet::from([Key::ForeignRule(chain.clone(), rule)]);
            let line = format!("{words} in chain POSTROUTING in nat (IPv4)");
            assert_eq!(lines(&found, |_| true, Told::Names)[0], line);
        }
    }
}
