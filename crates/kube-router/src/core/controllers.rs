//! Which controllers there are, which of them run, and how far each has come.

use linux::reconciler::Gate;
use linux::row::Name;

use super::controller::{Controller, Needs};
use crate::network_policy::NetworkPolicies;
use crate::network_routes::NetworkRoutes;
use crate::network_services::NetworkServices;
use crate::objection::Objections;
use crate::options::{Controllers, Options};

/// Those switched on, of those that are built. In this order they plan.
pub fn enabled_controllers(options: &Options) -> Vec<Box<dyn Controller>> {
    built(options.controllers)
}

/// All that are built, for those who clean up after any of them.
pub fn all_controllers() -> Vec<Box<dyn Controller>> {
    built(Controllers { service_proxy: true, network_policy: true, routes: true, load_balancer: true })
}

fn built(which: Controllers) -> Vec<Box<dyn Controller>> {
    let mut controllers: Vec<Box<dyn Controller>> = Vec::new();
    if which.service_proxy {
        controllers.push(Box::new(NetworkServices::default()));
    }
    if which.network_policy {
        controllers.push(Box::new(NetworkPolicies::default()));
    }
    if which.routes {
        controllers.push(Box::new(NetworkRoutes::default()));
    }
    controllers
}

/// What these need together.
pub fn needs(controllers: &[Box<dyn Controller>], node: &Name, options: &Options) -> Needs {
    controllers.iter().map(|controller| controller.needs(node, options)).fold(Needs::none(), Needs::and)
}

/// A controller that runs.
pub(super) struct Running {
    pub(super) controller: Box<dyn Controller>,
    pub(super) needs: Needs,
    /// It knew enough once; from then on it plans.
    pub(super) planning: bool,
    /// It has planned something since it was last told that all is in the kernel.
    pub(super) unconfirmed: bool,
    /// What it finds wrong with objects. Kept apart from what others find wrong with the same.
    pub(super) objections: Objections,
}

impl Running {
    pub(super) fn new(controller: Box<dyn Controller>, node: &Name, options: &Options) -> Running {
        let needs = controller.needs(node, options);
        Running { controller, needs, planning: false, unconfirmed: false, objections: Objections::default() }
    }

    /// Its gates, shut before it plans.
    pub(super) fn gates(&self) -> impl Iterator<Item = Gate> {
        let planning = self.planning;
        self.controller.gates().into_iter().map(move |gate| Gate { open: gate.open && planning, ..gate })
    }
}
