//! The network services as the core knows them: from events to dirty keys, from dirty keys to plans.

use std::collections::BTreeMap;
use std::time::Instant;

use linux::reconciler::{Gate, Reconciler};
use linux::row::{Key, Name};

use super::{NetworkServices, Subject, base, firewall, scope};
use crate::core::{Controller, Effect, Found, InKernel, Inputs, Needs, News, Planned};
use crate::explain::Explanation;
use crate::node::Facts;
use crate::options::Options;
use crate::owner::Owner;
use crate::status::Status;
use crate::status::collect::{self, Claimed};
use crate::store::Dirty;

/// Virtual servers planned in one go: a start plans them all, and what is planned takes room until it is handed on.
const PLANNED_AT_ONCE: usize = 512;

impl Controller for NetworkServices {
    fn name(&self) -> &'static str {
        "service proxy"
    }

    fn needs(&self, node: &Name, options: &Options) -> Needs {
        scope::needs(node, options)
    }

    fn begin(&mut self, inputs: Inputs<'_>) {
        self.pods_changed(inputs.store.pods().map(|pod| &pod.id), inputs);
        self.node_changed(inputs);
    }

    fn store_changed(&mut self, dirty: &Dirty, inputs: Inputs<'_>) {
        self.pods_changed(&dirty.pods, inputs);
        if dirty.own_node {
            self.node_changed(inputs);
        }
        for id in &dirty.services {
            self.service_changed(id, inputs);
        }
        self.look_at_rivals(inputs);
    }

    fn facts_changed(&mut self, before: &Facts, inputs: Inputs<'_>) {
        if before.seen_by_services() != inputs.node.facts.seen_by_services() {
            self.node_changed(inputs);
        } else {
            self.links_changed();
        }
    }

    fn hear(&mut self, news: News, _inputs: Inputs<'_>) -> Option<News> {
        match news {
            News::Idle(servers) => servers.iter().for_each(|server| self.drained(server)),
            News::Owners(answer) => {
                let owners = self.contests.winners();
                let owners = owners.map(|(key, winner)| (*key, winner.service.clone())).collect();
                // A scrape that gave up waiting needs no answer.
                let _ = answer.send(owners);
            }
            other => return Some(other),
        }
        None
    }

    fn plan(&mut self, inputs: Inputs<'_>, now: Instant, in_kernel: InKernel<'_>) -> Vec<Planned> {
        self.dirty.extend(self.draining.take_due(now));
        let mut planned: Vec<Planned> = Vec::new();
        if std::mem::take(&mut self.dirty_base) {
            planned.push((Subject::ServiceProxy.into(), base::claims(inputs.node, inputs.options)));
            planned.push((Subject::NodeAddresses.into(), firewall::local_ips(inputs.node)));
        }
        if std::mem::take(&mut self.dirty_hairpin) {
            planned.push((Subject::Hairpin.into(), self.plan_hairpin(inputs)));
        }
        if std::mem::take(&mut self.dirty_pods) {
            planned.push((Subject::NodePods.into(), firewall::node_pods(self.pods.here(), inputs.node)));
        }
        while planned.len() < PLANNED_AT_ONCE
            && let Some(key) = self.dirty.pop_first()
        {
            let claims = self.plan_virtual_server(key, inputs, now, in_kernel);
            planned.push((Subject::VirtualServer(key).into(), claims));
        }
        planned
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.draining.next_deadline()
    }

    fn gates(&self) -> Vec<Gate> {
        vec![scope::gate()]
    }

    /// Of several findings about one Service the last is what is wrong with it now.
    fn take_found(&mut self) -> Vec<Found> {
        let last: BTreeMap<_, _> = std::mem::take(&mut self.found).into_iter().collect();
        last.into_iter().collect()
    }

    fn describe(&self, _inputs: Inputs<'_>, rows: &Reconciler<Owner>, status: &mut Status) {
        let claimed = self.contests.winners().map(|(key, winner)| Claimed {
            key: Key::VirtualServer(*key),
            service: winner.service.clone(),
            kind: winner.kind.as_str(),
        });
        collect::services(claimed, rows, status);
    }

    fn explain(&self, inputs: Inputs<'_>, rows: &Reconciler<Owner>, explanation: &mut Explanation) {
        self.lead(inputs, rows, explanation);
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        let (drains, ports) =
            std::mem::replace(&mut self.told, (self.draining.version(), self.health.version()));
        let mut effects = Vec::new();
        if drains != self.told.0 {
            effects.push(Effect::WatchDrains(self.draining.all().copied().collect()));
        }
        if ports != self.told.1 {
            effects.push(Effect::HealthPorts(self.health.wanted()));
        }
        effects
    }
}
