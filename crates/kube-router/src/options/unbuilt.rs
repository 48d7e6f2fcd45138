//! Which flags belong to features that are not built yet.
//!
//! They are accepted, so that manifests need no edit, and named once at the start, so that nobody relies on them.

use super::Options;

/// Flags without effect today: those of the controllers and servers that do not exist.
const UNBUILT: &[&str] = &[
    "bfd-desired-min-tx-interval",
    "bfd-detection-multiplier",
    "bfd-port",
    "bfd-required-min-rx-interval",
    "disable-source-dest-check",
    "enable-bfd",
    "enable-pprof",
    "gobgp-admin-address",
    "gobgp-admin-port",
    "loadbalancer-default-class",
    "loadbalancer-sync-period",
    "run-loadbalancer",
    "runtime-endpoint",
];

/// The flags given by the user that have no effect because their feature is not built. A switch that only says `false`
/// to a controller is no wish and not listed.
pub fn unbuilt(options: &Options) -> Vec<&'static str> {
    let switched_off = |flag: &str| match flag {
        "run-loadbalancer" => !options.controllers.load_balancer,
        _ => false,
    };
    UNBUILT.iter().filter(|flag| options.given.has(flag) && !switched_off(flag)).copied().collect()
}

/// The controllers that are switched on, by flag or by default, and do not exist.
pub fn unbuilt_controllers(options: &Options) -> Vec<&'static str> {
    let controllers = options.controllers;
    [(controllers.load_balancer, "load-balancer addresses (--run-loadbalancer)")]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect()
}
