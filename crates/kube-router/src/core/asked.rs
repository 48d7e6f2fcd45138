//! What the core answers: to `status`, to `explain`, and to the CNI plugin about pods that wait.

use std::collections::BTreeSet;

use super::waiting::Progress;
use super::{Core, Inputs};
use crate::explain::{self, Explanation, Question, Unanswerable};
use crate::kube::model::Kind;
use crate::status::{ControllerState, Status, collect};
use crate::version;

impl Core {
    /// What is known and done. O(virtual servers and their backends).
    pub(super) fn status(&self) -> Status {
        let mut status = Status {
            node: self.node.name.to_string(),
            version: version::VERSION.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            firewall: self.firewall.map(str::to_owned),
            ..Status::default()
        };
        let kinds: BTreeSet<Kind> = self
            .controllers
            .iter()
            .flat_map(|running| &running.needs.watches)
            .map(|watch| watch.kind)
            .collect();
        collect::watches(&self.store, kinds.into_iter(), &mut status);
        collect::rows(&self.reconciler, &mut status);
        collect::announced(&self.store, &mut status);
        collect::objections(self.store.objections().iter(), &mut status);
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        for running in &self.controllers {
            let name = running.controller.name().to_owned();
            status.controllers.push(ControllerState { name, planning: running.planning });
            collect::objections(running.objections.iter(), &mut status);
            running.controller.describe(inputs, &self.reconciler, &mut status);
        }
        status
    }

    /// What becomes of packets: each controller that plans adds its part, in the order in which a packet meets them.
    pub(super) fn explain(&self, question: &Question) -> Result<Box<Explanation>, Unanswerable> {
        let inputs = Inputs { store: &self.store, node: &self.node, options: &self.options };
        let mut explanation = Box::new(explain::begin(question, inputs)?);
        for running in &self.controllers {
            if running.planning {
                running.controller.explain(inputs, &self.reconciler, &mut explanation);
            } else {
                explanation
                    .notes
                    .push(format!("{} does not plan yet, for want of input", running.controller.name()));
            }
        }
        Ok(explanation)
    }

    /// Lets pods go whose rules are in the kernel.
    pub(super) fn tell_waiting(&mut self) {
        let Core { waiting, store, node, options, controllers, reconciler, .. } = self;
        let inputs = Inputs { store, node, options };
        waiting.tell(|told| {
            for running in controllers.iter().filter(|running| running.controller.guards_pods()) {
                let name = running.controller.name();
                if !running.planning {
                    return Progress::NotPlanning(name);
                }
                let Some(pod) = store.wired(told) else { return Progress::Unseen };
                if !running.controller.guards(pod, inputs, reconciler) {
                    return Progress::NotInKernel(name);
                }
            }
            Progress::Ready
        });
    }
}
