//! Services: defaults, families, cluster addresses and ports.
//!
//! Rules: "Service" in the Kubernetes API reference and the dual-stack documentation. An allocation is derived
//! from the object that holds it ([`Claims`]), so an update releases exactly what the new state no longer says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::defaults::list;
use super::pool::{AddressPool, NODE_PORTS, PortPool};
use crate::api_server::ApiError;
use crate::api_server::object::{at, child, default, fields, items, name, text};

/// What a service holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Claims {
    /// What this object's state says it holds. Addresses that do not parse hold nothing.
    fn of(service: &Value) -> Self {
        let addresses = items(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
        let node_ports = items(service, &["spec", "ports"]).iter().filter_map(|port| port.get("nodePort"));
        let health = at(service, &["spec", "healthCheckNodePort"]);
        let ports =
            node_ports.chain(health).filter_map(Value::as_u64).filter_map(|port| u16::try_from(port).ok());
        Self {
            addresses: addresses.filter_map(|address| address.parse().ok()).collect(),
            ports: ports.filter(|port| *port != 0).collect(),
        }
    }
}

/// The cluster's service addresses and node ports.
#[derive(Debug)]
pub(super) struct Allocator {
    /// One per service range; the first is the primary family.
    pools: Vec<AddressPool>,
    ports: PortPool,
}

impl Allocator {
    /// The first two addresses of a range stay free: the network's own and the API server's.
    pub(super) fn new(ranges: &[IpNet]) -> Self {
        Self {
            pools: ranges.iter().map(|range| AddressPool::new(*range, 2)).collect(),
            ports: PortPool::new(),
        }
    }

    /// Completes a new service.
    pub(super) fn create(&mut self, service: &mut Value) -> Result<(), ApiError> {
        self.admit(&Claims::default(), service)
    }

    /// Completes a changed service; what the change leaves out stays as it was.
    pub(super) fn update(&mut self, old: &Value, new: &mut Value) -> Result<(), ApiError> {
        keep_allocated(old, new);
        let (before, after) = (primary(old), primary(new));
        if !before.is_empty() && !after.is_empty() && before != after && !is_external_name(new) {
            let message = format!("Invalid value: [\"{after}\"]: may not change once set");
            return Err(invalid(new, "spec.clusterIPs[0]", &message));
        }
        self.admit(&Claims::of(old), new)
    }

    /// Releases everything a deleted service held.
    pub(super) fn removed(&mut self, service: &Value) {
        self.release(&Claims::of(service));
    }

    fn release(&mut self, claims: &Claims) {
        for address in &claims.addresses {
            self.pools.iter_mut().for_each(|pool| pool.release(*address));
        }
        claims.ports.iter().for_each(|port| self.ports.release(*port));
    }

    fn admit(&mut self, held: &Claims, service: &mut Value) -> Result<(), ApiError> {
        complete(service);
        let mut gained = Claims::default();
        let result = self.allocate(held, &mut gained, service);
        if result.is_err() {
            self.release(&gained);
            return result;
        }
        let holds = Claims::of(service);
        let lost = Claims {
            addresses: held.addresses.difference(&holds.addresses).copied().collect(),
            ports: held.ports.difference(&holds.ports).copied().collect(),
        };
        self.release(&lost);
        Ok(())
    }

    fn allocate(&mut self, held: &Claims, gained: &mut Claims, service: &mut Value) -> Result<(), ApiError> {
        if is_external_name(service) {
            let spec = fields(child(service, "spec"));
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"] {
                spec.remove(key);
            }
            return Ok(());
        }
        self.allocate_addresses(held, gained, service)?;
        self.allocate_ports(held, gained, service)
    }

    fn allocate_addresses(
        &mut self,
        held: &Claims,
        gained: &mut Claims,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let wanted = requested_addresses(service)?;
        let families = self.families(service, &wanted)?;
        let names: Vec<_> = families.iter().map(|v4| if *v4 { "IPv4" } else { "IPv6" }).collect();
        let headless = primary(service) == "None";
        let mut addresses = Vec::new();
        for (index, is_ipv4) in families.iter().enumerate().filter(|_| !headless) {
            let given = wanted.iter().find(|address| address.is_ipv4() == *is_ipv4).copied();
            let field = format!("spec.clusterIPs[{index}]");
            addresses.push(
                self.claim_address(held, gained, given, *is_ipv4)
                    .map_err(|m| invalid(service, &field, &m))?,
            );
        }
        let spec = fields(child(service, "spec"));
        let texts: Vec<_> = match headless {
            true => vec!["None".to_owned()],
            false => addresses.iter().map(IpAddr::to_string).collect(),
        };
        spec.insert("clusterIP".to_owned(), json!(texts.first()));
        spec.insert("clusterIPs".to_owned(), json!(texts));
        spec.insert("ipFamilies".to_owned(), json!(names));
        Ok(())
    }

    fn claim_address(
        &mut self,
        held: &Claims,
        gained: &mut Claims,
        given: Option<IpAddr>,
        is_ipv4: bool,
    ) -> Result<IpAddr, String> {
        let pool = self.pools.iter_mut().find(|pool| pool.is_ipv4() == is_ipv4);
        let pool = pool.ok_or_else(|| "no service range of this family".to_owned())?;
        let address = match given {
            Some(address) if held.addresses.contains(&address) => return Ok(address),
            Some(address) if !pool.covers(address) => {
                return Err(format!(
                    "Invalid value: \"{address}\": the provided IP is not in the valid range"
                ));
            }
            Some(address) if pool.take(address) => address,
            Some(address) => {
                return Err(format!(
                    "Invalid value: \"{address}\": failed to allocate IP {address}: provided IP is already allocated"
                ));
            }
            None => pool.take_any().ok_or_else(|| "the service range is full".to_owned())?,
        };
        gained.addresses.insert(address);
        Ok(address)
    }

    /// The families (true is IPv4) the service is to have, primary first.
    fn families(&self, service: &mut Value, wanted: &[IpAddr]) -> Result<Vec<bool>, ApiError> {
        let cluster: Vec<bool> = self.pools.iter().map(AddressPool::is_ipv4).collect();
        let named = items(service, &["spec", "ipFamilies"]).iter().map(|family| family == "IPv4");
        let mut families: Vec<bool> = wanted.iter().map(IpAddr::is_ipv4).collect();
        families.extend(named);
        if families.is_empty() {
            families.extend(cluster.first());
        }
        let mut seen = BTreeSet::new();
        families.retain(|family| seen.insert(*family));
        // A headless service without selector has endpoints of families nobody knows yet: it gets all.
        let open = primary(service) == "None" && at(service, &["spec", "selector"]).is_none();
        let policy = match text(service, &["spec", "ipFamilyPolicy"]) {
            "" if open && cluster.len() > 1 => "RequireDualStack",
            "" if families.len() > 1 => "RequireDualStack",
            "" => "SingleStack",
            given => given,
        }
        .to_owned();
        match policy.as_str() {
            "SingleStack" => families.truncate(1),
            _ => families.extend(cluster.iter().filter(|family| seen.insert(**family))),
        }
        if let Some(missing) = families.iter().find(|family| !cluster.contains(family)) {
            let family = if *missing { "IPv4" } else { "IPv6" };
            let message = format!("Invalid value: \"{family}\": not configured on this cluster");
            return Err(invalid(service, "spec.ipFamilies[0]", &message));
        }
        if policy == "RequireDualStack" && families.len() < 2 && !open {
            let message =
                "Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services";
            return Err(invalid(service, "spec.ipFamilyPolicy", message));
        }
        fields(child(service, "spec")).insert("ipFamilyPolicy".to_owned(), json!(policy));
        Ok(families)
    }

    fn allocate_ports(
        &mut self,
        held: &Claims,
        gained: &mut Claims,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let kind = text(service, &["spec", "type"]).to_owned();
        let balanced_without = at(service, &["spec", "allocateLoadBalancerNodePorts"]) == Some(&json!(false));
        let wants_new = kind == "NodePort" || (kind == "LoadBalancer" && !balanced_without);
        let has = wants_new || kind == "LoadBalancer";
        let mut own = BTreeSet::new();
        for index in 0..items(service, &["spec", "ports"]).len() {
            let pointer = format!("/spec/ports/{index}");
            let given =
                service.pointer(&pointer).and_then(|port| port.get("nodePort")).and_then(Value::as_u64);
            let given = given.filter(|port| *port != 0);
            let field = format!("spec.ports[{index}].nodePort");
            let refuse = |message: String| invalid(service, &field, &message);
            let claimed = match given {
                _ if !has => None,
                // Several protocols of one service may share a node port.
                Some(port) if own.contains(&port) => Some(port),
                Some(_) => Some(self.claim_port(held, gained, given).map_err(refuse)?),
                None if wants_new => Some(self.claim_port(held, gained, None).map_err(refuse)?),
                None => None,
            };
            let Some(port) = service.pointer_mut(&pointer) else { continue };
            match claimed {
                Some(claim) => {
                    own.insert(claim);
                    fields(port).insert("nodePort".to_owned(), json!(claim));
                }
                None => drop(fields(port).remove("nodePort")),
            }
        }
        self.allocate_health_port(held, gained, service)
    }

    fn allocate_health_port(
        &mut self,
        held: &Claims,
        gained: &mut Claims,
        service: &mut Value,
    ) -> Result<(), ApiError> {
        let local = text(service, &["spec", "type"]) == "LoadBalancer"
            && text(service, &["spec", "externalTrafficPolicy"]) == "Local";
        if !local {
            fields(child(service, "spec")).remove("healthCheckNodePort");
            return Ok(());
        }
        let given =
            at(service, &["spec", "healthCheckNodePort"]).and_then(Value::as_u64).filter(|port| *port != 0);
        let claimed = self.claim_port(held, gained, given);
        let claimed = claimed.map_err(|message| invalid(service, "spec.healthCheckNodePort", &message))?;
        fields(child(service, "spec")).insert("healthCheckNodePort".to_owned(), json!(claimed));
        Ok(())
    }

    fn claim_port(&mut self, held: &Claims, gained: &mut Claims, given: Option<u64>) -> Result<u64, String> {
        let port = match given {
            Some(given) => {
                let port = u16::try_from(given).ok().filter(|port| NODE_PORTS.contains(port));
                let port = port.ok_or_else(|| {
                    format!("Invalid value: {given}: provided port is not in the valid range. The range of valid ports is 30000-32767")
                })?;
                if held.ports.contains(&port) {
                    return Ok(given);
                }
                if !self.ports.take(port) {
                    return Err(format!("Invalid value: {given}: provided port is already allocated"));
                }
                port
            }
            None => self.ports.take_any().ok_or_else(|| "the node port range is full".to_owned())?,
        };
        gained.ports.insert(port);
        Ok(u64::from(port))
    }
}

fn invalid(service: &Value, field: &str, message: &str) -> ApiError {
    let (name, field, message) = (name(service).to_owned(), field.to_owned(), message.to_owned());
    ApiError::Invalid { kind: "Service", name, field, message }
}

fn is_external_name(service: &Value) -> bool {
    text(service, &["spec", "type"]) == "ExternalName"
}

/// The first cluster address, `None` as a text for headless, empty when still to be allocated.
fn primary(service: &Value) -> &str {
    let first = items(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str);
    first.unwrap_or_else(|| text(service, &["spec", "clusterIP"]))
}

/// The addresses the service asks for; headless asks for none.
fn requested_addresses(service: &Value) -> Result<Vec<IpAddr>, ApiError> {
    let listed = items(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let mut texts: Vec<_> = listed.collect();
    if texts.is_empty() {
        texts.push(text(service, &["spec", "clusterIP"]));
    }
    let texts = texts.into_iter().filter(|text| !text.is_empty() && *text != "None");
    texts
        .map(|text| {
            text.parse().map_err(|_| {
                invalid(
                    service,
                    "spec.clusterIPs",
                    &format!("Invalid value: \"{text}\": must be a valid IP address"),
                )
            })
        })
        .collect()
}

/// Defaults that need no allocation.
fn complete(service: &mut Value) {
    let spec = child(service, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    for port in list(spec, "ports") {
        default(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            default(port, "targetPort", number);
        }
    }
    if spec.get("sessionAffinity") == Some(&json!("ClientIP")) {
        // core/v1 DefaultClientIPServiceAffinitySeconds: three hours.
        default(child(child(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10_800);
    } else {
        fields(spec).remove("sessionAffinityConfig");
    }
    let kind = text(spec, &["type"]).to_owned();
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    match kind.as_str() {
        "NodePort" | "LoadBalancer" => default(spec, "externalTrafficPolicy", "Cluster"),
        _ if items(spec, &["externalIPs"]).is_empty() => drop(fields(spec).remove("externalTrafficPolicy")),
        _ => {}
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    } else {
        fields(spec).remove("allocateLoadBalancerNodePorts");
    }
}

/// What an update that names no addresses, families or node ports means to keep.
fn keep_allocated(old: &Value, new: &mut Value) {
    if is_external_name(old) || is_external_name(new) {
        return;
    }
    let old_ports = items(old, &["spec", "ports"]);
    let spec = child(new, "spec");
    let unnamed = text(spec, &["clusterIP"]).is_empty() && items(spec, &["clusterIPs"]).is_empty();
    // Clients that know one address only change `clusterIP`; the list follows it.
    if text(spec, &["clusterIP"]) != text(old, &["spec", "clusterIP"])
        && !unnamed
        && spec.get("clusterIPs") == at(old, &["spec", "clusterIPs"])
    {
        fields(spec).remove("clusterIPs");
    }
    let keys: &[&str] = if unnamed { &["clusterIP", "clusterIPs"] } else { &[] };
    for key in keys.iter().chain(&["ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"]) {
        if let Some(value) = at(old, &["spec", key]) {
            default(spec, key, value.clone());
        }
    }
    let same = |a: &Value, b: &Value| {
        let protocol = |port: &Value| match text(port, &["protocol"]) {
            "" => "TCP".to_owned(),
            given => given.to_owned(),
        };
        a.get("port") == b.get("port") && protocol(a) == protocol(b)
    };
    for port in list(spec, "ports") {
        let before = old_ports.iter().find(|before| same(before, port));
        if let Some(node_port) = before.and_then(|before| before.get("nodePort")) {
            default(port, "nodePort", node_port.clone());
        }
    }
    // A second address goes with the policy that asked for it.
    if text(spec, &["ipFamilyPolicy"]) == "SingleStack"
        && text(old, &["spec", "ipFamilyPolicy"]) != "SingleStack"
    {
        for key in ["clusterIPs", "ipFamilies"] {
            if let Some(Value::Array(list)) = fields(spec).get_mut(key) {
                list.truncate(1);
            }
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
