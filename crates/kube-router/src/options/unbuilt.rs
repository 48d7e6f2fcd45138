//! Which flags belong to features that are not built yet.
//!
//! They are accepted, so that manifests need no edit, and named once at the start, so that nobody relies on them.

use super::Options;

/// Flags without effect today: those of the controllers and servers that do not exist.
const UNBUILT: &[&str] = &[
    "advertise-cluster-ip",
    "advertise-external-ip",
    "advertise-loadbalancer-ip",
    "advertise-pod-cidr",
    "auto-mtu",
    "bfd-desired-min-tx-interval",
    "bfd-detection-multiplier",
    "bfd-port",
    "bfd-required-min-rx-interval",
    "bgp-graceful-restart",
    "bgp-graceful-restart-deferral-time",
    "bgp-graceful-restart-time",
    "bgp-holdtime",
    "bgp-port",
    "cluster-asn",
    "disable-source-dest-check",
    "enable-bfd",
    "enable-cni",
    "enable-ibgp",
    "enable-overlay",
    "enable-pod-egress",
    "enable-pprof",
    "gobgp-admin-address",
    "gobgp-admin-port",
    "injected-routes-sync-period",
    "loadbalancer-default-class",
    "loadbalancer-sync-period",
    "nodes-full-mesh",
    "overlay-encap",
    "overlay-encap-port",
    "overlay-type",
    "override-nexthop",
    "peer-asn",
    "peer-router",
    "peer-router-asns",
    "peer-router-ips",
    "peer-router-multihop-ttl",
    "peer-router-passwords",
    "peer-router-passwords-file",
    "peer-router-ports",
    "router-id",
    "routes-sync-period",
    "run-loadbalancer",
    "run-router",
    "runtime-endpoint",
    "use-nftables-for-netpol",
];

/// The flags given by the user that have no effect because their feature is not built. A switch that only says `false`
/// to a controller is no wish and not listed.
pub fn unbuilt(options: &Options) -> Vec<&'static str> {
    let switched_off = |flag: &str| match flag {
        "run-router" => !options.controllers.routes,
        "run-loadbalancer" => !options.controllers.load_balancer,
        _ => false,
    };
    UNBUILT.iter().filter(|flag| options.given.has(flag) && !switched_off(flag)).copied().collect()
}

/// The controllers that are switched on, by flag or by default, and do not exist.
pub fn unbuilt_controllers(options: &Options) -> Vec<&'static str> {
    let controllers = options.controllers;
    [
        (controllers.routes, "pod routing (--run-router)"),
        (controllers.load_balancer, "load-balancer addresses (--run-loadbalancer)"),
    ]
    .into_iter()
    .filter_map(|(on, name)| on.then_some(name))
    .collect()
}
