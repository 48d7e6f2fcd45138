//! The cloud's part: a LoadBalancer service gets the address it asks for, or one of the configured ranges.
//!
//! A service with a `loadBalancerClass` belongs to somebody else and is left alone, as is one nothing is known for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::admission::pool::AddressPool;
use crate::api_server::object::{at, items, name, namespace, text};
use crate::api_server::{EventKind, Handle, Resource, WatchEvent};

/// What is to be done about one service.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// It is no load balancer: whatever it was given goes back.
    Nothing,
    /// Not ours to decide.
    Leave,
    /// This address.
    Address(IpAddr),
    /// One address of each of these families (true is IPv4).
    AnyOf(Vec<bool>),
}

fn wish(service: &Value) -> Wish {
    if text(service, &["spec", "type"]) != "LoadBalancer" {
        return Wish::Nothing;
    }
    if at(service, &["spec", "loadBalancerClass"]).is_some() {
        return Wish::Leave;
    }
    match text(service, &["spec", "loadBalancerIP"]) {
        "" => {
            let families = items(service, &["spec", "ipFamilies"]).iter().map(|family| family == "IPv4");
            Wish::AnyOf(families.collect())
        }
        address => address.parse().map_or(Wish::Leave, Wish::Address),
    }
}

struct Cloud {
    handle: Handle,
    pools: Vec<AddressPool>,
    /// What each service was given.
    given: BTreeMap<(String, String), Vec<IpAddr>>,
}

/// Gives addresses until the server ends.
pub(super) async fn run(handle: Handle, ranges: Vec<IpNet>) {
    let (services, mut events) = handle.watch(Resource::Services);
    let pools = ranges.into_iter().map(|range| AddressPool::new(range, 1)).collect();
    let mut cloud = Cloud { handle, pools, given: BTreeMap::new() };
    for object in services {
        cloud.service(&WatchEvent { kind: EventKind::Added, object });
    }
    while let Some(event) = events.recv().await {
        cloud.service(&event);
    }
}

impl Cloud {
    fn service(&mut self, event: &WatchEvent) {
        let service = &event.object;
        let key = (namespace(service).to_owned(), name(service).to_owned());
        let wish = if event.kind == EventKind::Deleted { Wish::Nothing } else { wish(service) };
        let before = self.given.get(&key).cloned().unwrap_or_default();
        let now = match wish {
            Wish::Leave => return,
            Wish::Nothing => Vec::new(),
            Wish::Address(address) => vec![address],
            Wish::AnyOf(families) => families.iter().filter_map(|v4| self.one_of(*v4, &before)).collect(),
        };
        for address in before.iter().filter(|address| !now.contains(address)) {
            self.pools.iter_mut().for_each(|pool| pool.release(*address));
        }
        if now.is_empty() {
            self.given.remove(&key);
        } else {
            self.given.insert(key, now.clone());
        }
        if now != before && event.kind != EventKind::Deleted {
            self.publish(service, &now);
        }
    }

    /// The address of this family the service has, or a new one; `None` without a range for it.
    fn one_of(&mut self, is_ipv4: bool, before: &[IpAddr]) -> Option<IpAddr> {
        let pool = self.pools.iter_mut().find(|pool| pool.is_ipv4() == is_ipv4)?;
        before.iter().copied().find(|address| pool.covers(*address)).or_else(|| pool.take_any())
    }

    fn publish(&self, service: &Value, addresses: &[IpAddr]) {
        let ingress: Vec<_> =
            addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
        let status = match ingress.is_empty() {
            true => json!({"loadBalancer": null}),
            false => json!({"loadBalancer": {"ingress": ingress}}),
        };
        let space = Some(namespace(service));
        if let Err(error) = self.handle.patch_status(Resource::Services, space, name(service), &status) {
            tracing::debug!(%error, "load balancer status");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_load_balancers_get_an_address() {
        for (spec, expected) in [
            (json!({"type": "ClusterIP", "loadBalancerIP": "1.2.3.4"}), Wish::Nothing),
            (
                json!({"type": "LoadBalancer", "loadBalancerIP": "1.2.3.4"}),
                Wish::Address([1, 2, 3, 4].into()),
            ),
            (json!({"type": "LoadBalancer", "loadBalancerIP": "x"}), Wish::Leave),
            (json!({"type": "LoadBalancer", "loadBalancerClass": "x/y"}), Wish::Leave),
            (json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"]}), Wish::AnyOf(vec![false])),
        ] {
            assert_eq!(wish(&json!({ "spec": spec })), expected, "{spec}");
        }
    }
}
