//! A cluster without a kernel: events go to the store and to the plans as the core sends them, and what is planned
//! counts as done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use kube_router::core::{Controller as _, Inputs};
use kube_router::kube::model::WatchEvent;
use kube_router::network_services::{NetworkServices, Subject};
use kube_router::node::{Facts, ThisNode};
use kube_router::objection::Objections;
use kube_router::options::Options;
use kube_router::owner::Owner;
use kube_router::store::{Dirty, Store};
use linux::reconciler::Claim;
use linux::row::{Key, Name, Row};

/// Name of the node under test.
pub(crate) const HERE: &str = "here";

/// Store, plans, and what they want by now.
pub(crate) struct Cluster {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) node: ThisNode,
    pub(crate) services: NetworkServices,
    pub(crate) objections: Objections,
    pub(crate) wanted: BTreeMap<Owner, Vec<Claim>>,
    dirty: Dirty,
    planning: bool,
}

impl Cluster {
    pub(crate) fn new(options: Options) -> Cluster {
        let facts = Facts { rp_filter: reverse_path_filters(), ..Facts::default() };
        Cluster {
            options,
            store: Store::new(Name::from(HERE)),
            node: ThisNode { name: Name::from(HERE), object: None, facts },
            services: NetworkServices::default(),
            objections: Objections::default(),
            wanted: BTreeMap::new(),
            dirty: Dirty::default(),
            planning: false,
        }
    }

    /// Takes in an event; nothing follows before [`Self::plan`], as in a burst.
    pub(crate) fn apply(&mut self, event: WatchEvent) {
        self.dirty.merge(self.store.apply(event));
    }

    /// Follows all events since the last call and plans what is due. Returns whose plans were made.
    pub(crate) fn plan(&mut self, now: Instant) -> BTreeSet<Owner> {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.own_node
            && let Some(node) = self.store.own_node()
        {
            self.node.object = Some(node.clone());
            self.node.facts.addresses = addresses(node.internal_ips.iter().chain(&node.external_ips));
            self.node.facts.bridge_ports = vec![Name::from("veth1"), Name::from("veth2")];
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        if self.planning {
            self.services.store_changed(&dirty, inputs);
        } else {
            self.planning = true;
            self.services.begin(inputs);
        }
        for (object, found) in self.services.take_found() {
            self.objections.replace(&object, found);
        }
        let mut owners = BTreeSet::new();
        loop {
            let wanted = &self.wanted;
            let planned = self.services.plan(inputs, now, &|container| inside(wanted, container));
            if planned.is_empty() {
                return owners;
            }
            owners.extend(planned.iter().map(|(owner, _)| owner.clone()));
            for (owner, claims) in planned {
                if claims.is_empty() {
                    self.wanted.remove(&owner);
                } else {
                    self.wanted.insert(owner, claims);
                }
            }
        }
    }

    /// Every row wanted by owners for which `shown` holds.
    ///
    /// # Panics
    /// When two owners, or two claims of one, want different rows under one key.
    pub(crate) fn rows(&self, shown: impl Fn(&Owner) -> bool) -> BTreeMap<Key, Row> {
        crate::files::rows(&self.wanted, shown)
    }
}

/// What is wanted inside a container, which counts as there.
fn inside(wanted: &BTreeMap<Owner, Vec<Claim>>, container: &Key) -> Vec<Key> {
    let Key::VirtualServer(server) = container else {
        panic!("{container:?} is no business of the services")
    };
    let claims = wanted.get(&Subject::VirtualServer(*server).into()).into_iter().flatten();
    let inside = claims.filter(|claim| claim.key.container().as_ref() == Some(container));
    inside.map(|claim| claim.key.clone()).collect()
}

/// Every node has loopback addresses, and its own on `eth0`.
fn addresses<'a>(own: impl Iterator<Item = &'a IpAddr>) -> Vec<(Name, IpNet)> {
    let loopback = ["127.0.0.1/8", "::1/128"].map(|net| (Name::from("lo"), net.parse().unwrap()));
    loopback.into_iter().chain(own.map(|ip| (Name::from("eth0"), IpNet::from(*ip)))).collect()
}

fn reverse_path_filters() -> BTreeMap<Name, u8> {
    [("all", 0), ("eth0", 1), ("kube-bridge", 1), ("lo", 1)]
        .into_iter()
        .map(|(link, value)| (Name::from(link), value))
        .collect()
}
