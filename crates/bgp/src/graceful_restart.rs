//! Graceful restart between two speakers: what we offer, what both agree on, and which ends of a session keep paths
//! (RFC 4724, RFC 8538).
//!
//! Not decided here: how long kept paths stay and when a restarted speaker selects. The table does that
//! ([`crate::speaker`]), for it knows the paths.

use std::time::Duration;

use crate::config::GracefulRestart;
use crate::families::Families;
use crate::negotiated::PeerRestart;
use crate::wire::notification::Cease;
use crate::wire::{Notification, RestartCapability};

/// What we say of ourselves for a session of these families.
///
/// The R bit is for the time after a restart of ours. The F bit says that what the peer has kept of us still holds: if the
/// kernel has kept it over our restart, for peers that come when that is over, too; and whenever a session with the peer
/// comes back in the life of this speaker (`met`). Without it the peer has to drop everything as the session comes up (RFC
/// 4724 section 4.2).
pub fn offer(ours: &GracefulRestart, families: Families, met: bool) -> RestartCapability {
    RestartCapability {
        restarting: ours.restarting,
        notification: true,
        restart_time: u16::try_from(ours.restart_time.as_secs()).unwrap_or(4095).min(4095),
        families,
        forwarding_kept: if met { families } else { ours.forwarding_kept.and(families) },
    }
}

/// What both sides come to, for the families of the session.
pub fn agree(
    ours: Option<&RestartCapability>,
    theirs: Option<&RestartCapability>,
    families: Families,
) -> Option<PeerRestart> {
    let (ours, theirs) = ours.zip(theirs)?;
    Some(PeerRestart {
        restarting: theirs.restarting,
        notification: ours.notification && theirs.notification,
        restart_time: Duration::from_secs(theirs.restart_time.into()),
        families: theirs.families.and(families),
        forwarding_kept: theirs.forwarding_kept.and(families),
    })
}

/// How a session that was up came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection was closed or broke, or a new one took its place, without a word.
    Lost,
    /// We said why.
    Sent(Notification),
    /// The peer said why.
    Received(Notification),
}

impl End {
    /// Whether the peer's paths are kept for a while. RFC 4724: only if nothing was said. RFC 8538: whatever was said but a
    /// Hard Reset, if both sides have the N bit.
    pub fn is_graceful(&self, restart: Option<&PeerRestart>) -> bool {
        let Some(restart) = restart else { return false };
        match self {
            End::Lost => true,
            End::Sent(notification) | End::Received(notification) => {
                restart.notification && !notification.is_cease(Cease::HardReset)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::wire::Cause;

    fn both() -> GracefulRestart {
        GracefulRestart {
            restart_time: Duration::from_secs(90),
            deferral: Duration::from_secs(360),
            stale_time: Duration::from_secs(360),
            restarting: false,
            forwarding_kept: Families::all(),
        }
    }

    #[test]
    fn bits_are_for_the_time_after_a_restart_and_for_peers_that_come_back() {
        let booted = GracefulRestart { forwarding_kept: Families::NONE, ..both() };
        let fresh = offer(&booted, Families::all(), false);
        assert!(!fresh.restarting && fresh.forwarding_kept.is_empty());
        let back = offer(&GracefulRestart { restarting: true, ..both() }, Families::all(), false);
        assert!(back.restarting);
        assert_eq!(back.forwarding_kept, Families::all());
        let late = offer(&both(), Families::all(), false);
        assert!(!late.restarting, "the restart is over");
        assert_eq!(late.forwarding_kept, Families::all());
        let again = offer(&booted, Families::all(), true);
        assert!(!again.restarting);
        assert_eq!(again.forwarding_kept, Families::all());
    }

    #[test]
    fn only_families_of_the_session_count() {
        let theirs = offer(&GracefulRestart { restarting: true, ..both() }, Families::all(), false);
        let ipv4: Families = [Family::Ipv4Unicast].into_iter().collect();
        let ours = offer(&both(), ipv4, false);
        let agreed = agree(Some(&ours), Some(&theirs), ipv4).unwrap();
        assert_eq!((agreed.families, agreed.forwarding_kept), (ipv4, ipv4));
        assert_eq!(agree(None, Some(&theirs), ipv4), None);
        assert_eq!(agree(Some(&ours), None, ipv4), None);
    }

    #[test]
    fn which_ends_keep_paths() {
        let expired = Notification::new(Cause::HoldTimerExpired);
        let shutdown = Notification::with_text(Cease::AdministrativeShutdown, "bye");
        let offered = offer(&both(), Families::all(), false);
        let with_n = agree(Some(&offered), Some(&offered), Families::all());
        let without = RestartCapability { notification: false, ..offered };
        let without_n = agree(Some(&offered), Some(&without), Families::all());
        for (end, n, plain) in [
            (End::Lost, true, true),
            (End::Sent(expired.clone()), true, false),
            (End::Received(expired), true, false),
            (End::Received(shutdown.clone()), true, false),
            (End::Received(shutdown.hard()), false, false),
            (End::Sent(shutdown.hard()), false, false),
        ] {
            assert_eq!(end.is_graceful(with_n.as_ref()), n, "{end:?}");
            assert_eq!(end.is_graceful(without_n.as_ref()), plain, "{end:?}");
            assert!(!end.is_graceful(None));
        }
    }
}
