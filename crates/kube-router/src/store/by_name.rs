//! Pods in order of their names, each name kept once: in the pod.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::kube::model::{ObjectName, Pod};

/// A pod, which is found by its name and equal to every other of that name.
#[derive(Debug)]
pub(super) struct PodByName(Arc<Pod>);

impl PodByName {
    pub(super) fn new(pod: Pod) -> PodByName {
        PodByName(Arc::new(pod))
    }

    pub(super) fn pod(&self) -> &Arc<Pod> {
        &self.0
    }
}

impl Borrow<ObjectName> for PodByName {
    fn borrow(&self) -> &ObjectName {
        &self.0.id
    }
}

impl PartialEq for PodByName {
    fn eq(&self, other: &PodByName) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for PodByName {}

impl Ord for PodByName {
    fn cmp(&self, other: &PodByName) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for PodByName {
    fn partial_cmp(&self, other: &PodByName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
