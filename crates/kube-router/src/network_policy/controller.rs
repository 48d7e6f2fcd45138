//! Network policy as the core knows it: from events to what they touch, from what is touched to plans.

use std::collections::BTreeMap;
use std::time::Instant;

use linux::firewall::FirewallScope;
use linux::reconciler::{Claim, Gate, Reconciler};
use linux::row::{Family, Key, LaneName, Name, Row};

use super::rules::{frame, members, pod, policy, shared};
use super::{Index, NetworkPolicies, Subject, describe, found};
use crate::core::{Controller, Effect, Found, InKernel, Inputs, Needs, News, Planned};
use crate::explain::Explanation;
use crate::kube::model::{Kind, ObjectName, Pod};
use crate::kube::watch::Selection;
use crate::names::{chain, set};
use crate::node::Facts;
use crate::options::Options;
use crate::owner::Owner;
use crate::status::Status;
use crate::store::Dirty;

/// Owners planned at a time while sets are being filled for the first time: enough for the lane of sets to be worth its
/// job, few enough for it to begin soon.
const PART: usize = 1024;

/// Whether packets between pods on one bridge pass the packet filter at all; in the module br_netfilter.
const BRIDGE_SETTINGS: [(Family, &str); 2] =
    [(Family::V4, "net/bridge/bridge-nf-call-iptables"), (Family::V6, "net/bridge/bridge-nf-call-ip6tables")];

/// Verdict maps, where the packet filter has them.
const MAPS: [&str; 2] = [set::POD_INGRESS, set::POD_EGRESS];

impl Controller for NetworkPolicies {
    fn name(&self) -> &'static str {
        "network policy"
    }

    fn needs(&self, node: &Name, options: &Options) -> Needs {
        let own = Selection { fields: Some(format!("metadata.name={node}")), ..Selection::all(Kind::Node) };
        let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
        Needs {
            watches: vec![
                Selection::all(Kind::NetworkPolicy),
                Selection::all(Kind::Namespace),
                Selection::all(Kind::Pod),
                own,
            ],
            lanes: vec![LaneName::Sysctl, LaneName::Sets, LaneName::Firewall],
            firewall: FirewallScope {
                chains: names(&[chain::INPUT, chain::FORWARD, chain::OUTPUT]),
                chain_prefixes: names(&[chain::POLICY_PREFIX, chain::POD_PREFIX]),
                sets: names(&[set::LOCAL_PODS, set::POD_INGRESS, set::POD_EGRESS]),
                set_prefixes: names(&[set::SOURCE_PREFIX, set::DESTINATION_PREFIX]),
                foreign: vec![frame::place],
            },
            flows: true,
            settings: BRIDGE_SETTINGS.iter().map(|(_, path)| Name::from(*path)).collect(),
            audit: options.network_policy.sync_period,
            ..Needs::none()
        }
    }

    fn store_fills(&mut self, dirty: &Dirty, inputs: Inputs<'_>) {
        if self.indexed {
            self.take_in(dirty, inputs);
        } else {
            self.take_in_all(inputs);
        }
    }

    fn begin(&mut self, inputs: Inputs<'_>) {
        if !self.indexed {
            self.take_in_all(inputs);
        }
        self.touched.pods_here = true;
        // Policies may have changed while nobody was here to cut flows.
        self.touched.flows.extend(self.index.pods_here().iter().flat_map(|pod| pod.ips().iter().copied()));
    }

    fn store_changed(&mut self, dirty: &Dirty, inputs: Inputs<'_>) {
        self.take_in(dirty, inputs);
        // Its pod prefixes are in rules.
        self.touched.pods_here |= dirty.own_node;
    }

    /// Rules ask the kernel for the node's addresses.
    fn facts_changed(&mut self, _before: &Facts, _inputs: Inputs<'_>) {}

    fn hear(&mut self, news: News, inputs: Inputs<'_>) -> Option<News> {
        match news {
            News::Flows(flows) => {
                self.flows.judge(flows, &self.index, inputs.node);
                None
            }
            news => Some(news),
        }
    }

    /// At a start in parts: what brings sets and chains first, then members.
    fn plan(&mut self, inputs: Inputs<'_>, now: Instant, in_kernel: InKernel<'_>) -> Vec<Planned> {
        let part = if self.built { usize::MAX } else { PART };
        let touched = &mut self.touched;
        self.flows.look_at(std::mem::take(&mut touched.flows), now);
        let mut planned: Vec<Planned> = Vec::new();
        if std::mem::take(&mut touched.pods_here) {
            planned.push((Subject::Frame.into(), self.plan_frame(inputs, in_kernel)));
        }
        while planned.len() < part
            && let Some(id) = self.touched.policies.pop_first()
        {
            let claims = self.plan_policy(&id);
            self.size.replace(&id, &claims);
            planned.push((Subject::Policy(id).into(), claims));
        }
        while planned.len() < part
            && let Some(id) = self.touched.pods.pop_first()
        {
            let claims = self.plan_pod(&id, inputs);
            planned.push((Subject::Pod(id).into(), claims));
        }
        while planned.len() < part
            && let Some(id) = self.touched.members.pop_first()
        {
            let claims = members::claims(&id, &self.index);
            planned.push((Subject::Members(id).into(), claims));
        }
        planned
    }

    fn goes_on(&self) -> bool {
        !self.built && !self.touched.is_planned()
    }

    fn programmed(&mut self) {
        self.built = true;
        self.flows.programmed();
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.flows.next_deadline()
    }

    /// What a predecessor left enforces until all of ours is there.
    fn gates(&self) -> Vec<Gate> {
        vec![Gate::new(covers, self.built)]
    }

    fn guards_pods(&self) -> bool {
        true
    }

    fn guards(&self, pod: &Pod, inputs: Inputs<'_>, rows: &Reconciler<Owner>) -> bool {
        self.is_guarded(pod, inputs, rows)
    }

    /// Of several findings about one policy the last is what is wrong with it now.
    fn take_found(&mut self) -> Vec<Found> {
        let last: BTreeMap<_, _> = std::mem::take(&mut self.found).into_iter().collect();
        last.into_iter().collect()
    }

    fn describe(&self, inputs: Inputs<'_>, rows: &Reconciler<Owner>, status: &mut Status) {
        status.policies = describe::pods(&self.index, inputs.node, rows);
    }

    fn explain(&self, inputs: Inputs<'_>, _rows: &Reconciler<Owner>, explanation: &mut Explanation) {
        describe::judge(&self.index, inputs, explanation);
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        let mut effects = self.flows.take_effects();
        effects.extend(self.size.news().map(|(chains, sets)| Effect::PolicySize { chains, sets }));
        effects
    }
}

impl NetworkPolicies {
    /// Takes in what changed. O(what it touches).
    fn take_in(&mut self, dirty: &Dirty, inputs: Inputs<'_>) {
        for name in &dirty.namespaces {
            self.index.namespace_changed(name, inputs.store.namespace(name), &mut self.touched);
        }
        for id in &dirty.pods {
            self.index.pod_changed(id, inputs.store.pod(id), &mut self.touched);
        }
        for id in &dirty.policies {
            self.index.policy_changed(id, inputs.store.policy(id), &mut self.touched);
        }
    }

    /// Takes in everything the store has. O(objects).
    fn take_in_all(&mut self, inputs: Inputs<'_>) {
        let families = inputs.options.families;
        self.index = Index::new(inputs.node.name.clone(), families.ipv4, families.ipv6);
        self.indexed = true;
        for namespace in inputs.store.namespaces() {
            self.index.namespace_changed(&namespace.name, Some(namespace), &mut self.touched);
        }
        for pod in inputs.store.pods() {
            self.index.pod_changed(&pod.id, Some(pod), &mut self.touched);
        }
        for policy in inputs.store.policies() {
            self.index.policy_changed(&policy.id, Some(policy), &mut self.touched);
        }
    }

    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| self.index.enforces(*family))
    }

    /// O(pods of this node).
    fn plan_frame(&self, inputs: Inputs<'_>, in_kernel: InKernel<'_>) -> Vec<Claim> {
        let pods = self.index.pods_here();
        let mut claims = Vec::new();
        for family in self.families() {
            let of_family = pods.iter().filter_map(|pod| Some((pod.id().clone(), pod.ip(family)?)));
            let of_family: Vec<_> = of_family.collect();
            let enforced = frame::ways_in(family).any(|jump| !in_kernel(&jump.key).is_empty());
            claims.extend(frame::claims(family, &of_family, enforced, inputs.node, inputs.options));
            let settings = BRIDGE_SETTINGS.iter().filter(|(of, _)| *of == family);
            claims.extend(
                settings.map(|(_, path)| Claim::new(Key::Sysctl((*path).into()), Row::Sysctl("1".into()))),
            );
        }
        claims
    }

    /// O(its peers × ports).
    fn plan_policy(&mut self, id: &ObjectName) -> Vec<Claim> {
        let Some(compiled) = self.index.in_force(id) else {
            self.found.push((id.of_kind(Kind::NetworkPolicy), Vec::new()));
            return Vec::new();
        };
        self.found.push((id.of_kind(Kind::NetworkPolicy), found::objections(compiled, &self.index)));
        self.families().flat_map(|family| policy::claims(compiled, family, &self.index)).collect()
    }

    /// O(policies that select it).
    fn plan_pod(&self, id: &ObjectName, inputs: Inputs<'_>) -> Vec<Claim> {
        let Some((here, group)) = self.index.pod(id).filter(|(pod, _)| pod.here) else { return Vec::new() };
        let policies = self.index.policies_of(group);
        let ips = self.families().filter_map(|family| here.ip(family));
        if inputs.node.facts.verdict_maps {
            ips.flat_map(|ip| shared::claims(ip, &policies)).collect()
        } else {
            ips.map(|ip| pod::claim(id, ip, &policies)).collect()
        }
    }
}

/// The rows that are network policy's, whoever wrote them.
fn covers(key: &Key, _row: &Row) -> bool {
    match key {
        Key::Sysctl(path) => BRIDGE_SETTINGS.iter().any(|(_, ours)| **ours == **path),
        Key::Set(set) => is_set(&set.name),
        Key::Member(set, _) => is_set(&set.name),
        Key::VerdictMap(map) | Key::Verdict(map, _) => MAPS.contains(&&*map.name),
        Key::Chain(chain) => is_chain(&chain.name),
        Key::ForeignRule(_, rule) => rule.jump_target().is_some_and(|target| is_chain(target)),
        _ => false,
    }
}

fn is_set(name: &str) -> bool {
    name == set::LOCAL_PODS
        || name.starts_with(set::SOURCE_PREFIX)
        || name.starts_with(set::DESTINATION_PREFIX)
}

fn is_chain(name: &str) -> bool {
    [chain::INPUT, chain::FORWARD, chain::OUTPUT].contains(&name)
        || name.starts_with(chain::POLICY_PREFIX)
        || name.starts_with(chain::POD_PREFIX)
}
