//! The kinds the server knows: one static row each, from which discovery, routing and storage all read.
//!
//! Nothing here looks at objects; a kind is added by adding an enum variant and its row.

/// A stored kind, named by its plural as in a request path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs, reason = "the variants are the Kubernetes plurals")]
pub enum Resource {
    Namespaces,
    Nodes,
    Pods,
    Services,
    Endpoints,
    ConfigMaps,
    Secrets,
    ServiceAccounts,
    Events,
    Deployments,
    DaemonSets,
    ReplicaSets,
    EndpointSlices,
    NetworkPolicies,
    EventsV1,
    Leases,
    ClusterRoles,
    ClusterRoleBindings,
    Roles,
    RoleBindings,
}

/// What discovery says about a kind.
#[derive(Debug)]
pub struct Definition {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// The one version served.
    pub version: &'static str,
    /// Kind as in an object's `kind`.
    pub kind: &'static str,
    /// Path segment.
    pub plural: &'static str,
    /// `kubectl get <singular>`.
    pub singular: &'static str,
    /// `kubectl get <short>`.
    pub short: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Subresources answered besides the object itself.
    pub subresources: &'static [&'static str],
    /// `kubectl get all`.
    pub in_all: bool,
}

const CORE: Definition = Definition {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short: &[],
    namespaced: true,
    subresources: &[],
    in_all: false,
};
const APPS: Definition =
    Definition { group: "apps", subresources: &["status", "scale"], in_all: true, ..CORE };
const RBAC: Definition = Definition { group: "rbac.authorization.k8s.io", ..CORE };

/// Writes a row; the block is evaluated at compile time so that the reference is `'static`.
macro_rules! row {
    ($base:expr, $kind:literal, $plural:literal, $singular:literal $(, $field:ident : $value:expr)*) => {
        const { &Definition { kind: $kind, plural: $plural, singular: $singular, $($field: $value,)* ..$base } }
    };
}

impl Resource {
    /// Every kind, in discovery order.
    pub const ALL: [Self; 20] = [
        Self::Namespaces,
        Self::Nodes,
        Self::Pods,
        Self::Services,
        Self::Endpoints,
        Self::ConfigMaps,
        Self::Secrets,
        Self::ServiceAccounts,
        Self::Events,
        Self::Deployments,
        Self::DaemonSets,
        Self::ReplicaSets,
        Self::EndpointSlices,
        Self::NetworkPolicies,
        Self::EventsV1,
        Self::Leases,
        Self::ClusterRoles,
        Self::ClusterRoleBindings,
        Self::Roles,
        Self::RoleBindings,
    ];

    /// The row of this kind.
    pub const fn definition(self) -> &'static Definition {
        match self {
            Self::Namespaces => row!(CORE, "Namespace", "namespaces", "namespace",
                short: &["ns"], namespaced: false, subresources: &["status", "finalize"]),
            Self::Nodes => row!(CORE, "Node", "nodes", "node",
                short: &["no"], namespaced: false, subresources: &["status"]),
            Self::Pods => row!(CORE, "Pod", "pods", "pod",
                short: &["po"], subresources: &["status", "binding", "eviction"], in_all: true),
            Self::Services => row!(CORE, "Service", "services", "service",
                short: &["svc"], subresources: &["status"], in_all: true),
            Self::Endpoints => row!(CORE, "Endpoints", "endpoints", "endpoints", short: &["ep"]),
            Self::ConfigMaps => row!(CORE, "ConfigMap", "configmaps", "configmap", short: &["cm"]),
            Self::Secrets => row!(CORE, "Secret", "secrets", "secret"),
            Self::ServiceAccounts => {
                row!(CORE, "ServiceAccount", "serviceaccounts", "serviceaccount", short: &["sa"])
            }
            Self::Events => row!(CORE, "Event", "events", "event", short: &["ev"]),
            Self::Deployments => row!(APPS, "Deployment", "deployments", "deployment", short: &["deploy"]),
            Self::DaemonSets => {
                row!(APPS, "DaemonSet", "daemonsets", "daemonset", short: &["ds"], subresources: &["status"])
            }
            Self::ReplicaSets => row!(APPS, "ReplicaSet", "replicasets", "replicaset", short: &["rs"]),
            Self::EndpointSlices => {
                row!(CORE, "EndpointSlice", "endpointslices", "endpointslice", group: "discovery.k8s.io")
            }
            Self::NetworkPolicies => row!(CORE, "NetworkPolicy", "networkpolicies", "networkpolicy",
                group: "networking.k8s.io", short: &["netpol"]),
            Self::EventsV1 => row!(CORE, "Event", "events", "event", group: "events.k8s.io", short: &["ev"]),
            Self::Leases => row!(CORE, "Lease", "leases", "lease", group: "coordination.k8s.io"),
            Self::ClusterRoles => row!(RBAC, "ClusterRole", "clusterroles", "clusterrole", namespaced: false),
            Self::ClusterRoleBindings => {
                row!(RBAC, "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", namespaced: false)
            }
            Self::Roles => row!(RBAC, "Role", "roles", "role"),
            Self::RoleBindings => row!(RBAC, "RoleBinding", "rolebindings", "rolebinding"),
        }
    }

    /// `v1` or `group/v1`, as in an object's `apiVersion`.
    pub fn api_version(self) -> String {
        let Definition { group, version, .. } = self.definition();
        if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") }
    }

    /// The kind served at a request path's group, version and plural.
    pub fn from_path(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| {
            let row = resource.definition();
            row.group == group && row.version == version && row.plural == plural
        })
    }

    /// The kind of an object, by its `apiVersion` and `kind`.
    pub fn from_type(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::ALL.into_iter().find(|resource| {
            let row = resource.definition();
            row.group == group && row.version == version && row.kind == kind
        })
    }

    /// `services` or `deployments.apps`: how messages name the kind.
    pub fn qualified(self) -> String {
        let row = self.definition();
        if row.group.is_empty() { row.plural.to_owned() } else { format!("{}.{}", row.plural, row.group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_path_and_by_type() {
        for resource in Resource::ALL {
            let row = resource.definition();
            assert_eq!(Resource::from_path(row.group, row.version, row.plural), Some(resource));
            assert_eq!(Resource::from_type(&resource.api_version(), row.kind), Some(resource));
        }
    }

    #[test]
    fn the_group_is_part_of_the_name() {
        assert_eq!(Resource::from_type("apps/v1", "Pod"), None);
        assert_eq!(Resource::from_type("v1", "Pod"), Some(Resource::Pods));
        assert_eq!(Resource::Deployments.qualified(), "deployments.apps");
    }
}
