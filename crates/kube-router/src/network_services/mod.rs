//! The network services controller: every Service is an IPVS virtual server.
//!
//! Decided here: which plans an event makes necessary, and in terms of which keys. A Service or one of its slices
//! dirties the virtual servers it asks for, nothing else; each is then planned by [`plan`] from the present state of the
//! store. What the node has or is set to is planned by [`base`] and [`firewall`]. No I/O anywhere below this module.
//!
//! ```text
//! Service, slices ─► frontends ─► contests ─► virtual server key ─► backends, drains ─► plan ─► rows
//! node, options  ─► base, firewall ───────────────────────────────────────────────────────────► rows
//! ```

pub mod backends;
pub mod base;
pub mod contests;
pub mod drain;
pub mod firewall;
pub mod frontends;
pub mod health;
pub mod plan;
mod pods;
pub mod service_ips;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use linux::reconciler::Claim;
use linux::row::{Key, Row, VirtualServerKey};

use self::contests::{Claimant, Contests, Right};
use self::drain::Draining;
use self::frontends::Frontend;
use self::health::HealthPorts;
use self::pods::Pods;
use crate::kube::model::{Kind, ObjectName, Service};
use crate::node::ThisNode;
use crate::objection::Objection;
use crate::options::Options;
use crate::owner::Owner;
use crate::store::Store;

/// Virtual servers planned in one go: a start plans them all, and what is planned takes room until it is handed on.
const PLANNED_AT_ONCE: usize = 512;

/// What plans are made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The cluster.
    pub store: &'a Store,
    /// This node.
    pub node: &'a ThisNode,
    /// The command line.
    pub options: &'a Options,
}

/// A plan made anew: its owner and everything it wants now.
pub type Planned = (Owner, Vec<Claim>);

/// The controller's own state: indexes over the store, and what is due to be planned.
#[derive(Debug, Default)]
pub struct NetworkServices {
    contests: Contests,
    draining: Draining,
    health: HealthPorts,
    hairpins: Hairpins,
    pods: Pods,
    /// Services that contest what another Service began or ceased to ask for.
    rivals: BTreeSet<ObjectName>,
    dirty: BTreeSet<VirtualServerKey>,
    dirty_base: bool,
    dirty_hairpin: bool,
    dirty_pods: bool,
}

impl NetworkServices {
    /// A Service or one of its slices changed, appeared or went. Returns what is wrong with the Service as it is now;
    /// what that means for others is in [`Self::take_rivals`]. O(its frontends + its endpoints).
    pub fn service_changed(&mut self, id: &ObjectName, inputs: Inputs<'_>) -> Vec<Objection> {
        let Some(service) = inputs.store.service(id) else {
            self.ask(id, 0, Vec::new());
            self.dirty_hairpin |= self.hairpins.replace(id, BTreeSet::new());
            self.health.replace(id, None);
            return Vec::new();
        };
        let (frontends, mut objections) = frontends::frontends(service, inputs.node, inputs.options);
        self.dirty_hairpin |= self.hairpins.replace(id, hairpins(service, &frontends, inputs.options));
        self.health.replace(id, health::of(service, inputs));
        self.ask(id, service.created, frontends);
        objections.extend(self.lost_contests(service));
        objections
    }

    /// Services that won or lost an address since the last call because of another Service's change, with all that is
    /// wrong with each now. O(their frontends).
    pub fn take_rivals(&mut self, inputs: Inputs<'_>) -> Vec<(ObjectName, Vec<Objection>)> {
        let rivals = std::mem::take(&mut self.rivals);
        let objections = rivals.into_iter().filter_map(|id| {
            let service = inputs.store.service(&id)?;
            let (_, mut objections) = frontends::frontends(service, inputs.node, inputs.options);
            objections.extend(self.lost_contests(service));
            Some((id, objections))
        });
        objections.collect()
    }

    /// This node's object or addresses changed: every Service may look different, and none that is gone may stay
    /// behind. Returns what is wrong with each. O(Services).
    pub fn node_changed(&mut self, inputs: Inputs<'_>) -> Vec<(ObjectName, Vec<Objection>)> {
        self.dirty_base = true;
        self.dirty_hairpin = true;
        self.dirty_pods = true;
        let known = self.contests.services().chain(self.health.services()).cloned();
        let present = inputs.store.services().map(|service| service.id.clone());
        let ids: BTreeSet<ObjectName> = known.chain(present).collect();
        let mut objections: BTreeMap<_, _> =
            ids.into_iter().map(|id| (id.clone(), self.service_changed(&id, inputs))).collect();
        objections.extend(self.take_rivals(inputs));
        objections.into_iter().collect()
    }

    /// Links of this node changed, but no address: bridge ports, settings of links.
    pub fn links_changed(&mut self) {
        self.dirty_base = true;
        self.dirty_hairpin = true;
    }

    /// These pods came, went or changed. O(their addresses).
    pub fn pods_changed(&mut self, changed: &BTreeSet<ObjectName>, inputs: Inputs<'_>) {
        for id in changed {
            self.dirty_pods |= self.pods.replace(id, inputs.store.pod(id), &inputs.node.name);
        }
    }

    /// A real server has no connections left.
    pub fn drained(&mut self, server: &drain::RealServerKey) {
        if self.draining.finish(server) {
            self.dirty.insert(server.0);
        }
    }

    /// What must be planned now, planned, or a part of it: to be called until there is nothing. `in_kernel` tells the
    /// real servers a virtual server is believed to have. O(what is planned).
    pub fn plan(
        &mut self,
        inputs: Inputs<'_>,
        now: Instant,
        in_kernel: &dyn Fn(&VirtualServerKey) -> Vec<(IpAddr, u16)>,
    ) -> Vec<Planned> {
        self.dirty.extend(self.draining.take_due(now));
        let mut planned = Vec::new();
        if std::mem::take(&mut self.dirty_base) {
            planned.push((Owner::ServiceProxy, base::claims(inputs.node, inputs.options)));
            planned.push((Owner::NodeAddresses, firewall::local_ips(inputs.node)));
        }
        if std::mem::take(&mut self.dirty_hairpin) {
            planned.push((Owner::Hairpin, self.plan_hairpin(inputs)));
        }
        if std::mem::take(&mut self.dirty_pods) {
            planned.push((Owner::NodePods, firewall::node_pods(self.pods.here(), inputs.node)));
        }
        while planned.len() < PLANNED_AT_ONCE
            && let Some(key) = self.dirty.pop_first()
        {
            let claims = self.plan_virtual_server(key, inputs, now, in_kernel);
            planned.push((Owner::VirtualServer(key), claims));
        }
        planned
    }

    /// When [`Self::plan`] has something to do although nothing happened.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.draining.next_deadline()
    }

    /// What drains.
    pub fn draining(&self) -> &Draining {
        &self.draining
    }

    /// What `healthCheckNodePort` listeners should answer.
    pub fn health_ports(&self) -> &HealthPorts {
        &self.health
    }

    /// Who answers where. O(virtual servers).
    pub fn contests(&self) -> &Contests {
        &self.contests
    }

    fn ask(&mut self, id: &ObjectName, created: i64, frontends: Vec<Frontend>) {
        let same = self.contests.asks(id, created, &frontends);
        let touched = self.contests.replace(id, created, frontends);
        if !same {
            self.rivals.extend(self.contests.rivals(id, &touched).cloned());
        }
        self.dirty.extend(touched);
    }

    fn plan_virtual_server(
        &mut self,
        key: VirtualServerKey,
        inputs: Inputs<'_>,
        now: Instant,
        in_kernel: &dyn Fn(&VirtualServerKey) -> Vec<(IpAddr, u16)>,
    ) -> Vec<Claim> {
        let winner = self.contests.winner(&key).cloned();
        let asked = winner.as_ref().and_then(|claimant| {
            let service = inputs.store.service(&claimant.service)?;
            Some((claimant, service, service.ports.get(claimant.port)?))
        });
        let Some((Claimant { kind, .. }, service, port)) = asked else {
            self.draining.cancel_others(&key, &[]);
            return Vec::new();
        };
        let drains = backends::can_drain(port.protocol, &service.wishes);
        let backends = backends::backends(
            inputs.store.endpoints(&service.id),
            port,
            key.family(),
            &inputs.node.name,
            kind.local_only(service),
            drains,
        );
        if let (Some(period), true) = (inputs.options.service_proxy.drain, drains) {
            let leaving: Vec<_> =
                in_kernel(&key).into_iter().filter(|at| !backends.contains_key(at)).collect();
            self.draining.cancel_others(&key, &leaving);
            for (ip, port) in leaving {
                let grace = self.pods.grace_of(ip).unwrap_or(period);
                self.draining.start((key, ip, port), now + grace);
            }
        } else {
            self.draining.cancel_others(&key, &[]);
        }
        let draining: Vec<(IpAddr, u16)> = self.draining.of(&key).collect();
        let asked = plan::Asked { key, kind: *kind, service, port, backends: &backends, draining: &draining };
        plan::claims(&asked, inputs.node, inputs.options)
    }

    fn plan_hairpin(&self, inputs: Inputs<'_>) -> Vec<Claim> {
        let addresses = self.hairpins.addresses();
        let mut claims: Vec<Claim> =
            inputs.node.families().flat_map(|family| firewall::hairpin(family, &addresses)).collect();
        if !addresses.is_empty() {
            let ports = inputs.node.facts.bridge_ports.iter().cloned();
            claims.extend(
                ports.map(|port| Claim::new(Key::BridgePortHairpin(port), Row::BridgePortHairpin(true))),
            );
        }
        claims
    }

    fn lost_contests(&self, service: &Service) -> Vec<Objection> {
        let lost = self.contests.frontends_of(&service.id).iter().filter_map(|frontend| {
            let winner = self.contests.winner(&frontend.key)?;
            (winner.service != service.id).then_some((frontend, winner))
        });
        lost.map(|(frontend, winner)| Objection {
            object: service.id.of_kind(Kind::Service),
            field: "spec".to_owned(),
            value: Owner::VirtualServer(frontend.key).to_string(),
            reason: if winner.right == Right::Written {
                format!("is already served by the older Service {}", winner.service)
            } else {
                format!("was given to Service {}", winner.service)
            },
            remedy: "use another address or port".to_owned(),
        })
        .collect()
    }
}

fn hairpins(service: &Service, frontends: &[Frontend], options: &Options) -> BTreeSet<(IpAddr, u16)> {
    let everywhere = options.service_proxy.hairpin;
    let chosen = frontends.iter().filter(|frontend| frontend.kind.hairpins(service, everywhere));
    chosen
        .filter_map(|frontend| match frontend.key {
            VirtualServerKey::Address { ip, port, .. } => Some((ip, port)),
            VirtualServerKey::Mark { .. } => None,
        })
        .collect()
}

/// Addresses and ports that hairpin, counted over Services and protocols.
#[derive(Debug, Default)]
struct Hairpins {
    of: HashMap<ObjectName, BTreeSet<(IpAddr, u16)>>,
    count: BTreeMap<(IpAddr, u16), u32>,
}

impl Hairpins {
    /// Replaces those of one Service; says whether the whole set changed.
    fn replace(&mut self, service: &ObjectName, addresses: BTreeSet<(IpAddr, u16)>) -> bool {
        let before = self.of.remove(service).unwrap_or_default();
        let mut changed = false;
        for address in addresses.difference(&before) {
            let count = self.count.entry(*address).or_default();
            *count += 1;
            changed |= *count == 1;
        }
        for address in before.difference(&addresses) {
            if let Some(count) = self.count.get_mut(address) {
                *count -= 1;
                if *count == 0 {
                    self.count.remove(address);
                    changed = true;
                }
            }
        }
        if !addresses.is_empty() {
            self.of.insert(service.clone(), addresses);
        }
        changed
    }

    fn addresses(&self) -> BTreeSet<(IpAddr, u16)> {
        self.count.keys().copied().collect()
    }
}
