//! What the service proxy needs to know of pods: which addresses are this node's, and how long each may take to stop.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use crate::kube::model::{ObjectName, Pod};

/// An index over pods. Addresses of finished pods and of the host network are not theirs.
#[derive(Debug, Default)]
pub(super) struct Pods {
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
    here: BTreeMap<ObjectName, Vec<IpAddr>>,
    grace: HashMap<IpAddr, (ObjectName, Duration)>,
}

impl Pods {
    /// Takes in a pod as it is now; says whether this node's addresses changed. O(its addresses).
    pub(super) fn replace(&mut self, id: &ObjectName, pod: Option<&Pod>, node: &str) -> bool {
        for ip in self.addresses.remove(id).unwrap_or_default() {
            if self.grace.get(&ip).is_some_and(|(owner, _)| owner == id) {
                self.grace.remove(&ip);
            }
        }
        let before = self.here.remove(id);
        let Some(pod) = pod.filter(|pod| !pod.host_network && !pod.finished && !pod.ips.is_empty()) else {
            return before.is_some();
        };
        let grace = Duration::from_secs(pod.grace_seconds.into());
        self.grace.extend(pod.ips.iter().map(|ip| (*ip, (id.clone(), grace))));
        self.addresses.insert(id.clone(), pod.ips.clone());
        if pod.node.as_deref() == Some(node) {
            self.here.insert(id.clone(), pod.ips.clone());
        }
        before.as_ref() != self.here.get(id)
    }

    /// Addresses of this node's pods. O(pods of this node).
    pub(super) fn here(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.here.values().flatten().copied()
    }

    /// How long the pod with this address is given to stop.
    pub(super) fn grace_of(&self, ip: IpAddr) -> Option<Duration> {
        self.grace.get(&ip).map(|(_, grace)| *grace)
    }
}
