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
mod controller;
mod describe;
pub mod direct_return;
pub mod drain;
pub mod firewall;
pub mod frontends;
pub mod health;
pub mod plan;
mod pods;
mod scope;
pub mod service_ips;
mod subject;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use linux::reconciler::Claim;
use linux::row::{Key, Row, VirtualServerKey};

pub use self::subject::Subject;

use self::contests::{Claimant, Contests, Right};
use self::drain::Draining;
use self::frontends::Frontend;
use self::health::HealthPorts;
use self::pods::Pods;
use crate::core::{Found, InKernel, Inputs};
use crate::kube::model::{Kind, ObjectName, Service};
use crate::objection::Objection;
use crate::options::Options;

/// The controller's own state: indexes over the store, and what is due to be planned.
#[derive(Debug, Default)]
pub struct NetworkServices {
    contests: Contests,
    draining: Draining,
    health: HealthPorts,
    hairpins: Hairpins,
    pods: Pods,
    /// What was found wrong with Services, or no longer, and not taken yet.
    found: Vec<Found>,
    /// Versions of what drains and of the health ports that were told of as effects.
    told: (u64, u64),
    /// Services that contest what another Service began or ceased to ask for.
    rivals: BTreeSet<ObjectName>,
    dirty: BTreeSet<VirtualServerKey>,
    dirty_base: bool,
    dirty_hairpin: bool,
    dirty_pods: bool,
}

impl NetworkServices {
    /// A Service or one of its slices changed, appeared or went. What that means for others is left to
    /// [`Self::look_at_rivals`]. O(its frontends + its endpoints).
    fn service_changed(&mut self, id: &ObjectName, inputs: Inputs<'_>) {
        let Some(service) = inputs.store.service(id) else {
            self.ask(id, 0, Vec::new());
            self.dirty_hairpin |= self.hairpins.replace(id, BTreeSet::new());
            self.health.replace(id, None);
            self.found.push((id.of_kind(Kind::Service), Vec::new()));
            return;
        };
        let (frontends, mut objections) = frontends::frontends(service, inputs.node, inputs.options);
        self.dirty_hairpin |= self.hairpins.replace(id, hairpins(service, &frontends, inputs.options));
        self.health.replace(id, health::of(service, inputs));
        self.ask(id, service.created, frontends);
        objections.extend(self.lost_contests(service));
        self.found.push((id.of_kind(Kind::Service), objections));
    }

    /// Services that won or lost an address because of another Service's change: what is wrong with each is found anew.
    /// O(their frontends).
    fn look_at_rivals(&mut self, inputs: Inputs<'_>) {
        for id in std::mem::take(&mut self.rivals) {
            let Some(service) = inputs.store.service(&id) else { continue };
            let (_, mut objections) = frontends::frontends(service, inputs.node, inputs.options);
            objections.extend(self.lost_contests(service));
            self.found.push((id.of_kind(Kind::Service), objections));
        }
    }

    /// This node's object or addresses changed: every Service may look different, and none that is gone may stay
    /// behind. O(Services).
    fn node_changed(&mut self, inputs: Inputs<'_>) {
        self.dirty_base = true;
        self.dirty_hairpin = true;
        self.dirty_pods = true;
        let known = self.contests.services().chain(self.health.services()).cloned();
        let present = inputs.store.services().map(|service| service.id.clone());
        let ids: BTreeSet<ObjectName> = known.chain(present).collect();
        for id in &ids {
            self.service_changed(id, inputs);
        }
        self.look_at_rivals(inputs);
    }

    /// Links of this node changed, but no address: bridge ports, settings of links.
    fn links_changed(&mut self) {
        self.dirty_base = true;
        self.dirty_hairpin = true;
    }

    /// These pods came, went or changed. O(their addresses).
    fn pods_changed<'a>(&mut self, changed: impl IntoIterator<Item = &'a ObjectName>, inputs: Inputs<'_>) {
        for id in changed {
            self.dirty_pods |=
                self.pods.replace(id, inputs.store.pod(id).map(Arc::as_ref), &inputs.node.name);
        }
    }

    /// A real server has no connections left.
    fn drained(&mut self, server: &drain::RealServerKey) {
        if self.draining.finish(server) {
            self.dirty.insert(server.0);
        }
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
        in_kernel: InKernel<'_>,
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
            let there = in_kernel(&Key::VirtualServer(key)).into_iter().filter_map(|key| match key {
                Key::RealServer(_, ip, port) => Some((ip, port)),
                _ => None,
            });
            let leaving: Vec<_> = there.filter(|at| !backends.contains_key(at)).collect();
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
            value: Subject::VirtualServer(frontend.key).to_string(),
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
