//! A node that routes: objects go through the store to the controller, its wishes to a speaker, and what the speaker
//! selects back to the controller. What is planned counts as done.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use bgp::Config;
use bgp::speaker::Routing;
use ipnet::IpNet;
use kube_router::core::{Controller as _, Effect, Inputs, News};
use kube_router::kube::model::{Node as Object, WatchEvent};
use kube_router::network_routes::NetworkRoutes;
use kube_router::network_routes::speaker::Ask;
use kube_router::node::{Facts, ThisNode};
use kube_router::objection::Objections;
use kube_router::options::Options;
use kube_router::owner::Owner;
use kube_router::store::{Dirty, Store};
use linux::reconciler::Claim;
use linux::row::{Key, Name, Row};

use super::speaker::{self, PeerPath, Talk};

/// Name of the node under test.
const HERE: &str = "here";
/// MTU of its link, in bytes.
const MTU: u32 = 1450;

/// Store, controller, what it wants by now, and what its speaker says and hears.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) objections: Objections,
    routes: NetworkRoutes,
    wanted: BTreeMap<Owner, Vec<Claim>>,
    node: ThisNode,
    options: Options,
    planning: bool,
    /// What the speaker is to be.
    asked: Option<(Config, Routing)>,
    /// The speaker's own paths, with their next hops.
    own: BTreeMap<IpNet, IpAddr>,
    talk: Talk,
}

impl Node {
    /// A node that knows nothing yet.
    pub(crate) fn new(options: Options) -> Node {
        Node {
            store: Store::new(Name::from(HERE)),
            objections: Objections::default(),
            routes: NetworkRoutes::default(),
            wanted: BTreeMap::new(),
            node: ThisNode { name: Name::from(HERE), object: None, facts: Facts::default() },
            options,
            planning: false,
            asked: None,
            own: BTreeMap::new(),
            talk: Talk::default(),
        }
    }

    /// Takes in a state of the cluster and what peers tell in it, and follows all of it.
    pub(crate) fn take(&mut self, events: Vec<WatchEvent>, told: &[PeerPath]) {
        let mut dirty = Dirty::default();
        for event in events {
            dirty.merge(self.store.apply(event));
        }
        if dirty.own_node
            && let Some(own) = self.store.own_node()
        {
            self.node.object = Some(own.clone());
            self.node.facts = facts(own);
        }
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        if self.planning {
            self.routes.store_changed(&dirty, inputs);
        } else {
            self.planning = true;
            self.routes.begin(inputs);
        }
        self.plan();
        self.talk(told);
        self.plan();
    }

    /// Plans until nothing is due.
    fn plan(&mut self) {
        loop {
            let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
            let planned = self.routes.plan(inputs, Instant::now(), &|key: &Key| vec![key.clone()]);
            let idle = self.asked.is_none();
            for effect in self.routes.take_effects() {
                let late = idle && self.asked.is_some() && matches!(&effect, Effect::Speaker(Ask::Paths(_)));
                assert!(
                    !late,
                    "peers would hear that there is nothing more to tell before they hear of {effect:?}"
                );
                self.follow(effect);
            }
            for (object, found) in self.routes.take_found() {
                self.objections.replace(&object, found);
            }
            if planned.is_empty() {
                return;
            }
            for (owner, claims) in planned {
                if claims.is_empty() {
                    self.wanted.remove(&owner);
                } else {
                    self.wanted.insert(owner, claims);
                }
            }
        }
    }

    fn follow(&mut self, effect: Effect) {
        match effect {
            Effect::Speaker(Ask::Configure(wish)) => self.asked = Some(*wish),
            Effect::Speaker(Ask::Paths(changes)) => {
                for (prefix, next_hop, _) in changes {
                    match next_hop {
                        Some(next_hop) => drop(self.own.insert(prefix, next_hop)),
                        None => drop(self.own.remove(&prefix)),
                    }
                }
            }
            Effect::NameTable(..) | Effect::HostRoutes(_) => {}
            other => panic!("{other:?} is no business of the routes"),
        }
    }

    /// Every session comes up, everybody tells what there is to tell, and the controller hears what came of it.
    fn talk(&mut self, told: &[PeerPath]) {
        let Some((config, routing)) = &self.asked else { return };
        let talk = Talk::of(config, routing, &self.own, told);
        let gone = self.talk.selected.keys().filter(|prefix| !talk.selected.contains_key(*prefix));
        let gone = gone.map(|prefix| (*prefix, None));
        let there = talk.selected.iter().map(|(prefix, next_hop)| (*prefix, Some(*next_hop)));
        let news = News::Selected(gone.chain(there).collect());
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        assert!(self.routes.hear(news, inputs).is_none(), "selected paths are its business");
        self.talk = talk;
    }

    /// Adds the speaker: who it is, its sessions, and what is heard in them.
    pub(crate) fn show_speaker(&self, text: &mut String) {
        match &self.asked {
            Some((config, _)) => speaker::show(text, config, &self.talk),
            None => text.push_str("no speaker\n"),
        }
    }

    /// Every row wanted by owners for which `shown` holds.
    ///
    /// # Panics
    /// When two owners, or two claims of one, want different rows under one key.
    pub(crate) fn rows_of(&self, shown: impl Fn(&Owner) -> bool) -> BTreeMap<Key, Row> {
        crate::files::rows(&self.wanted, shown)
    }
}

/// Loopback addresses, and the node's own on `eth0`, each in a subnet of 24 or 64 bits.
fn facts(own: &Object) -> Facts {
    let loopback = ["127.0.0.1/8", "::1/128"].map(|net| (Name::from("lo"), net.parse().unwrap()));
    let on_link = |ip: &IpAddr| {
        let length = if ip.is_ipv4() { 24 } else { 64 };
        (Name::from("eth0"), IpNet::new(*ip, length).unwrap())
    };
    let addresses = own.internal_ips.iter().chain(&own.external_ips).map(on_link);
    Facts {
        addresses: loopback.into_iter().chain(addresses).collect(),
        mtu: BTreeMap::from([(Name::from("eth0"), MTU)]),
        ..Facts::default()
    }
}
