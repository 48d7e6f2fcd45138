//! What an event touches, in the terms plans are keyed by.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kube::model::ObjectName;

/// Keys to plan anew. Only ever added to, so several events are one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Pods, here or elsewhere, whose place in kernel sets may have changed.
    pub members: BTreeSet<ObjectName>,
    /// Policies whose chains may have changed, appeared or gone.
    pub policies: BTreeSet<ObjectName>,
    /// Pods of this node whose own chain may have changed, appeared or gone.
    pub pods: BTreeSet<ObjectName>,
    /// Pods of this node came, went or changed their addresses.
    pub pods_here: bool,
    /// Addresses whose running flows may be permitted no more, or again.
    pub flows: BTreeSet<IpAddr>,
}

impl Touched {
    /// Whether nothing is left to be planned.
    pub fn is_planned(&self) -> bool {
        self.members.is_empty() && self.policies.is_empty() && self.pods.is_empty() && !self.pods_here
    }
}
