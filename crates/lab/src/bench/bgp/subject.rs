//! What is measured: a speaker's process in a namespace of its own, and the namespace of those who talk to it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::super::{Error, io};
use super::message;
use super::session::Identity;
use crate::node::{Fabric, Families, Namespace};
use crate::router::{Config, Neighbour, Router, Software};

/// AS number of every speaker measured.
pub(super) const OURS: u32 = 64_500;

/// A wire with a speaker at one end and all its peers at the other.
pub(super) struct Wire {
    fabric: Arc<Fabric>,
    pub(super) senders: Arc<Namespace>,
}

impl Wire {
    /// Room for a dozen external peers and for `clients` internal ones.
    pub(super) fn new(clients: u16) -> Result<Wire, Error> {
        let fabric = Arc::new(Fabric::new(Families::V4, 1)?);
        let senders = Arc::new(Namespace::network("senders")?);
        let near = (0..16).map(|n| net(external(n), 24));
        let far = (0..clients).map(|n| net(client(n), 16));
        fabric.plug(&senders, 0, &near.chain(far).collect::<Vec<_>>())?;
        Ok(Wire { fabric, senders })
    }

    /// Starts a speaker that waits for these peers.
    pub(super) fn start(&self, software: Software, peers: &[Identity]) -> Result<Subject, Error> {
        let mut router = Router::new(&self.fabric, 0, 1, software)?;
        // Next hops of clients have to be on a link.
        router.namespace().ip("addr add 172.30.255.254/16 dev eth0\n")?;
        let mut config = Config::new(OURS, Ipv4Addr::new(10, 255, 255, 254));
        config.hold_seconds = message::HOLD;
        config.bulk = true;
        config.neighbours = peers
            .iter()
            .map(|peer| Neighbour {
                families: Families::V4,
                passive: true,
                reflector_client: peer.asn == OURS,
                ..Neighbour::new(peer.address.into(), peer.asn)
            })
            .collect();
        router.start(config)?;
        // The address was another machine's before.
        self.senders.ip("neigh flush dev eth0\n")?;
        let address = router.addresses().into_iter().find(IpAddr::is_ipv4);
        let address = address.ok_or_else(|| Error::Wrong("the router has no address".to_owned()))?;
        Ok(Subject { router, address })
    }
}

fn net(address: Ipv4Addr, length: u8) -> IpNet {
    Ipv4Net::new(address, length).unwrap_or_else(|_| address.into()).into()
}

/// Address of the external peer `n`, from 0.
pub(super) const fn external(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, 20 + n)
}

/// Address of the reflector client `n`, from 0.
pub(super) const fn client(n: u16) -> Ipv4Addr {
    let [high, low] = (n + 1).to_be_bytes();
    Ipv4Addr::new(172, 30, high, low)
}

/// A speaker at work; gone when dropped.
pub(super) struct Subject {
    router: Router,
    pub(super) address: IpAddr,
}

impl Subject {
    /// Memory of its own in octets (`RssAnon`).
    pub(super) fn memory(&self) -> Result<u64, Error> {
        let text = self.proc("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::Wrong("no RssAnon in /proc".to_owned()))
    }

    /// Processor time it has used (proc(5): utime and stime, in hundredths of a second).
    pub(super) fn processor(&self) -> Result<Duration, Error> {
        let text = self.proc("stat")?;
        let after = text.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks: u64 =
            after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    fn proc(&self, file: &str) -> Result<String, Error> {
        let pid = self.router.pid().unwrap_or_default();
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).map_err(io(path))
    }

    /// Its last words.
    pub(super) fn log(&self) -> String {
        format!("\n{}", self.router.log())
    }
}
