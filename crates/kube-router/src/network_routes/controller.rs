//! The network routes as the core knows them: from events to dirty keys, from dirty keys to plans and wishes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use linux::reconciler::{Gate, Reconciler};
use linux::row::{Key, Name};

use super::{NetworkRoutes, Subject, base, describe, scope, seen, speaker};
use crate::core::{Controller, Effect, Found, InKernel, Inputs, Needs, News, Planned};
use crate::explain::Explanation;
use crate::kube::model::{Kind, Node, ObjectName};
use crate::names;
use crate::node::Facts;
use crate::objection::Objection;
use crate::options::{ExternalPeer, Options, Overlay, set_passwords_from_file};
use crate::owner::Owner;
use crate::secret::Secret;
use crate::status::Status;
use crate::store::Dirty;

/// How long routes of a predecessor are kept for peers to confirm.
const SETTLE: Duration = Duration::from_secs(60);
/// How long they have to tell what they know once every one of them has been up: they do so at once.
const HEARD: Duration = Duration::from_secs(2);

impl Controller for NetworkRoutes {
    fn name(&self) -> &'static str {
        "pod routing"
    }

    fn needs(&self, _node: &Name, options: &Options) -> Needs {
        scope::needs(options)
    }

    fn begin(&mut self, inputs: Inputs<'_>) {
        // It has an address once a pod was wired, and loses it only with the machine. We never give it one.
        let on_bridge = |link: &Name| **link == *names::link::BRIDGE;
        self.forwarded = inputs.node.facts.addresses.iter().any(|(link, _)| on_bridge(link));
        if inputs.options.routes.overlay != Overlay::Off {
            self.effects.push(Effect::NameTable(names::route::TABLE_OVERLAY, names::route::OVERLAY_NAME));
        }
        self.own_node_changed(inputs);
        let services: Vec<ObjectName> = inputs.store.services().map(|service| service.id.clone()).collect();
        services.iter().for_each(|id| self.service_changed(id, inputs));
    }

    fn store_changed(&mut self, dirty: &Dirty, inputs: Inputs<'_>) {
        if dirty.own_node {
            self.own_node_changed(inputs);
        } else {
            dirty.nodes.iter().for_each(|name| self.node_changed(name, inputs));
        }
        dirty.services.iter().for_each(|id| self.service_changed(id, inputs));
    }

    fn facts_changed(&mut self, before: &Facts, inputs: Inputs<'_>) {
        if seen(before) != seen(&inputs.node.facts) {
            self.dirty_base = true;
            self.learned.all_dirty();
        }
    }

    fn hear(&mut self, news: News, inputs: Inputs<'_>) -> Option<News> {
        match news {
            News::Selected(paths) => {
                paths.into_iter().for_each(|(prefix, hop)| self.learned.set(prefix, hop))
            }
            News::PeerUp(peer) => drop(self.met.insert(peer)),
            News::SelectionBegan(family) => drop(self.selecting.insert(family)),
            News::Passwords(read) => self.take_passwords(read, inputs.options),
            other => return Some(other),
        }
        None
    }

    fn plan(&mut self, inputs: Inputs<'_>, now: Instant, in_kernel: InKernel<'_>) -> Vec<Planned> {
        self.settle(now);
        let mut planned: Vec<Planned> = Vec::new();
        if std::mem::take(&mut self.dirty_base) {
            planned.push((Subject::PodRouting.into(), base::claims(inputs.node, inputs.options)));
        }
        for name in std::mem::take(&mut self.dirty_nodes) {
            let claims = self.plan_node(&name, inputs);
            planned.push((Subject::Node(name).into(), claims));
        }
        for prefix in self.learned.take_dirty() {
            let claims = self.plan_learned(&prefix, inputs);
            planned.push((Subject::Learned(prefix).into(), claims));
        }
        self.count_routes();
        self.tell_speaker(inputs, in_kernel);
        planned
    }

    fn next_deadline(&self) -> Option<Instant> {
        let due = self.settled_at.into_iter().chain(self.heard_at).min();
        due.filter(|_| self.selects() && !self.converged)
    }

    fn gates(&self) -> Vec<Gate> {
        scope::gates(self.converged)
    }

    /// Of several findings about one object the last is what is wrong with it now.
    fn take_found(&mut self) -> Vec<Found> {
        let last: BTreeMap<_, _> = std::mem::take(&mut self.found).into_iter().collect();
        last.into_iter().collect()
    }

    fn describe(&self, inputs: Inputs<'_>, rows: &Reconciler<Owner>, status: &mut Status) {
        status.peers = describe::peers(&self.mesh_of);
        (status.routes, status.tunnels) = describe::ways(&self.learned, inputs, rows);
    }

    fn explain(&self, inputs: Inputs<'_>, rows: &Reconciler<Owner>, explanation: &mut Explanation) {
        describe::plans(&self.learned, inputs, rows, explanation);
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

impl NetworkRoutes {
    fn selects(&self) -> bool {
        bgp::Family::ALL.iter().all(|family| self.selecting.contains(family))
    }

    /// Whether routes nobody advertises may go from now on: it never becomes untrue again. O(nodes) until then.
    fn settle(&mut self, now: Instant) {
        if self.converged {
            return;
        }
        let settled = *self.settled_at.get_or_insert(now + SETTLE);
        // One that was up and went away again has said what there was to say. That the speaker selects does not mean that
        // all have: it does not wait for peers that do not restart gracefully.
        let all_met = self.peers.as_ref().is_some_and(|peers| peers.is_subset(&self.met));
        self.heard_at = if all_met { self.heard_at.or(Some(now + HEARD)) } else { None };
        let heard = self.heard_at.is_some_and(|at| now >= at);
        self.converged = self.selects() && (heard || now >= settled);
    }

    /// Passwords that cannot be read change nothing: a session without its password would be open to anybody.
    fn take_passwords(&mut self, read: Result<Secret, String>, options: &Options) {
        let mut peers = options.bgp.peers.clone();
        match read.and_then(|text| set_passwords_from_file(&mut peers, text.reveal())) {
            Ok(()) => {
                self.passwords_problem = None;
                self.with_passwords = Some(peers);
            }
            Err(reason) => self.passwords_problem = Some(reason),
        }
        self.dirty_speaker = true;
    }

    /// External peers of the flags. Those with passwords in a file wait until it has been read once.
    fn external<'a>(&'a self, options: &'a Options) -> &'a [ExternalPeer] {
        match (&options.bgp.peer_passwords_file, &self.with_passwords) {
            (None, _) => &options.bgp.peers,
            (Some(_), read) => read.as_deref().unwrap_or_default(),
        }
    }

    /// Paths go before the configuration with which the speaker begins to speak: a peer that kept what it knew of this node
    /// over a restart drops what it has not heard again when the first telling ends (RFC 4724 section 4.2).
    fn tell_speaker(&mut self, inputs: Inputs<'_>, in_kernel: InKernel<'_>) {
        let Some(own) = &inputs.node.object else { return };
        // Where another program serves the addresses, it is for that one to be in time.
        let programmed = |ip: IpAddr| {
            !inputs.options.controllers.service_proxy
                || inputs.node.has_ip(ip)
                || !in_kernel(&service_address(ip)).is_empty()
        };
        let changes = self.told.take_changes(inputs.node, programmed);
        if !changes.is_empty() {
            self.effects.push(Effect::Speaker(speaker::Ask::Paths(changes)));
        }
        let looked = self.with_passwords.is_some() || self.passwords_problem.is_some();
        let may_ask = looked || inputs.options.bgp.peer_passwords_file.is_none();
        if may_ask && std::mem::take(&mut self.dirty_speaker) {
            let flags = self.external(inputs.options);
            let (ask, found) = speaker::configure(own, &self.mesh, flags, self.forwarded, inputs.options);
            let unread = self.passwords_problem.as_ref();
            let unread =
                unread.map(|reason| unreadable_passwords(own, reason.clone(), self.with_passwords.is_some()));
            let objections = unread.into_iter().chain(found).collect();
            if let Some(speaker::Ask::Configure(wish)) = &ask {
                self.peers = Some(wish.0.peers.keys().copied().collect());
            }
            let object = ObjectName::cluster_wide(own.name.clone()).of_kind(Kind::Node);
            self.found.push((object, objections));
            self.effects.extend(ask.map(Effect::Speaker));
        }
    }
}

/// The row that says that an address is served: it comes after its first virtual server.
fn service_address(ip: IpAddr) -> Key {
    Key::Address { link: names::link::DUMMY.into(), net: IpNet::from(ip) }
}

/// `known`: it could be read before.
fn unreadable_passwords(own: &Node, reason: String, known: bool) -> Objection {
    let until =
        if known { "passwords stay as they were" } else { "there are no sessions with external peers" };
    Objection {
        object: ObjectName::cluster_wide(own.name.clone()).of_kind(Kind::Node),
        field: "--peer-router-passwords-file".to_owned(),
        value: "(not shown)".to_owned(),
        reason,
        remedy: format!("correct the file; {until} until then"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_a_predecessor_wait_until_every_peer_has_told() {
        let peers: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let start = Instant::now();
        let mut routes = NetworkRoutes::default();
        routes.selecting.extend(bgp::Family::ALL);
        let mut converged = |change: &dyn Fn(&mut NetworkRoutes), after: Duration| {
            change(&mut routes);
            routes.settle(start + after);
            routes.converged
        };
        assert!(!converged(&|_| {}, Duration::ZERO));
        assert!(!converged(&|_| {}, HEARD), "the speaker was asked nothing yet");
        assert!(!converged(&|routes| routes.peers = Some(peers.into()), HEARD));
        assert!(!converged(&|routes| routes.met.extend([peers[0]]), HEARD * 3), "one is not up");
        assert!(!converged(&|routes| routes.met.extend([peers[1]]), HEARD * 3), "both are, just now");
        assert!(converged(&|_| {}, HEARD * 4));

        let mut lonely = NetworkRoutes { peers: Some(peers.into()), ..NetworkRoutes::default() };
        lonely.selecting.extend(bgp::Family::ALL);
        lonely.settle(start);
        lonely.settle(start + SETTLE);
        assert!(lonely.converged, "not for ever");
    }

    #[test]
    fn no_session_goes_on_without_the_password_of_its_file() {
        let flags = [
            "--peer-router-ips=192.0.2.1",
            "--peer-router-asns=64999",
            "--peer-router-passwords-file=/run/passwords",
        ];
        let options = Options::from_flags(&flags).unwrap();
        let mut routes = NetworkRoutes::default();
        let mut read = |text: Result<&str, &str>| {
            let text = text.map(|text| Secret::new(text.to_owned())).map_err(str::to_owned);
            routes.take_passwords(text, &options);
            let passwords = routes.external(&options).iter().map(|peer| peer.password.clone());
            let passwords: Vec<_> =
                passwords.map(|secret| secret.map(|one| one.reveal().to_owned())).collect();
            (passwords, routes.passwords_problem.is_some())
        };
        assert_eq!(read(Err("no such file")), (vec![], true), "none yet");
        assert_eq!(read(Ok("aHVudGVyMg==")), (vec![Some("hunter2".to_owned())], false));
        for bad in [Ok("hunter2!"), Ok(""), Ok("aHVudGVyMg==,aHVudGVyMg=="), Err("no such file")] {
            assert_eq!(read(bad), (vec![Some("hunter2".to_owned())], true), "as before: {bad:?}");
        }
    }
}
