//! What the kernel tells by itself: links, addresses and routes by notifications, connections of draining real servers
//! by asking. Threads that only look and report; nothing is decided here but what is worth reporting.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc as queue;
use std::time::{Duration, Instant};

use linux::ipvs::{ConnectionCount, Connections};
use linux::netlink::Error;
use linux::route::monitor::{Event, Monitor, Notice};
use linux::route::{LinkState, OwnPorts, RouteScope, Rtnetlink, links, local_addresses};
use linux::row::{LaneName, LinkKind, Name};
use linux::sysctl::Sysctls;
use tokio::sync::mpsc::Sender;

use super::input::{Input, News};
use super::lanes::LaneError;
use crate::names;
use crate::network_services::drain::RealServerKey;
use crate::node::Facts;

/// How often draining real servers are asked for their connections (upstream's interval).
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Watches links, addresses and routes from now on, and reports them as they are.
pub(super) fn watch(scope: RouteScope, own: OwnPorts, core: Sender<Input>) -> Result<(), LaneError> {
    let (wake, woken) = queue::channel::<()>();
    let reports = core.clone();
    let routes = scope.protocol != 0;
    let monitor = Monitor::spawn(scope, own, move |notice| {
        if concerns_facts(&notice) {
            let _ = wake.send(());
        }
        if matches!(notice.event, Event::Lost) {
            tracing::warn!(
                "notices of links, addresses and routes were lost: what the kernel has is read again"
            );
        }
        for input in foreign_change(&notice, routes) {
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
/// IPv6 addresses who changed them. `routes` says whether routes over any link may be ours: they go in silence with the
/// link, or with the address they prefer.
fn foreign_change(notice: &Notice, routes: bool) -> Vec<Input> {
    let event = &notice.event;
    let gone = || Input::Changed(event.touched().into_iter().map(|key| (key, None)).collect());
    let reread = || Input::Reread(LaneName::Route);
    match event {
        // With the last IPv4 address of a link all its routes go, and no notification says so.
        Event::AddressGone { link, net } if **link == *names::link::DUMMY && net.addr().is_ipv4() => {
            vec![gone(), reread()]
        }
        Event::AddressGone { .. } if routes => vec![gone(), reread()],
        Event::AddressGone { .. }
        | Event::RouteGone { .. }
        | Event::RouteReplaced { .. }
        | Event::RuleGone { .. } => vec![gone()],
        Event::LinkGone { name } | Event::LinkChanged { name, .. } if **name == *names::link::DUMMY => {
            vec![reread()]
        }
        Event::LinkGone { .. } | Event::LinkChanged { master: None, .. } if routes => vec![reread()],
        Event::Lost => vec![reread()],
        _ => Vec::new(),
    }
}

/// Addresses but those of `kube-dummy-if` and link-local ones, ports of `kube-bridge`, and settings of all links that hold
/// such an address. O(links + addresses).
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
    let (mut rp_filter, mut accept_ra) = (BTreeMap::new(), BTreeMap::new());
    let sysctls = Sysctls::default();
    let number = |path: &str| sysctls.read(path).ok().flatten()?.parse::<u8>().ok();
    for link in addresses.iter().map(|(link, _)| &**link).chain(["all"]) {
        let of_link = |value| (Name::from(link), value);
        rp_filter.extend(number(&format!("net/ipv4/conf/{link}/rp_filter")).map(of_link));
        accept_ra.extend(number(&format!("net/ipv6/conf/{link}/accept_ra")).map(of_link));
    }
    let holds_one = |name: &Name| addresses.iter().any(|(link, _)| link == name);
    let mtu = links.iter().filter(|link| holds_one(&link.name)).map(|link| (link.name.clone(), link.mtu));
    let mtu = mtu.collect();
    let tunnel = |link: &LinkState| match link.kind {
        LinkKind::Tunnel(tunnel) => Some((link.name.clone(), tunnel)),
        _ => None,
    };
    let ours = links.iter().filter(|link| link.name.starts_with(names::link::TUNNEL_PREFIX));
    let tunnels = ours.filter_map(tunnel).collect();
    let forwards_v6 = number("net/ipv6/conf/all/forwarding").is_some_and(|on| on != 0);
    let links = Facts { addresses, mtu, tunnels, bridge_ports, ..Facts::default() };
    Ok(Facts { rp_filter, accept_ra, forwards_v6, ..links })
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
        let connections = Connections::open()?;
        let core = core.clone();
        let spawned = std::thread::Builder::new()
            .name("drains".to_owned())
            .spawn(move || follow_drains(&asked, connections, &core));
        spawned.map_err(|source| LaneError::Thread { what: "drains", source })?;
        Ok(DrainWatch(sender))
    }

    /// What drains now.
    pub(super) fn watch(&self, draining: Vec<RealServerKey>) {
        // The thread ends only with the process.
        let _ = self.0.send(draining);
    }
}

/// Until the core is gone: waits for something that drains, then asks for its connections at every interval. O(what
/// drains) each time.
fn follow_drains(
    asked: &queue::Receiver<Vec<RealServerKey>>,
    mut connections: Connections,
    core: &Sender<Input>,
) {
    let mut draining: Vec<RealServerKey> = Vec::new();
    let mut ask_at = Instant::now();
    loop {
        if draining.is_empty() {
            let Ok(now) = asked.recv() else { return };
            draining = now;
            ask_at = Instant::now() + DRAIN_INTERVAL;
            continue;
        }
        match asked.recv_timeout(ask_at.saturating_duration_since(Instant::now())) {
            Ok(now) => draining = now,
            Err(queue::RecvTimeoutError::Disconnected) => return,
            Err(queue::RecvTimeoutError::Timeout) => {
                ask_at = Instant::now() + DRAIN_INTERVAL;
                let idle = idle(&mut connections, &draining);
                if !idle.is_empty() && core.blocking_send(Input::News(News::Idle(idle))).is_err() {
                    return;
                }
            }
        }
    }
}

/// Those without a connection; one the kernel no longer knows has none. Nobody where it does not answer.
fn idle(connections: &mut Connections, draining: &[RealServerKey]) -> Vec<RealServerKey> {
    let counts = match connections.of(draining) {
        Ok(counts) => counts,
        Err(error) => {
            tracing::warn!("counting connections of draining real servers: {error}");
            return Vec::new();
        }
    };
    let none_left =
        |count: &Option<ConnectionCount>| count.is_none_or(|count| count.active + count.inactive == 0);
    let idle = draining.iter().zip(&counts).filter(|(_, count)| none_left(count));
    idle.map(|(server, _)| *server).collect()
}
