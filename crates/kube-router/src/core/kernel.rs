//! What the kernel tells by itself: links, addresses and routes by notifications, connections of draining real servers
//! by asking. Threads that only look and report; nothing is decided here but what is worth reporting.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc as queue;
use std::time::{Duration, Instant};

use linux::ipvs::Connections;
use linux::netlink::Error;
use linux::route::monitor::{Event, Monitor, Notice};
use linux::route::{OwnPorts, Rtnetlink, links, local_addresses};
use linux::row::{LaneName, LinkKind, Name};
use linux::sysctl::Sysctls;
use tokio::sync::mpsc::Sender;

use super::input::Input;
use super::lanes::{LaneError, scopes};
use crate::names;
use crate::network_services::drain::{Draining, RealServerKey};
use crate::node::Facts;

/// How often draining real servers are asked for their connections (upstream's interval).
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Watches links, addresses and routes from now on, and reports them as they are.
pub(super) fn watch(own: OwnPorts, core: Sender<Input>) -> Result<(), LaneError> {
    let (wake, woken) = queue::channel::<()>();
    let reports = core.clone();
    let (scope, _) = scopes();
    let monitor = Monitor::spawn(scope, own, move |notice| {
        if concerns_facts(&notice) {
            let _ = wake.send(());
        }
        for input in foreign_change(&notice) {
            let _ = reports.blocking_send(input);
        }
    });
    let monitor = monitor.map_err(LaneError::Monitor)?;
    let mut kernel = Rtnetlink::open().map_err(LaneError::Monitor)?;
    let run = move || {
        let _monitor = monitor;
        let mut last = None;
        loop {
            match read_facts(&mut kernel) {
                Ok(facts) if last.as_ref() != Some(&facts) => {
                    last = Some(facts.clone());
                    if core.blocking_send(Input::Facts(facts)).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("reading links and addresses: {error}");
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
            }
            if woken.recv().is_err() {
                return;
            }
            // One reading serves every notification that came before it.
            while woken.try_recv().is_ok() {}
        }
    };
    let spawned = std::thread::Builder::new().name("facts".to_owned()).spawn(run);
    spawned.map(|_| ()).map_err(|source| LaneError::Thread { what: "facts", source })
}

fn concerns_facts(notice: &Notice) -> bool {
    match &notice.event {
        Event::AddressGone { link, .. } | Event::AddressNew { link, .. } => **link != *names::link::DUMMY,
        Event::LinkGone { .. } | Event::LinkChanged { .. } | Event::Lost => true,
        _ => false,
    }
}

/// What somebody else's change means for our rows. Most of our own changes do not get here; the kernel does not say of
/// IPv6 addresses who changed them.
fn foreign_change(notice: &Notice) -> Vec<Input> {
    let event = &notice.event;
    let gone = || Input::Changed(event.touched().into_iter().map(|key| (key, None)).collect());
    let reread = || Input::Reread(LaneName::Route);
    match event {
        // With the last IPv4 address of a link all its routes go, and no notification says so.
        Event::AddressGone { link, net } if **link == *names::link::DUMMY && net.addr().is_ipv4() => {
            vec![gone(), reread()]
        }
        Event::AddressGone { .. }
        | Event::RouteGone { .. }
        | Event::RouteReplaced { .. }
        | Event::RuleGone { .. } => vec![gone()],
        Event::LinkGone { name } | Event::LinkChanged { name, .. } if **name == *names::link::DUMMY => {
            vec![reread()]
        }
        Event::Lost => vec![reread()],
        _ => Vec::new(),
    }
}

/// Addresses but those of `kube-dummy-if` and link-local ones, ports of `kube-bridge`, and reverse path filters of all
/// links that hold such an address. O(links + addresses).
fn read_facts(kernel: &mut Rtnetlink) -> Result<Facts, Error> {
    let links = links(kernel)?;
    let addresses = local_addresses(kernel)?;
    let bridge =
        links.iter().find(|link| *link.name == *names::link::BRIDGE && link.kind == LinkKind::Bridge);
    let ports =
        links.iter().filter(|link| bridge.is_some() && link.master == bridge.map(|bridge| bridge.index));
    let bridge_ports: Vec<Name> = ports.map(|port| port.name.clone()).collect();
    let own = addresses
        .into_iter()
        .filter(|address| *address.link != *names::link::DUMMY && !is_link_local(address.net.addr()));
    let addresses: Vec<_> = own.map(|address| (address.link, address.net)).collect();
    let mut rp_filter = BTreeMap::new();
    let sysctls = Sysctls::default();
    for link in addresses.iter().map(|(link, _)| &**link).chain(["all"]) {
        let value = sysctls.read(&format!("net/ipv4/conf/{link}/rp_filter")).ok().flatten();
        rp_filter.extend(value.and_then(|text| text.parse().ok()).map(|value: u8| (Name::from(link), value)));
    }
    Ok(Facts { addresses, bridge_ports, rp_filter, random_fully: false })
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Asks for the connections of draining real servers, and reports those that have none.
pub(super) struct DrainWatch(queue::Sender<Vec<RealServerKey>>);

impl DrainWatch {
    pub(super) fn start(core: &Sender<Input>) -> Result<DrainWatch, LaneError> {
        let (sender, asked) = queue::channel();
        let mut connections = Connections::open()?;
        let core = core.clone();
        let run = move || {
            let mut draining: Vec<RealServerKey> = Vec::new();
            let mut ask_at = Instant::now();
            loop {
                let next = if draining.is_empty() {
                    ask_at = Instant::now() + DRAIN_INTERVAL;
                    asked.recv().map_err(|_| queue::RecvTimeoutError::Disconnected)
                } else {
                    asked.recv_timeout(ask_at.saturating_duration_since(Instant::now()))
                };
                match next {
                    Ok(now) => draining = now,
                    Err(queue::RecvTimeoutError::Disconnected) => return,
                    Err(queue::RecvTimeoutError::Timeout) => {
                        ask_at = Instant::now() + DRAIN_INTERVAL;
                        match connections.of(&draining) {
                            Ok(counts) => {
                                let idle = |count: &Option<_>| count.is_none_or(is_idle);
                                let servers = draining.iter().zip(&counts).filter(|(_, count)| idle(count));
                                let servers: Vec<_> = servers.map(|(server, _)| *server).collect();
                                if !servers.is_empty() && core.blocking_send(Input::Idle(servers)).is_err() {
                                    return;
                                }
                            }
                            Err(error) => {
                                tracing::warn!("counting connections of draining real servers: {error}")
                            }
                        }
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("drains".to_owned()).spawn(run);
        spawned.map_err(|source| LaneError::Thread { what: "drains", source })?;
        Ok(DrainWatch(sender))
    }

    /// What drains now.
    pub(super) fn watch(&self, draining: &Draining) {
        let _ = self.0.send(draining.all().copied().collect());
    }
}

fn is_idle(count: linux::ipvs::ConnectionCount) -> bool {
    count.active + count.inactive == 0
}
