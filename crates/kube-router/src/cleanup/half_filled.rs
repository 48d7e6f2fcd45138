//! IP sets that were being filled when a kube-router, the Go one or this one, was killed: they were to be swapped with the
//! real ones, and hold nothing any packet sees.
//!
//! Decided here: what is one of them: it has the prefix and exactly 16 characters of the alphabet that either program
//! writes, and nothing refers to it. The agent leaves them alone, for a Go kube-router that still runs would miss its own.

use linux::ipset::{Description, Sets, kernel_name};
use linux::netlink::Error;

use crate::names;

/// Characters of the hash behind the prefix.
const DIGITS: usize = 16;

/// Removes them, and says which. A kernel that does not tell its sets has none.
pub(super) fn remove() {
    let looked = Sets::open().and_then(|mut sets| {
        let described = sets.describe()?;
        Ok((sets, described))
    });
    let (sets, described) = match looked {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!("half-filled sets are not looked for: {error}");
            return;
        }
    };
    let left: Vec<String> =
        described.iter().filter(|set| is_one(set)).map(|set| kernel_name(&set.key)).collect();
    if let Err(error) = destroy(sets, &left) {
        tracing::warn!("half-filled sets are not removed: {error}");
    }
}

fn destroy(mut sets: Sets, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    for (name, outcome) in names.iter().zip(sets.destroy(names)?) {
        match outcome {
            Ok(()) => tracing::info!("removed half-filled set {name}"),
            Err(error) => tracing::warn!("the half-filled set {name} stays: {error}"),
        }
    }
    Ok(())
}

fn is_one(set: &Description) -> bool {
    set.references == 0 && has_form(&set.key.name)
}

/// Base 32 (RFC 4648) is the Go program's, hexadecimal ours; both write capitals.
fn has_form(name: &str) -> bool {
    let Some(digits) = name.strip_prefix(names::set::TEMPORARY_PREFIX) else { return false };
    let all = |one: fn(u8) -> bool| digits.bytes().all(one);
    digits.len() == DIGITS
        && (all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
            || all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_either_program_writes() {
        for name in ["TMP-PRBJ7ASFQM5DJR3Q", "TMP-3TF2IQ5MKRP6NAJL", "TMP-00C0FFEE12345689"] {
            assert!(has_form(name), "{name}");
        }
        for name in [
            "TMP-PRBJ7ASFQM5DJR3",
            "TMP-PRBJ7ASFQM5DJR3QQ",
            "TMP-prbj7asfqm5djr3q",
            "TMP-PRBJ0ASFQM5DJR3Q",
            "TMP-mine",
            "MYTMP-PRBJ7ASFQM5DJR3Q",
        ] {
            assert!(!has_form(name), "{name}");
        }
    }
}
