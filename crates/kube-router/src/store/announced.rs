//! Pods of this node that CNI has wired and the API server does not show with their addresses yet.
//!
//! A pod's addresses are in the API only after its first container may run. The CNI plugin knows them before, so what it
//! announces is an input like any object: as long as the API server is behind, a pod is its object with the announced
//! addresses. Decided here: which object an announcement is about, and when it is over. It ends when the API server shows
//! its addresses, or says that the pod is gone, when the runtime removes the sandbox, or another follows under the name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use linux::row::Name;

use crate::kube::model::{ObjectName, Pod, PodUid};

/// What the plugin says of a pod it is asked to wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Which pod.
    pub id: ObjectName,
    /// Which of those that have had this name; `None` where the runtime does not tell.
    pub uid: Option<PodUid>,
    /// The sandbox, by the runtime's identifier.
    pub container: Name,
    /// Its addresses, of both families.
    pub ips: Vec<IpAddr>,
}

/// All announcements that are not over, one for each name.
#[derive(Debug, Default)]
pub(super) struct Announcements(BTreeMap<ObjectName, Announcement>);

#[derive(Debug)]
struct Announcement {
    told: Announced,
    /// The object with the announced addresses, once there is one.
    pod: Option<Arc<Pod>>,
}

impl Announced {
    /// Whether this is the pod that was announced, as far as the runtime tells.
    pub fn is_about(&self, pod: &Pod) -> bool {
        self.id == pod.id && self.uid.is_none_or(|uid| uid == pod.uid)
    }

    /// Whether the pod has addresses, and none but those announced.
    pub fn has_addresses_of(&self, pod: &Pod) -> bool {
        !pod.ips.is_empty() && pod.ips.iter().all(|ip| self.ips.contains(ip))
    }
}

impl Announcements {
    /// The pod as announced, where the API server is behind. O(log announcements), and nearly always there is none.
    pub(super) fn pod(&self, id: &ObjectName) -> Option<&Arc<Pod>> {
        self.0.get(id)?.pod.as_ref()
    }

    /// Takes in an announcement; `object` is what the API server shows under its name.
    pub(super) fn add(&mut self, told: Announced, object: Option<&Pod>, here: &Name) {
        let id = told.id.clone();
        self.0.insert(id.clone(), Announcement { told, pod: None });
        self.object_is(&id, object, here);
    }

    /// The object is like this now.
    pub(super) fn object_is(&mut self, id: &ObjectName, object: Option<&Pod>, here: &Name) {
        let Some(announcement) = self.0.get_mut(id) else { return };
        let told = &announcement.told;
        let object = object.filter(|pod| told.is_about(pod) && pod.node.as_ref() == Some(here));
        if object.is_some_and(|pod| pod.host_network || told.has_addresses_of(pod)) {
            self.0.remove(id);
        } else {
            announcement.pod = object.map(|pod| Arc::new(Pod { ips: told.ips.clone(), ..pod.clone() }));
        }
    }

    /// The API server says that this pod is gone. One of the same name that comes after it stays.
    pub(super) fn object_gone(&mut self, object: &Pod) {
        if self.0.get(&object.id).is_some_and(|announcement| announcement.told.is_about(object)) {
            self.0.remove(&object.id);
        }
    }

    /// What was told and is not over, with whether there is an object it is about. O(announcements).
    pub(super) fn all(&self) -> impl Iterator<Item = (&Announced, bool)> {
        self.0.values().map(|announcement| (&announcement.told, announcement.pod.is_some()))
    }

    /// The sandbox is gone. A later one of the pod stays. Says whether something was known of it.
    pub(super) fn remove(&mut self, id: &ObjectName, container: &str) -> bool {
        let known = self.0.get(id).is_some_and(|announcement| *announcement.told.container == *container);
        if known {
            self.0.remove(id);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::model::{Kind, Labels, Object, WatchEvent};
    use crate::store::Store;

    fn id() -> ObjectName {
        ObjectName { namespace: "shop".into(), name: "web-0".into() }
    }

    fn told(uid: &str, container: &str, last: u8) -> Announced {
        let ips = vec![[10, 244, 1, last].into()];
        Announced { id: id(), uid: Some(PodUid::of(uid)), container: container.into(), ips }
    }

    fn shown(store: &mut Store, uid: &str, lasts: &[u8]) {
        let pod = Pod {
            id: id(),
            uid: PodUid::of(uid),
            ips: lasts.iter().map(|last| [10, 244, 1, *last].into()).collect(),
            node: Some("here".into()),
            host_network: false,
            finished: false,
            terminating: false,
            grace_seconds: 30,
            labels: Labels::default(),
            ports: [].into(),
        };
        store.apply(WatchEvent::Applied(Object::Pod(pod), Vec::new()));
    }

    fn last(store: &Store) -> Option<u8> {
        match store.pod(&id())?.ips.first()? {
            IpAddr::V4(ip) => Some(ip.octets()[3]),
            IpAddr::V6(_) => None,
        }
    }

    #[test]
    fn an_announced_pod_has_addresses_before_its_object_has() {
        let mut store = Store::new("here".into());
        assert!(store.announce(told("a", "c1", 5)).pods.is_empty(), "nothing is known of its labels yet");
        assert_eq!((last(&store), store.pods().count()), (None, 0));
        shown(&mut store, "a", &[]);
        assert_eq!((last(&store), store.pods().count()), (Some(5), 1));
        assert!(store.wired(&told("a", "c1", 5)).is_some());
        // The API server has caught up: from now on its word counts.
        shown(&mut store, "a", &[5]);
        assert!(store.wired(&told("a", "c1", 5)).is_some());
        shown(&mut store, "a", &[]);
        assert_eq!(last(&store), None);
        // In the other order.
        let dirty = store.announce(told("a", "c1", 6));
        assert_eq!((last(&store), dirty.pods.len()), (Some(6), 1));
    }

    #[test]
    fn the_sandbox_goes_and_the_api_server_speaks_again() {
        let mut store = Store::new("here".into());
        shown(&mut store, "a", &[4]);
        store.announce(told("a", "c2", 5));
        assert_eq!(last(&store), Some(5), "a new sandbox of the pod");
        assert!(store.sandbox_removed(&id(), "c1").pods.is_empty(), "the old one went late");
        assert_eq!(last(&store), Some(5));
        assert_eq!(store.sandbox_removed(&id(), "c2").pods.len(), 1);
        assert_eq!(last(&store), Some(4));
    }

    #[test]
    fn a_pod_of_the_same_name_is_another_pod() {
        let mut store = Store::new("here".into());
        shown(&mut store, "a", &[4]);
        store.announce(told("b", "c2", 5));
        assert_eq!(
            last(&store),
            Some(4),
            "the watch is behind: labels of the old one say nothing of the new"
        );
        assert!(store.wired(&told("b", "c2", 5)).is_none());
        store.apply(WatchEvent::Deleted(Kind::Pod, id()));
        assert_eq!(last(&store), None);
        shown(&mut store, "b", &[]);
        assert_eq!(last(&store), Some(5));
        // Gone for good, before it was ever shown with addresses.
        store.apply(WatchEvent::Deleted(Kind::Pod, id()));
        shown(&mut store, "b", &[]);
        assert_eq!(last(&store), None);
    }

    #[test]
    fn a_runtime_that_tells_no_uid_is_believed_by_name() {
        let mut store = Store::new("here".into());
        shown(&mut store, "a", &[]);
        store.announce(Announced { uid: None, ..told("", "c1", 5) });
        assert_eq!(last(&store), Some(5));
    }
}
