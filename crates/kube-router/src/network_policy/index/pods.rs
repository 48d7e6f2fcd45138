//! Pods come, go and change: which group they are in, and whether they are here.
//!
//! A pod's sandbox goes, and its address is given to another pod, before the API server says that it is gone. Policies of
//! the old pod are nothing to the new one, neither where they restrict nor where they name it as a peer. So a pod that is
//! being deleted yields to one that is not: from then on it has no address.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::hash_map::Entry;

use super::{GroupKey, Index, KnownPod, PodNumber};
use crate::kube::model::{ObjectName, Pod};
use crate::network_policy::touched::Touched;

impl Index {
    /// Takes in a pod as it is now.
    pub fn pod_changed(&mut self, id: &ObjectName, pod: Option<&Arc<Pod>>, touched: &mut Touched) {
        let pod = pod.filter(|pod| !pod.host_network && !pod.finished && !pod.ips.is_empty());
        let yields = pod.filter(|pod| self.yields(pod)).cloned();
        self.place(id, pod.filter(|_| yields.is_none()), touched);
        self.yielded.remove(id);
        self.yielded.extend(yields.map(|pod| (id.clone(), pod)));
        for other in pod.into_iter().flat_map(|pod| self.yielding_to(pod)).collect::<Vec<_>>() {
            self.place(&other.id, None, touched);
            touched.flows.extend(&other.ips);
            self.yielded.insert(other.id.clone(), other);
        }
        self.take_back(touched);
    }

    /// Whether a pod that is not being deleted has an address of this one, which is.
    fn yields(&self, pod: &Pod) -> bool {
        let stays = |other: &KnownPod| !other.pod.terminating && *other.id() != pod.id;
        pod.terminating && pod.ips.iter().any(|ip| self.pods_at(*ip).any(|(other, _)| stays(other)))
    }

    /// Pods that this one makes yield. O(its addresses).
    fn yielding_to(&self, pod: &Pod) -> impl Iterator<Item = Arc<Pod>> {
        let ips = if pod.terminating { &[][..] } else { &pod.ips };
        let shared = ips.iter().filter(|ip| self.more_by_ip.contains_key(*ip));
        let there = shared.flat_map(|ip| self.pods_at(*ip));
        there.map(|(other, _)| &other.pod).filter(|other| other.terminating).cloned()
    }

    /// Pods that need not yield any more: what they yielded to is gone itself. O(pods that have yielded), nearly always none.
    fn take_back(&mut self, touched: &mut Touched) {
        let back = self.yielded.values().filter(|pod| !self.yields(pod)).cloned().collect::<Vec<_>>();
        for pod in back {
            self.yielded.remove(&pod.id);
            touched.flows.extend(&pod.ips);
            self.place(&pod.id, Some(&pod), touched);
        }
    }

    fn place(&mut self, id: &ObjectName, pod: Option<&Arc<Pod>>, touched: &mut Touched) {
        let before = self.number(id);
        let Some(pod) = pod else {
            if let Some(number) = before {
                self.numbers.remove(id, number);
                self.remove_pod(number, touched);
            }
            return;
        };
        let here = pod.node.as_ref() == Some(&self.here);
        let key = GroupKey {
            namespace: pod.id.namespace.clone(),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
        };
        let known = before.and_then(|number| self.pods.get_mut(number as usize));
        if let Some(known) = known
            && *known.ips() == *pod.ips
            && known.here == here
            && self.group_numbers.get(&key) == Some(&known.group)
        {
            known.pod = pod.clone();
            return;
        }
        // The new place is taken before the old one is left: what both need is not given up in between.
        let group = self.group(key, touched);
        let entry = KnownPod { pod: pod.clone(), group, here };
        let number = self.pods.insert(entry) as PodNumber;
        self.join(number, touched);
        self.numbers.insert(id, number, |number| self.pods.get(number as usize).map(KnownPod::id));
        if let Some(before) = before {
            self.numbers.remove(id, before);
            let stays = self.pods.get(before as usize).is_some_and(|old| *old.ips() == *pod.ips);
            // Its flows are the same pod's; whether they are permitted may have changed.
            if stays && (here || self.is_in_a_set(before) || self.is_in_a_set(number)) {
                touched.flows.extend(pod.ips.iter());
            }
            self.remove_pod(before, touched);
        }
    }

    /// The number of a pod. O(1).
    pub(super) fn number(&self, id: &ObjectName) -> Option<PodNumber> {
        self.numbers.find(id, |number| self.pods.get(number as usize).map(KnownPod::id))
    }

    /// Whether some policy in force here names a pod as a peer.
    fn is_in_a_set(&self, number: PodNumber) -> bool {
        let group = self.pods.get(number as usize).and_then(|pod| self.groups.get(pod.group));
        let mut selections = group.into_iter().flat_map(|group| &group.selections);
        selections
            .any(|number| self.selections.get(*number).is_some_and(|selection| !selection.sets.is_empty()))
    }

    pub(super) fn join(&mut self, number: PodNumber, touched: &mut Touched) {
        let Some(pod) = self.pods.get(number as usize) else { return };
        touched.members.insert(pod.id().clone());
        for ip in pod.ips() {
            match self.by_ip.entry(*ip) {
                Entry::Vacant(place) => {
                    place.insert(number);
                }
                Entry::Occupied(_) => self.more_by_ip.entry(*ip).or_default().push(number),
            }
        }
        let here = pod.here;
        if here {
            touched.pods.insert(pod.id().clone());
            touched.pods_here = true;
        }
        let group = pod.group;
        let Some(place) = self.groups.get_mut(group) else { return };
        place.pods.insert(number);
        if here && place.pods_here.insert(number) && place.pods_here.len() == 1 {
            self.group_is_here(group, true, touched);
        }
    }

    pub(super) fn remove_pod(&mut self, number: PodNumber, touched: &mut Touched) {
        let Some(pod) = self.pods.try_remove(number as usize) else { return };
        for ip in pod.ips() {
            self.forget_ip(*ip, number);
        }
        if pod.here {
            touched.pods.insert(pod.id().clone());
            touched.pods_here = true;
        }
        touched.members.insert(pod.id().clone());
        let Some(group) = self.groups.get_mut(pod.group) else { return };
        group.pods.remove(&number);
        let was_here = group.pods_here.remove(&number);
        let (empty, gone_here) = (group.pods.is_empty(), was_here && group.pods_here.is_empty());
        if gone_here {
            self.group_is_here(pod.group, false, touched);
        }
        if empty {
            self.drop_group(pod.group, touched);
        }
    }

    fn forget_ip(&mut self, ip: IpAddr, number: PodNumber) {
        if let Some(others) = self.more_by_ip.get_mut(&ip) {
            if self.by_ip.get(&ip) == Some(&number) {
                self.by_ip.extend(others.pop().map(|other| (ip, other)));
            } else {
                others.retain(|other| *other != number);
            }
            if others.is_empty() {
                self.more_by_ip.remove(&ip);
            }
        } else {
            self.by_ip.remove(&ip);
        }
    }
}
