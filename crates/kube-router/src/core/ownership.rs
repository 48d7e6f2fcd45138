//! Whose a row in the kernel is, when nobody here wants it.
//!
//! Read after a restart, from the kernel alone: sets, chains, links, routes and rules are told by their names, tables
//! and protocol (the lanes read no others); a virtual server is ours if its address is on `kube-dummy-if`, or it is in
//! the ledger (the set of service ports, which Go kube-router fills too), or it is a local address with a port of the
//! NodePort range. What lies in `--excluded-cidrs` is never ours, nor anything of the kernel's own making.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use linux::reconciler::Reconciler;
use linux::row::{Key, Member, Row, VirtualServerKey};

use crate::names;
use crate::node::ThisNode;
use crate::options::Options;
use crate::owner::Owner;

/// The rule, as far as options decide it.
#[derive(Debug, Clone)]
pub struct Ownership {
    excluded: Vec<IpNet>,
    node_ports: RangeInclusive<u16>,
    /// Marks of others seen since the last judgement, and before it.
    strange: [Marks; 2],
}

/// What tells whose a virtual server is.
#[derive(Debug, Clone, Default)]
struct Marks {
    addresses: BTreeSet<IpAddr>,
    ports: HashSet<VirtualServerKey>,
}

/// The rule with what the kernel holds at the moment.
#[derive(Debug)]
pub struct Ledger<'a> {
    rule: &'a Ownership,
    marks: Marks,
    local: BTreeSet<IpAddr>,
}

impl Ownership {
    /// From the command line.
    pub fn new(options: &Options) -> Ownership {
        Ownership {
            excluded: options.service_proxy.excluded.clone(),
            node_ports: options.service_ips.node_ports.clone(),
            strange: Default::default(),
        }
    }

    /// Remembers the marks in a reading that nobody here wants: their own lane removes them, and would take the evidence
    /// away before the virtual servers are read that came with them. O(rows).
    pub fn note(&mut self, known: &Reconciler<Owner>, reading: &[(Key, Row)]) {
        let [recent, _] = &mut self.strange;
        for (key, _) in reading {
            if Marks::has_place_for(key) && known.desired(key).is_none() {
                recent.enter(key);
            }
        }
    }

    /// Virtual servers were judged. What was remembered before the judgement before is over; what is newer may concern
    /// a virtual server that this reading had passed already.
    pub fn judged(&mut self) {
        let [recent, older] = &mut self.strange;
        *older = std::mem::take(recent);
    }

    /// With what other lanes have read, and this reading. O(rows).
    pub fn of<'a>(
        &'a self,
        known: &Reconciler<Owner>,
        reading: &[(Key, Row)],
        node: &ThisNode,
    ) -> Ledger<'a> {
        let mut ledger = Ledger {
            rule: self,
            marks: Marks::default(),
            local: node.facts.addresses.iter().map(|(_, net)| net.addr()).collect(),
        };
        // Only a reading of IPVS asks the ledger.
        if reading.iter().any(|(key, _)| matches!(key, Key::VirtualServer(_))) {
            known.actual_rows().for_each(|(key, _)| ledger.marks.enter(key));
        }
        ledger
    }
}

impl Marks {
    fn has_place_for(key: &Key) -> bool {
        matches!(key, Key::Address { .. } | Key::Member(..))
    }

    fn tell(&self, server: &VirtualServerKey, ip: &IpAddr) -> bool {
        self.addresses.contains(ip) || self.ports.contains(server)
    }

    fn enter(&mut self, key: &Key) {
        match key {
            Key::Address { link, net } if **link == *names::link::DUMMY => {
                self.addresses.insert(net.addr());
            }
            Key::Member(set, Member::IpPort(ip, protocol, port))
                if *set.name == *names::set::SERVICE_PORTS =>
            {
                self.ports.insert(VirtualServerKey::Address { ip: *ip, protocol: *protocol, port: *port });
            }
            _ => {}
        }
    }
}

impl Ledger<'_> {
    /// Whether a row that nobody here wants is ours, to be removed.
    pub fn is_ours(&self, key: &Key, _row: &Row) -> bool {
        match key {
            Key::VirtualServer(server) | Key::RealServer(server, ..) => self.is_our_server(server),
            // Port modes were somebody's before they were ours.
            Key::BridgePortHairpin(_) => false,
            // Pods are being made by the file without an agent, too.
            Key::CniConfig => false,
            // The bridge of the pods outlives the agent.
            Key::Link(name) => **name != *names::link::BRIDGE,
            // Settings have no absence: adopting one saves writing it, dropping it changes nothing.
            _ => true,
        }
    }

    fn is_our_server(&self, server: &VirtualServerKey) -> bool {
        let VirtualServerKey::Address { ip, port, .. } = server else { return false };
        let excluded = self.rule.excluded.iter().any(|net| net.contains(ip));
        let node_port = self.local.contains(ip) && self.rule.node_ports.contains(port);
        let marks = self.rule.strange.iter().chain([&self.marks]);
        !excluded && (node_port || marks.into_iter().any(|marks| marks.tell(server, ip)))
    }
}
