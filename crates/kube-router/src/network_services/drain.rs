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
    /// Idle or due: to be removed, and not to be drained again until they are.
    finished: BTreeSet<RealServerKey>,
    version: u64,
}

impl Draining {
    /// Starts a drain; one that already runs keeps its deadline, one that is over stays over.
    pub fn start(&mut self, server: RealServerKey, deadline: Instant) {
        if self.finished.contains(&server) {
            return;
        }
        if let std::collections::btree_map::Entry::Vacant(place) = self.deadlines.entry(server) {
            place.insert(deadline);
            self.version += 1;
            self.by_deadline.insert((deadline, server));
        }
    }

    /// A drain is over, because its server is idle or due. Says whether there was one.
    pub fn finish(&mut self, server: &RealServerKey) -> bool {
        let ran = self.forget(server);
        if ran {
            self.finished.insert(*server);
        }
        ran
    }

    /// A server serves again, or is gone: there is nothing to drain and nothing over.
    pub fn cancel(&mut self, server: &RealServerKey) {
        self.finished.remove(server);
        self.forget(server);
    }

    /// Everything of a virtual server is cancelled but what `keep` names. O(log n + what drained there).
    pub fn cancel_others(&mut self, key: &VirtualServerKey, keep: &[(IpAddr, u16)]) {
        let finished = inside(self.finished.range(lowest(key)..), key);
        let all: Vec<RealServerKey> =
            finished.chain(inside(self.deadlines.range(lowest(key)..).map(|(k, _)| k), key)).collect();
        for server in all {
            if !keep.contains(&(server.1, server.2)) {
                self.cancel(&server);
            }
        }
    }

    fn forget(&mut self, server: &RealServerKey) -> bool {
        let Some(deadline) = self.deadlines.remove(server) else { return false };
        self.by_deadline.remove(&(deadline, *server));
        self.version += 1;
        true
    }

    /// What drains in one virtual server. O(log n + what drains there).
    pub fn of(&self, key: &VirtualServerKey) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        let from = self.deadlines.range(lowest(key)..).map(|(server, _)| server);
        inside(from, key).map(|(_, ip, port)| (ip, port))
    }

    /// Ends every drain whose deadline has passed and names their virtual servers, to be planned anew.
    pub fn take_due(&mut self, now: Instant) -> BTreeSet<VirtualServerKey> {
        let mut touched = BTreeSet::new();
        while let Some((deadline, server)) = self.by_deadline.first().copied() {
            if deadline > now {
                break;
            }
            self.finish(&server);
            touched.insert(server.0);
        }
        touched
    }

    /// The next deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everything that drains, to be asked whether it is idle.
    pub fn all(&self) -> impl Iterator<Item = &RealServerKey> {
        self.deadlines.keys()
    }
}

fn lowest(key: &VirtualServerKey) -> RealServerKey {
    (*key, IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0)
}

fn inside<'a>(
    servers: impl Iterator<Item = &'a RealServerKey> + 'a,
    key: &VirtualServerKey,
) -> impl Iterator<Item = RealServerKey> + 'a {
    let key = *key;
    servers.copied().take_while(move |(server, ..)| *server == key)
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
        draining.start(server, now + Duration::from_secs(90));
        assert_eq!(draining.of(&key(80)).count(), 0, "what is over is not drained again before it is gone");
        draining.cancel_others(&key(80), &[]);
        draining.start(server, now + Duration::from_secs(90));
        assert_eq!(draining.of(&key(80)).count(), 1, "gone and back again");
    }

    #[test]
    fn serving_again_ends_it() {
        let (mut draining, now) = (Draining::default(), Instant::now());
        let server = (key(80), IpAddr::from([10, 244, 0, 1]), 8080);
        draining.start(server, now);
        draining.cancel(&server);
        assert!(!draining.finish(&server));
        assert!(draining.take_due(now).is_empty());
    }
}
