//! Which packet filter the agent writes to, and its lanes.
//!
//! Decided here, once: iptables with IP sets, or nftables alone. Plans do not ask which it is, but for what
//! [`crate::node::Facts`] say of it. What the other one holds is enforced until ours is complete ([`super::leftovers`]).

use linux::firewall::{self, FirewallScope};
use linux::iptables;
use linux::iptables::tool::{Flavour, Programs};
use linux::lane::Lane;
use linux::netlink::OwnPorts;
use linux::nftables::monitor::{Monitor, Touched};
use linux::nftables::{self, Names, obstacles};
use linux::row::LaneName;
use tokio::sync::mpsc::Sender;

use super::input::Input;
use super::lanes::LaneError;
use crate::names;
use crate::options::FirewallBackend;

/// The packet filter of this process.
#[derive(Debug)]
pub(super) enum Backend {
    /// The programs of iptables, sets by ipset's netlink.
    Iptables(Programs),
    /// nf_tables' netlink; no program. With the ports of its lanes' sockets.
    Nftables(OwnPorts),
}

/// Names in nftables.
pub fn nftables_names() -> Names {
    Names {
        table_v4: names::table::V4.into(),
        table_v6: names::table::V6.into(),
        service_ports: names::set::SERVICE_PORTS.into(),
    }
}

impl Backend {
    /// The one that is wished for. Without a wish that whose objects are on the node, so that a restart changes nothing:
    /// tables of ours speak for nftables; else iptables if its programs are there, which may be up to six processes.
    /// `doctor::wanted` says the same of a node, without doing anything to it.
    ///
    /// # Errors
    /// When what is wished for is not there.
    pub(super) fn choose(wish: FirewallBackend) -> Result<Backend, LaneError> {
        let (backend, why) = match wish {
            FirewallBackend::Iptables => (Backend::Iptables(Programs::detect()?), "asked for"),
            FirewallBackend::Nftables => (Backend::nftables()?, "asked for"),
            FirewallBackend::Auto if nftables::is_in_use(&nftables_names())? => {
                (Backend::nftables()?, "in use on this node")
            }
            FirewallBackend::Auto => match Programs::detect() {
                Ok(programs) => (Backend::Iptables(programs), "installed"),
                Err(iptables) => match Backend::nftables() {
                    Ok(backend) => (backend, "there is no iptables"),
                    Err(_) => return Err(iptables.into()),
                },
            },
        };
        tracing::info!(backend = backend.name(), why, "packet filter");
        Ok(backend)
    }

    fn nftables() -> Result<Backend, LaneError> {
        nftables::try_kernel()?;
        let renamed = nftables::step_aside(&nftables_names(), names::chain::FORMER_PREFIX)?;
        if renamed > 0 {
            tracing::info!(
                chains = renamed,
                "an earlier kube-router's chains stay in force under other names until ours are complete"
            );
        }
        Ok(Backend::Nftables(OwnPorts::default()))
    }

    /// As users write it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Backend::Iptables(_) => "iptables",
            Backend::Nftables(_) => "nftables",
        }
    }

    /// Whether source NAT can be asked for ports at random.
    pub(super) fn random_fully(&self) -> bool {
        match self {
            Backend::Iptables(programs) => programs.random_fully(),
            Backend::Nftables(_) => true,
        }
    }

    /// Whether it has verdict maps.
    pub(super) fn verdict_maps(&self) -> bool {
        matches!(self, Backend::Nftables(_))
    }

    /// The lane of sets.
    pub(super) fn sets(&self, scope: &FirewallScope) -> Box<dyn Lane> {
        match self {
            Backend::Iptables(_) => Box::new(firewall::SetsLane::new(scope.clone())),
            Backend::Nftables(ports) => {
                Box::new(nftables::SetsLane::new(nftables_names()).with_ports(ports.clone()))
            }
        }
    }

    /// The lane of chains and rules.
    pub(super) fn rules(&self, scope: &FirewallScope) -> Box<dyn Lane> {
        match self {
            Backend::Iptables(programs) => {
                Box::new(firewall::FirewallLane::with_programs(scope.clone(), programs.clone()))
            }
            Backend::Nftables(ports) => {
                Box::new(nftables::RulesLane::new(nftables_names()).with_ports(ports.clone()))
            }
        }
    }

    /// The interface that sets are written through, where metrics speak of it.
    pub(super) fn sets_interface(&self) -> &'static str {
        match self {
            Backend::Iptables(_) => "ipset",
            Backend::Nftables(_) => "nftables",
        }
    }

    /// The set of service ports as a predecessor with the other backend left it: it tells whose a virtual server is.
    pub(super) fn others_ledger(&self) -> Box<dyn Lane> {
        match self {
            Backend::Iptables(_) => Box::new(nftables::SetsLane::new(nftables_names())),
            Backend::Nftables(_) => {
                let sets = vec![names::set::SERVICE_PORTS.into()];
                Box::new(firewall::SetsLane::new(FirewallScope { sets, ..FirewallScope::default() }))
            }
        }
    }

    /// What on this node may keep rules of ours from having effect, with the remedy.
    pub(super) fn warnings(&self) -> Vec<String> {
        match self {
            Backend::Iptables(_) => Vec::new(),
            Backend::Nftables(_) => match obstacles::find(&nftables_names()) {
                Ok(obstacles) => obstacles.iter().map(ToString::to_string).collect(),
                Err(error) => vec![format!("chains of others cannot be looked at: {error}")],
            },
        }
    }

    /// Reports what others change, from now on. Nobody tells of legacy tables, nor of IP sets: that is found at the next
    /// audit.
    pub(super) fn watch(
        &self,
        scope: &FirewallScope,
        core: &Sender<Input>,
    ) -> Result<Option<Monitor>, LaneError> {
        let core = core.clone();
        let reread = move |touched: Touched| {
            let lanes = [(touched.sets, LaneName::Sets), (touched.rules, LaneName::Firewall)];
            for (_, lane) in lanes.into_iter().filter(|(touched, _)| *touched) {
                // The core is gone only when the process ends.
                let _ = core.blocking_send(Input::Reread(lane));
            }
        };
        let monitor = match self {
            Backend::Nftables(ports) => Monitor::spawn(nftables_names(), ports.clone(), reread)?,
            Backend::Iptables(programs) if programs.flavour() == Flavour::Nft => {
                iptables::monitor::watch(scope.clone(), reread)?
            }
            Backend::Iptables(_) => return Ok(None),
        };
        Ok(Some(monitor))
    }
}
