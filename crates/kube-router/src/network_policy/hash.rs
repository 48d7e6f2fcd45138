//! The hashes in names: 16 characters of base32, 80 bits of SHA-256, as upstream's.
//!
//! Upstream joins the hashed fields without anything between them, so that two policies may get one name. Ours are
//! hashed with their lengths; only the suffix of upstream's own rule comments is hashed as upstream does it.

use data_encoding::BASE32;
use ring::digest::{Context, SHA256};

/// Bytes of the digest that make 16 characters.
const BYTES: usize = 10;

/// A hash over fields that cannot run into each other.
#[derive(Clone)]
pub(super) struct Hash(Context);

impl Hash {
    pub(super) fn new() -> Hash {
        Hash(Context::new(&SHA256))
    }

    /// Adds a field: its length, then its bytes.
    pub(super) fn field(mut self, text: &str) -> Hash {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds several fields, and how many they are.
    pub(super) fn fields<'a>(self, texts: impl ExactSizeIterator<Item = &'a str>) -> Hash {
        let counted = self.field(&texts.len().to_string());
        texts.fold(counted, Hash::field)
    }

    /// 16 characters.
    pub(super) fn finish(self) -> String {
        encode(self.0.finish().as_ref())
    }
}

/// The hash behind ` - ` in the comment of a rule whose place matters: chain and arguments in a row.
pub(super) fn of_rule(chain: &str, arguments: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(chain.as_bytes());
    arguments.iter().for_each(|argument| context.update(argument.as_bytes()));
    encode(context.finish().as_ref())
}

fn encode(digest: &[u8]) -> String {
    BASE32.encode(digest.get(..BYTES).unwrap_or(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let of = |fields: &[&str]| Hash::new().fields(fields.iter().copied()).finish();
        assert_eq!(of(&["a", "b"]).len(), 16);
        assert_ne!(of(&["team", "aallow"]), of(&["teama", "allow"]));
        assert_ne!(of(&["a", ""]), of(&["", "a"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }

    /// Values computed by another program from upstream's rule.
    #[test]
    fn rule_suffixes_are_upstreams() {
        let jump = |to| ["-m", "comment", "--comment", "kube-router netpol", "-j", to];
        assert_eq!(of_rule("INPUT", &jump("KUBE-ROUTER-INPUT")), "4IA2OSFRMVNDXBVV");
        assert_eq!(of_rule("FORWARD", &jump("KUBE-ROUTER-FORWARD")), "TEMCG2JMHZYE7H7T");
        assert_eq!(of_rule("OUTPUT", &jump("KUBE-ROUTER-OUTPUT")), "VEAAIY32XVBHCSCY");
    }
}
