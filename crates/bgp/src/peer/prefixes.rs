//! How many prefixes a peer may tell us (RFC 4271 section 6.7, RFC 4486 section 4).

use crate::config::MaxPrefixes;
use crate::families::Families;
use crate::family::Family;
use crate::wire::Notification;
use crate::wire::notification::Cease;

/// What a count comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to say.
    Fine,
    /// Four fifths of the bound are reached, for the first time since there were fewer.
    Warning,
    /// More than the bound: end the session with this.
    Exceeded(Notification),
}

/// Watches the counts of one session.
#[derive(Debug, Default)]
pub(super) struct Watch {
    warned: Families,
}

impl Watch {
    pub(super) fn judge(&mut self, bound: &MaxPrefixes, family: Family, count: usize) -> Verdict {
        let limit = usize::try_from(bound.limit).unwrap_or(usize::MAX);
        if count > limit {
            let mut data = family.afi().to_be_bytes().to_vec();
            data.push(family.safi());
            data.extend_from_slice(&bound.limit.to_be_bytes());
            return Verdict::Exceeded(Notification::with(Cease::MaximumPrefixes, data));
        }
        let near = count.saturating_mul(5) >= limit.saturating_mul(4);
        let warned = self.warned.contains(family);
        if near {
            self.warned.insert(family);
        } else {
            self.warned.remove(family);
        }
        if near && !warned { Verdict::Warning } else { Verdict::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_at_four_fifths_and_ends_beyond() {
        let bound = MaxPrefixes { limit: 10, restart_after: None };
        let mut watch = Watch::default();
        let mut judge = |count| watch.judge(&bound, Family::Ipv6Unicast, count);
        assert_eq!(judge(7), Verdict::Fine);
        assert_eq!(judge(8), Verdict::Warning);
        assert_eq!(judge(10), Verdict::Fine);
        assert_eq!(judge(7), Verdict::Fine);
        assert_eq!(judge(9), Verdict::Warning);
        let Verdict::Exceeded(notification) = judge(11) else { panic!("not exceeded") };
        assert!(notification.is_cease(Cease::MaximumPrefixes));
        assert_eq!(notification.data, [0, 2, 1, 0, 0, 0, 10]);
    }
}
