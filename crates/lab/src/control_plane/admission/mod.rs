//! Admission: objects leave here complete, with their addresses and ports allocated.
//!
//! Deliberately lenient: only what allocation depends on is validated, so that malformed objects can reach agents.
//! Network policies are checked as the real server does, unless annotated ([`UNCHECKED`]).

mod defaults;
mod network_policy;
mod node;
pub(crate) mod pool;
mod service;

use serde_json::Value;

pub use self::network_policy::UNCHECKED;
use super::Config;
use crate::api_server::object::{at, name};
use crate::api_server::rules;
use crate::api_server::selector::LabelSelector;
use crate::api_server::{ApiError, Resource};

/// The admission chain with its allocations.
pub(crate) struct Admission {
    services: service::Allocator,
    nodes: node::PodRanges,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            services: service::Allocator::new(&config.service_cidrs),
            nodes: node::PodRanges::new(config.pod_cidrs.clone()),
        }
    }
}

impl rules::Admission for Admission {
    fn create(&mut self, resource: Resource, object: &mut Value) -> Result<(), ApiError> {
        defaults::complete(resource, object);
        check_selector(resource, object)?;
        match resource {
            Resource::Services => self.services.create(object)?,
            Resource::Nodes => self.nodes.admit(object),
            Resource::NetworkPolicies => network_policy::check(object)?,
            _ => {}
        }
        Ok(())
    }

    fn update(&mut self, resource: Resource, old: &Value, new: &mut Value) -> Result<(), ApiError> {
        defaults::complete(resource, new);
        check_selector(resource, new)?;
        match resource {
            Resource::Services => self.services.update(old, new)?,
            Resource::Nodes => self.nodes.admit(new),
            Resource::NetworkPolicies => network_policy::check(new)?,
            _ => {}
        }
        Ok(())
    }

    fn removed(&mut self, resource: Resource, object: &Value) {
        match resource {
            Resource::Services => self.services.removed(object),
            Resource::Nodes => self.nodes.release(object),
            _ => {}
        }
    }
}

/// A workload whose selector does not match its own template would create pods for ever.
fn check_selector(resource: Resource, object: &Value) -> Result<(), ApiError> {
    if !matches!(resource, Resource::Deployments | Resource::DaemonSets) {
        return Ok(());
    }
    let selector = at(object, &["spec", "selector"]).map(LabelSelector::from_object).unwrap_or_default();
    let template = at(object, &["spec", "template"]);
    if !selector.is_empty() && template.is_some_and(|template| selector.matches(template)) {
        return Ok(());
    }
    Err(ApiError::Invalid {
        kind: resource.definition().kind,
        name: name(object).to_owned(),
        field: "spec.selector".to_owned(),
        message: "Invalid value: `selector` does not match template `labels`".to_owned(),
    })
}
