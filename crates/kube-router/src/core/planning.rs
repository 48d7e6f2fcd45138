//! From news to claims: who is told of a change, who may begin to plan, and what is planned.

use std::time::Instant;

use linux::row::{Key, LaneName};

use super::dispatch::RULES_WAIT;
use super::{Core, Inputs, Running};
use crate::store::Dirty;

impl Core {
    /// Tells those who plan what the changes in the store are. O(controllers) besides what each of them does.
    pub(super) fn follow(&mut self, dirty: &Dirty) {
        for objection in &dirty.objections {
            tracing::warn!("{objection}");
        }
        if dirty.own_node {
            self.take_node();
        }
        let (controllers, inputs) = self.parts();
        let mut told = false;
        for running in controllers.iter_mut() {
            if running.planning {
                running.controller.store_changed(dirty, inputs);
                told = true;
            } else {
                running.controller.store_fills(dirty, inputs);
            }
        }
        if told {
            self.reporter.due(&dirty.services, &self.store);
        }
    }

    /// A Node object that goes away or loses all its addresses says nothing about the node: what was known stays.
    pub(super) fn take_node(&mut self) {
        match self.store.own_node().filter(|node| node.primary_ip().is_some()) {
            Some(node) => {
                let node = node.clone().keeping(self.node.object.as_ref());
                self.node.object = Some(node);
            }
            None => self.reporter.node_unknown(&self.node.name),
        }
    }

    /// Lets controllers begin to plan that know enough now: before that, absence means nothing and must delete nothing.
    /// A lane whose tables cannot be read holds up its own writes, not the others'.
    pub(super) fn begin(&mut self, now: Instant) {
        let addressed = self.node.object.as_ref().is_some_and(|node| node.primary_ip().is_some());
        let located = addressed && !self.node.facts.addresses.is_empty();
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in self.controllers.iter_mut().filter(|running| !running.planning) {
            let listed = running.needs.watches.iter().all(|watch| self.store.synced(watch.kind));
            if listed && !addressed {
                self.reporter.node_unknown(&self.node.name);
            }
            let read = running.needs.lanes.iter().all(|lane| self.reconciler.has_answered(*lane));
            if listed && read && located && running.controller.knows_enough(inputs) {
                running.planning = true;
                if running.needs.lanes.contains(&LaneName::Firewall) {
                    self.rules_wait = Some(now + RULES_WAIT);
                }
                self.reporter.planning(running.controller.name(), &self.store);
                running.controller.begin(inputs);
            }
        }
    }

    /// Plans what is due, or of a controller that goes on a part of it, and does what else follows.
    pub(super) fn plan(&mut self, now: Instant) {
        self.partly_planned = false;
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in self.controllers.iter_mut().filter(|running| running.planning) {
            loop {
                let reconciler = &self.reconciler;
                let inside = |key: &Key| {
                    let itself = reconciler.actual(key).is_some().then_some(key).into_iter();
                    itself.chain(reconciler.contents(key).map(|(key, _)| key)).cloned().collect()
                };
                let planned = running.controller.plan(inputs, now, &inside);
                if planned.is_empty() {
                    break;
                }
                running.unconfirmed = true;
                for (owner, claims) in planned {
                    self.reconciler.set(&owner, claims);
                }
                if running.controller.goes_on() {
                    self.partly_planned = true;
                    break;
                }
            }
            for (object, found) in running.controller.take_found() {
                running.objections.report(&object, found);
            }
            running.controller.take_effects().into_iter().for_each(|effect| self.edges.perform(effect));
        }
        self.reconciler.allow_removals(self.controllers.iter().flat_map(Running::gates));
        let found = self.controllers.iter().map(|running| running.objections.objects());
        self.reporter.rejected(found.sum::<usize>() + self.store.objections().objects());
    }

    /// Tells controllers whose lanes have come to rest that what they planned is in the kernel. Says whether it told any.
    pub(super) fn confirm(&mut self) -> bool {
        let mut told = false;
        for running in self.controllers.iter_mut().filter(|running| running.unconfirmed) {
            if running.needs.lanes.iter().all(|lane| self.reconciler.is_at_rest(*lane)) {
                running.unconfirmed = false;
                running.controller.programmed();
                told = true;
            }
        }
        told
    }
}
