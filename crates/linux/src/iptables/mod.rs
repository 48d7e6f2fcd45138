//! Packet filter rules as iptables' own programs read and print them.
//!
//! [`render`] and [`parse`] are the two directions of one text form: what `iptables-save` prints behind `-A CHAIN `.
//! [`save`] takes a whole dump apart, [`restore`] assembles a transaction and isolates what is refused, [`tool`] knows
//! the programs: which flavour this node uses, and what their versions can do, [`monitor`] hears what others change. Which rules there should be, and
//! which of those found are ours, is not decided here.

pub mod monitor;
pub mod parse;
pub mod render;
pub mod restore;
pub mod save;
pub mod tool;

pub use parse::parse;
pub use render::render;

use crate::row::Family;
use crate::rule::Rule;

/// Whether a rule is in the form it would be read back in; anything else would look changed at every read.
///
/// # Errors
/// Says what the rule would read back as.
pub fn check(rule: &Rule, family: Family) -> Result<(), String> {
    let text = render(rule, family);
    if text.contains(['\n', '\r', '\0']) {
        return Err("a rule's text cannot hold line breaks".to_owned());
    }
    if let Some(map) = rule.verdict_map() {
        return Err(format!("iptables has no verdict maps: {map} needs the nftables backend"));
    }
    let back = parse(&text, family);
    if back == *rule {
        Ok(())
    } else {
        Err(format!("'{text}' is not in normal form: it reads back as {back:?}"))
    }
}

#[cfg(test)]
mod tests;
