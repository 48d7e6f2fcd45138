//! NetworkPolicy (networking.k8s.io/v1) and Namespace.
//!
//! What is absent and what is empty are different things all over this API; here `None` is "no restriction" and an empty
//! list is "nothing". Parts that could not be read are left out of lists, so that a broken part permits nothing.

use ipnet::IpNet;
use linux::row::{Name, Protocol};

use super::{Labels, ObjectName, Selector};

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Name,
    /// `metadata.labels`.
    pub labels: Labels,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Which.
    pub id: ObjectName,
    /// `spec.podSelector`: the pods of its namespace it isolates.
    pub target: Selector,
    /// `spec.ingress`, if `policyTypes` (or its default) says Ingress. No rules permit nothing.
    pub ingress: Option<Vec<PolicyRule>>,
    /// `spec.egress`, if `policyTypes` (or its default) says Egress.
    pub egress: Option<Vec<PolicyRule>>,
}

/// An ingress or egress rule: what comes from (goes to) one of the peers at one of the ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// `from` or `to`; `None` is every source or destination, pods or not.
    pub peers: Option<Vec<Peer>>,
    /// `ports`; `None` is every port of every protocol.
    pub ports: Option<Vec<PolicyPort>>,
}

/// A NetworkPolicyPeer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Pods.
    Pods {
        /// `namespaceSelector`; `None` is the policy's own namespace.
        namespaces: Option<Selector>,
        /// `podSelector`; everything if it is absent beside a namespace selector.
        pods: Selector,
    },
    /// `ipBlock`
    Block {
        /// `cidr`
        net: IpNet,
        /// `except`
        except: Vec<IpNet>,
    },
}

/// A NetworkPolicyPort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyPort {
    /// `protocol`, TCP if absent.
    pub protocol: Protocol,
    /// `port` and `endPort`.
    pub port: PortRange,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortRange {
    /// All of them, and what has none.
    Any,
    /// First to last, inclusive.
    Numbers(u16, u16),
    /// The port that the pod it is sent to calls so.
    Named(Name),
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// `name`
    pub name: Name,
    /// `protocol`
    pub protocol: Protocol,
    /// `containerPort`
    pub port: u16,
}
