//! What kube-apiserver's admission, kube-controller-manager, kube-scheduler and a cloud would do.
//!
//! `admission` completes objects inside the write; the controllers are one task each, driven by the store's own
//! watch: `namespaces`, `scheduler`, `workload_controller` (plans in `workloads`), `endpoint_controller` (plans in
//! `endpoints`), `cloud`. A kubelet is not among them: pods run only where the lab has nodes.

mod admission;
mod cloud;
mod endpoint_controller;
mod endpoints;
mod label_index;
mod namespaces;
mod pods;
mod scheduler;
mod workload_controller;
mod workloads;

use ipnet::IpNet;
use tokio::task::JoinHandle;

pub(crate) use admission::Admission;
pub use admission::UNCHECKED;
pub(crate) use namespaces::create_initial as create_initial_namespaces;

use crate::api_server::Handle;

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

/// Starts the controllers; they stop when their tasks are aborted.
pub(crate) fn start(handle: &Handle, config: &Config) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(namespaces::run(handle.clone())),
        tokio::spawn(scheduler::run(handle.clone())),
        tokio::spawn(workload_controller::run(handle.clone())),
        tokio::spawn(endpoint_controller::run(handle.clone())),
        tokio::spawn(cloud::run(handle.clone(), config.load_balancer_cidrs.clone())),
    ]
}
