//! Real servers on their way out: kept at weight 0 until idle or due.
//!
//! An input of the plan like any object. What is removed while it may still have connections enters here with a
//! deadline; it leaves when the kernel counts no connections, when the deadline passes, or when it serves again. After
//! a restart everything in the kernel that is not wanted enters anew with a fresh deadline, so nothing needs saving.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use linux::row::VirtualServerKey;

/// A real server of a virtual server.
pub type RealServerKey = (VirtualServerKey, IpAddr, u16);

/// Everything draining on this node.
#[derive(Debug, Default)]
pub struct Draining {
    deadlines: BTreeMap<RealServerKey, Instant>,
    by_deadline: BTreeSet<(Instant, RealServerKey)>,
}

impl Draining {
    /// Starts a drain; one that already runs keeps its deadline.
    pub fn start(&mut self, server: RealServerKey, deadline: Instant) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.deadlines.entry(server) {
            place.insert(deadline);
            self.by_deadline.insert((deadline, server));
        }
    }

    /// Ends a drain: it serves again, is idle, or its virtual server went.
    pub fn end(&mut self, server: &RealServerKey) -> bool {
        let Some(deadline) = self.deadlines.remove(server) else { return false };
        self.by_deadline.remove(&(deadline, *server));
        true
    }

    /// What drains in one virtual server. O(log n + what drains there).
    pub fn of(&self, key: &VirtualServerKey) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        let key = *key;
        let lowest = (key, IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        let inside = self.deadlines.range(lowest..).map(|(server, _)| *server);
        inside.take_while(move |(server, ..)| *server == key).map(|(_, ip, port)| (ip, port))
    }

    /// Ends every drain whose deadline has passed and names their virtual servers, to be planned anew.
    pub fn take_due(&mut self, now: Instant) -> BTreeSet<VirtualServerKey> {
        let mut touched = BTreeSet::new();
        while let Some((deadline, server)) = self.by_deadline.first().copied() {
            if deadline > now {
                break;
            }
            self.end(&server);
            touched.insert(server.0);
        }
        touched
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Everything that drains, to be asked whether it is idle.
    pub fn all(&self) -> impl Iterator<Item = &RealServerKey> {
        self.deadlines.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use linux::row::Protocol;

    use super::*;

    fn key(port: u16) -> VirtualServerKey {
        VirtualServerKey::Address { ip: IpAddr::from([10, 96, 0, 1]), protocol: Protocol::Tcp, port }
    }

    #[test]
    fn a_drain_ends_at_its_first_deadline() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        let server = (key(80), IpAddr::from([10, 244, 0, 1]), 8080);
        draining.start(server, now + Duration::from_secs(30));
        draining.start(server, now + Duration::from_secs(90));
        assert_eq!(draining.of(&key(80)).collect::<Vec<_>>(), [(server.1, 8080)]);
        assert_eq!(draining.of(&key(81)).count(), 0);
        assert!(draining.take_due(now + Duration::from_secs(29)).is_empty());
        assert_eq!(draining.take_due(now + Duration::from_secs(30)), BTreeSet::from([key(80)]));
        assert_eq!(draining.next_deadline(), None);
    }

    #[test]
    fn serving_again_ends_it() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        let server = (key(80), IpAddr::from([10, 244, 0, 1]), 8080);
        draining.start(server, now);
        assert!(draining.end(&server));
        assert!(!draining.end(&server));
        assert!(draining.take_due(now).is_empty());
    }
}
