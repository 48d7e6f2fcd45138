//! What kube-apiserver's admission, kube-controller-manager, kube-scheduler and a cloud would do.

mod admission;

use ipnet::IpNet;
use serde_json::json;
use tokio::task::JoinHandle;

pub(crate) use admission::Admission;

use crate::api_server::{Handle, Resource};

/// The cluster's address plan.
#[derive(Clone, Debug)]
pub struct Config {
    /// Service ranges; the first is the primary family.
    pub service_cidrs: Vec<IpNet>,
    /// Ranges that node pod CIDRs are cut from: a /24 of each IPv4 and a /64 of each IPv6 range per node.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges for LoadBalancer services without `spec.loadBalancerIP`; empty leaves them pending.
    pub load_balancer_cidrs: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Self {
        let net = |a, b, c, d, prefix| IpNet::new(std::net::Ipv4Addr::new(a, b, c, d).into(), prefix);
        Self {
            service_cidrs: net(10, 96, 0, 0, 12).into_iter().collect(),
            pod_cidrs: net(10, 244, 0, 0, 16).into_iter().collect(),
            load_balancer_cidrs: Vec::new(),
        }
    }
}

pub(crate) fn create_initial_namespaces(handle: &Handle) {
    for name in ["default", "kube-system"] {
        let _ = handle.create(Resource::Namespaces, json!({"metadata": {"name": name}}));
    }
}

pub(crate) fn start(_handle: Handle, _config: &Config) -> Vec<JoinHandle<()>> {
    Vec::new()
}
