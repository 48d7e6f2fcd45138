//! Opening the lanes: what each may touch, and what the kernel must have for them.

use std::io;

use linux::firewall::{FirewallLane, FirewallScope};
use linux::iptables::tool::{self, Programs};
use linux::ipvs::{IpvsLane, OpenError};
use linux::lane::LaneThread;
use linux::route::{OwnPorts, RouteLane, RouteScope};
use linux::row::{ChainKey, LaneName, Name};
use linux::rule::{Action, Match, Rule};
use linux::sysctl::{SysctlLane, Sysctls};
use tokio::sync::mpsc;

use super::input::Input;
use crate::names;
use crate::network_services::base;
use crate::options::Options;

/// A lane could not be opened: the start ends here, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The kernel has no IPVS, or does not let us at it.
    #[error(transparent)]
    Ipvs(#[from] OpenError),
    /// No working `iptables-restore`.
    #[error("the service firewall needs iptables: {0}")]
    Iptables(#[from] tool::Error),
    /// A thread could not be started.
    #[error("starting the {what} thread: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// rtnetlink could not be opened.
    #[error("watching links and addresses: {0}")]
    Monitor(linux::netlink::Error),
}

/// What opening found and started.
pub(super) struct Opened {
    pub(super) lanes: Vec<(LaneName, LaneThread)>,
    pub(super) own_ports: OwnPorts,
    pub(super) random_fully: bool,
}

/// Opens every lane. Their sockets belong to the calling thread's network namespace.
pub(super) fn open(options: &Options, core: &mpsc::Sender<Input>) -> Result<Opened, LaneError> {
    let ipvs = IpvsLane::open(base::timeouts(options))?;
    let programs = Programs::detect()?;
    let random_fully = programs.random_fully();
    let (route_scope, firewall_scope) = scopes();
    let own_ports = OwnPorts::default();
    let route = RouteLane::new(route_scope, own_ports.clone());
    let firewall = FirewallLane::with_programs(firewall_scope, programs);
    let sysctl = SysctlLane::new(Sysctls::default(), base::settings().map(Name::from).collect());
    let lanes = vec![
        (LaneName::Sysctl, spawn(LaneName::Sysctl, sysctl, core)?),
        (LaneName::Route, spawn(LaneName::Route, route, core)?),
        (LaneName::Ipvs, spawn(LaneName::Ipvs, ipvs, core)?),
        (LaneName::Firewall, spawn(LaneName::Firewall, firewall, core)?),
    ];
    Ok(Opened { lanes, own_ports, random_fully })
}

/// The lane's name where health speaks of it.
pub(super) fn health_name(lane: LaneName) -> &'static str {
    match lane {
        LaneName::Sysctl => "sysctl lane",
        LaneName::Route => "route lane",
        LaneName::Ipvs => "IPVS lane",
        LaneName::Firewall => "firewall lane",
    }
}

fn spawn<L: linux::lane::Lane + 'static>(
    name: LaneName,
    lane: L,
    core: &mpsc::Sender<Input>,
) -> Result<LaneThread, LaneError> {
    let core = core.clone();
    let report = move |report| {
        // The core is gone only when the process ends.
        let _ = core.blocking_send(Input::Lane(report));
    };
    LaneThread::spawn(name, move || lane, report)
        .map_err(|source| LaneError::Thread { what: health_name(name), source })
}

/// What on a node belongs to the service proxy, by name: links, addresses and routes; sets, chains and rules.
pub fn scopes() -> (RouteScope, FirewallScope) {
    let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
    let route = RouteScope {
        links: names(&[names::link::DUMMY]),
        address_links: names(&[names::link::DUMMY]),
        bridges: names(&[names::link::BRIDGE]),
        ..RouteScope::default()
    };
    let firewall = FirewallScope {
        chains: names(&[names::chain::SERVICES, names::chain::HAIRPIN]),
        sets: names(&[
            names::set::LOCAL_IPS,
            names::set::SERVICE_IPS,
            names::set::SERVICE_PORTS,
            names::set::HAIRPIN,
            names::set::NODE_PODS,
        ]),
        foreign: is_masquerade,
        ..FirewallScope::default()
    };
    (route, firewall)
}

/// A masquerade rule of this program or of Go kube-router: source NAT of what goes through IPVS, in POSTROUTING.
fn is_masquerade(chain: &ChainKey, rule: &Rule) -> bool {
    if *chain.name != *"POSTROUTING" {
        return false;
    }
    match rule {
        Rule::Known(rule) => {
            let nat = matches!(rule.action, Action::SourceNat { .. } | Action::Masquerade { .. });
            nat && rule.matches.iter().any(|condition| matches!(condition, Match::Ipvs(_)))
        }
        Rule::Unknown(_) => false,
    }
}
