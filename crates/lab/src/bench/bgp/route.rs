//! From an UPDATE at an agent to the route in its kernel: what a new node waits for.
//!
//! One prefix at a time: the clock starts before the octets are written and ends when the kernel says that the route is
//! there (rtnetlink(7), RTMGRP_IPV4_ROUTE). So it has in it the socket, the session, the choice of the best path, the
//! agent's plan and the kernel's work.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
};
use nix::sys::time::TimeVal;

use super::super::report::{Line, milliseconds, percentile};
use super::super::{Error, Lab, io};
use super::message;
use super::session::{Identity, Session, say};
use crate::cluster::Cluster;
use crate::node::{Families, Namespace};

/// p99 of one route at a time.
const LIMIT: Duration = Duration::from_millis(10);
/// Longest wait for a route.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two prefixes, so that each finds an agent at rest.
const PAUSE: Duration = Duration::from_millis(5);
/// AS number of the peer that tells.
const TELLER: u32 = 65_001;
/// How often the listener looks whether it is still wanted.
const LOOK: i64 = 100_000;

/// Tells an agent `count` prefixes one after the other, then as many at once.
pub(super) fn measure(lab: &Lab<'_>, count: u32) -> Result<Vec<Line>, Error> {
    lab.say(format!("BGP, from an UPDATE to the agent's route: {count} prefixes"));
    let outcome = lab.runtime.block_on(times(lab, count))?;
    let (mut each, together) = outcome;
    each.sort_unstable();
    let (median, late) = (percentile(&each, 50), percentile(&each, 99));
    Ok(vec![
        Line::gate(
            format!("BGP, UPDATE to kernel route, {count} one at a time: p50 / p99"),
            format!("{} / {} ms", milliseconds(median), milliseconds(late)),
            format!("p99 <= {} ms", LIMIT.as_millis()),
            late <= LIMIT,
        ),
        Line::plain(
            format!("BGP, UPDATE to kernel route, {count} at once: the last"),
            format!("{} ms", milliseconds(together)),
        ),
    ])
}

async fn times(lab: &Lab<'_>, count: u32) -> Result<(Vec<Duration>, Duration), Error> {
    let teller = Families::V4.outside(0, 1).first().map(ipnet::IpNet::addr);
    let Some(IpAddr::V4(address)) = teller else {
        return Err(Error::Wrong("the fabric has no address for a teller".to_owned()));
    };
    let flags = [
        "--run-router=true".to_owned(),
        "--run-service-proxy=false".to_owned(),
        "--run-firewall=false".to_owned(),
        format!("--peer-router-ips={address}"),
        format!("--peer-router-asns={TELLER}"),
    ];
    let builder = Cluster::builder().nodes(1).families(Families::V4).route_pods(false);
    let cluster = builder.agent(lab.agent).agent_flags(flags).start().await?;
    let node = cluster.node(1)?;
    let agent = node.addresses().into_iter().find(IpAddr::is_ipv4);
    let agent = agent.ok_or_else(|| Error::Wrong("the node has no address".to_owned()))?;
    let routes = Routes::watch(node.namespace())?;
    let identity = Identity { address, asn: TELLER };
    let session = Session::establish(cluster.outside().namespace(), identity, agent).await?;
    let mut says = session.says;
    let deaf = tokio::spawn(session.hears.deafly());
    let attributes = message::attributes(&[TELLER], address, None, &[]);
    let mut each = Vec::new();
    // The first one pays for what is done once.
    for n in 0..=count {
        let start = Instant::now();
        say(&mut says, &message::reach(&attributes, std::iter::once(n))).await?;
        each.push(routes.arrival(n)?.saturating_duration_since(start));
        tokio::time::sleep(PAUSE).await;
    }
    each.remove(0);
    let start = Instant::now();
    let all = count + 1..=2 * count;
    let mut octets = Vec::new();
    for n in all.clone() {
        octets.extend(message::reach(&attributes, std::iter::once(n)));
    }
    say(&mut says, &octets).await?;
    let mut last = start;
    let mut missing: std::collections::HashSet<u32> = all.collect();
    while !missing.is_empty() {
        let (n, at) = routes.next()?;
        missing.remove(&n);
        last = last.max(at);
    }
    deaf.abort();
    // What is taken down here blocks.
    tokio::task::block_in_place(|| drop((cluster, routes)));
    Ok((each, last.saturating_duration_since(start)))
}

/// New IPv4 routes to a /24 of a namespace, by their first address, as they appear.
pub(super) struct Routes {
    seen: mpsc::Receiver<(u32, Instant)>,
    wanted: Arc<AtomicBool>,
}

impl Routes {
    /// Listens from now on.
    pub(super) fn watch(namespace: &Namespace) -> Result<Routes, Error> {
        let wanted = Arc::new(AtomicBool::new(true));
        let (sender, seen) = mpsc::channel();
        let (ready, opened) = mpsc::channel();
        let still = Arc::clone(&wanted);
        namespace.enter(move || {
            let socket = match open() {
                Ok(socket) => socket,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            let mut buffer = vec![0; 64 * 1024];
            while still.load(Ordering::Relaxed) {
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        let at = Instant::now();
                        for address in new_routes(buffer.get(..length).unwrap_or_default()) {
                            let _ = sender.send((address, at));
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    // What was lost is missed by who waits for it.
                    Err(_) => return,
                }
            }
        })?;
        let opened =
            opened.recv().map_err(|_| Error::Wrong("the route listener did not start".to_owned()))?;
        opened.map_err(|errno| io("listening for routes")(errno.into()))?;
        Ok(Routes { seen, wanted })
    }

    /// The next new route.
    fn any(&self) -> Result<(u32, Instant), Error> {
        self.seen.recv_timeout(PATIENCE).map_err(|_| Error::TooLate {
            what: "a route in the agent's kernel".to_owned(),
            seconds: PATIENCE.as_secs(),
            said: String::new(),
        })
    }

    /// When the next route to the /24 with this first address appears.
    pub(super) fn to(&self, first: u32) -> Result<Instant, Error> {
        loop {
            let (other, at) = self.any()?;
            if other == first {
                return Ok(at);
            }
        }
    }

    /// The next new route among those of the bench, by its number.
    fn next(&self) -> Result<(u32, Instant), Error> {
        loop {
            let (address, at) = self.any()?;
            if let Some(n) = message::index(address) {
                return Ok((n, at));
            }
        }
    }

    /// When the route to prefix `n` appeared.
    fn arrival(&self, n: u32) -> Result<Instant, Error> {
        loop {
            let (other, at) = self.next()?;
            if other == n {
                return Ok(at);
            }
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

fn open() -> Result<std::os::fd::OwnedFd, Errno> {
    const RTMGRP_IPV4_ROUTE: u32 = 0x40;
    let route = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
    setsockopt(&socket, RcvBuf, &(4 << 20))?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, LOOK))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_IPV4_ROUTE))?;
    Ok(socket)
}

/// First addresses of the /24 that RTM_NEWROUTE messages are about.
fn new_routes(mut octets: &[u8]) -> Vec<u32> {
    const RTM_NEWROUTE: u16 = 24;
    const RTA_DST: u16 = 1;
    /// Of a message and its `rtmsg`.
    const HEADS: usize = 16 + 12;
    let word = |at: &[u8], from: usize| at.get(from..from + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let half = |at: &[u8], from: usize| at.get(from..from + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let mut found = Vec::new();
    while let Some(length) = word(octets, 0).map(|length| length as usize).filter(|length| *length >= 16) {
        let message = octets.get(..length.min(octets.len())).unwrap_or_default();
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        if half(message, 4) != Some(RTM_NEWROUTE) || message.get(17) != Some(&24) {
            continue;
        }
        let mut attributes = message.get(HEADS..).unwrap_or_default();
        while let Some(length) = half(attributes, 0).map(usize::from).filter(|length| *length >= 4) {
            if half(attributes, 2) == Some(RTA_DST)
                && let Some(address) = attributes.get(4..8).and_then(|octets| octets.try_into().ok())
            {
                found.push(u32::from_be_bytes(address));
            }
            attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    found
}
