//! The columns `kubectl get` shows of each kind, named and ordered as the real server's printers have them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api_server::Resource;
use crate::api_server::object::{at, items, name, text};

/// One column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// OpenAPI type of the cell.
    pub(super) kind: &'static str,
    /// Shown only with `-o wide`.
    pub(super) wide: bool,
    pub(super) cell: fn(&Value) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", wide: false, cell }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", wide: true, cell }
}

const fn count(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "integer", wide: false, cell }
}

const NAME: Column = column("Name", |object| json!(name(object)));
const AGE: Column = column("Age", |object| json!(age(text(object, &["metadata", "creationTimestamp"]))));
const CONTAINERS: Column = wide("Containers", |object| json!(joined(template_containers(object), "name")));
const IMAGES: Column = wide("Images", |object| json!(joined(template_containers(object), "image")));
const SELECTOR: Column =
    wide("Selector", |object| json!(labels(at(object, &["spec", "selector", "matchLabels"]))));

/// The columns of a kind.
pub(super) fn of(resource: Resource) -> &'static [Column] {
    match resource {
        Resource::Pods => PODS,
        Resource::Services => SERVICES,
        Resource::Endpoints => ENDPOINTS,
        Resource::EndpointSlices => ENDPOINT_SLICES,
        Resource::Nodes => NODES,
        Resource::Namespaces => NAMESPACES,
        Resource::ConfigMaps => CONFIG_MAPS,
        Resource::Secrets => SECRETS,
        Resource::Deployments => DEPLOYMENTS,
        Resource::DaemonSets => DAEMON_SETS,
        Resource::ReplicaSets => REPLICA_SETS,
        Resource::NetworkPolicies => NETWORK_POLICIES,
        Resource::Leases => LEASES,
        Resource::Events | Resource::EventsV1 => EVENTS,
        _ => &[NAME, AGE],
    }
}

const PODS: &[Column] = &[
    NAME,
    column("Ready", |pod| {
        let statuses = items(pod, &["status", "containerStatuses"]);
        let ready = statuses.iter().filter(|status| status.get("ready") == Some(&json!(true))).count();
        json!(format!("{ready}/{}", items(pod, &["spec", "containers"]).len()))
    }),
    column("Status", |pod| json!(pod_status(pod))),
    count("Restarts", |pod| {
        let statuses = items(pod, &["status", "containerStatuses"]).iter();
        json!(statuses.filter_map(|status| status.get("restartCount")?.as_i64()).sum::<i64>())
    }),
    AGE,
    wide("IP", |pod| json!(or_none(text(pod, &["status", "podIP"])))),
    wide("Node", |pod| json!(or_none(text(pod, &["spec", "nodeName"])))),
    wide("Nominated Node", |pod| json!(or_none(text(pod, &["status", "nominatedNodeName"])))),
    wide("Readiness Gates", |_| json!("<none>")),
];

const SERVICES: &[Column] = &[
    NAME,
    column("Type", |service| json!(text(service, &["spec", "type"]))),
    column("Cluster-IP", |service| json!(or_none(text(service, &["spec", "clusterIP"])))),
    column("External-IP", |service| json!(external_ips(service))),
    column("Port(s)", |service| json!(service_ports(service))),
    AGE,
    wide("Selector", |service| json!(labels(at(service, &["spec", "selector"])))),
];

const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", |endpoints| json!(limited(endpoint_addresses(endpoints)))), AGE];

const ENDPOINT_SLICES: &[Column] = &[
    NAME,
    column("AddressType", |slice| json!(text(slice, &["addressType"]))),
    column("Ports", |slice| {
        let ports = items(slice, &["ports"]).iter().filter_map(|port| port.get("port"));
        let ports = ports.map(Value::to_string).collect::<Vec<_>>();
        json!(if ports.is_empty() { "<unset>".to_owned() } else { ports.join(",") })
    }),
    column("Endpoints", |slice| {
        let addresses =
            items(slice, &["endpoints"]).iter().flat_map(|endpoint| items(endpoint, &["addresses"]));
        json!(limited(addresses.filter_map(Value::as_str).map(str::to_owned).collect()))
    }),
    AGE,
];

const NODES: &[Column] = &[
    NAME,
    column("Status", |node| {
        let ready = match condition(node, "Ready") {
            "True" => "Ready",
            "False" => "NotReady",
            _ => "Unknown",
        };
        let cordoned = at(node, &["spec", "unschedulable"]) == Some(&json!(true));
        json!(if cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() })
    }),
    column("Roles", |node| {
        let labels = at(node, &["metadata", "labels"]).and_then(Value::as_object);
        let roles =
            labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
        json!(or_none(&roles.collect::<Vec<_>>().join(",")))
    }),
    AGE,
    column("Version", |node| json!(text(node, &["status", "nodeInfo", "kubeletVersion"]))),
    wide("Internal-IP", |node| json!(node_address(node, "InternalIP"))),
    wide("External-IP", |node| json!(node_address(node, "ExternalIP"))),
    wide("OS-Image", |node| json!(or_unknown(text(node, &["status", "nodeInfo", "osImage"])))),
    wide("Kernel-Version", |node| json!(or_unknown(text(node, &["status", "nodeInfo", "kernelVersion"])))),
    wide("Container-Runtime", |node| {
        json!(or_unknown(text(node, &["status", "nodeInfo", "containerRuntimeVersion"])))
    }),
];

const NAMESPACES: &[Column] =
    &[NAME, column("Status", |space| json!(text(space, &["status", "phase"]))), AGE];

const CONFIG_MAPS: &[Column] = &[NAME, count("Data", |map| json!(entries(map))), AGE];

const SECRETS: &[Column] = &[
    NAME,
    column("Type", |secret| json!(text(secret, &["type"]))),
    count("Data", |secret| json!(entries(secret))),
    AGE,
];

const DEPLOYMENTS: &[Column] = &[
    NAME,
    column("Ready", |deployment| {
        let ready = number(deployment, &["status", "readyReplicas"]);
        json!(format!("{ready}/{}", number(deployment, &["spec", "replicas"])))
    }),
    count("Up-to-date", |deployment| json!(number(deployment, &["status", "updatedReplicas"]))),
    count("Available", |deployment| json!(number(deployment, &["status", "availableReplicas"]))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const DAEMON_SETS: &[Column] = &[
    NAME,
    count("Desired", |set| json!(number(set, &["status", "desiredNumberScheduled"]))),
    count("Current", |set| json!(number(set, &["status", "currentNumberScheduled"]))),
    count("Ready", |set| json!(number(set, &["status", "numberReady"]))),
    count("Up-to-date", |set| json!(number(set, &["status", "updatedNumberScheduled"]))),
    count("Available", |set| json!(number(set, &["status", "numberAvailable"]))),
    column("Node Selector", |set| json!(labels(at(set, &["spec", "template", "spec", "nodeSelector"])))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SETS: &[Column] = &[
    NAME,
    count("Desired", |set| json!(number(set, &["spec", "replicas"]))),
    count("Current", |set| json!(number(set, &["status", "replicas"]))),
    count("Ready", |set| json!(number(set, &["status", "readyReplicas"]))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const NETWORK_POLICIES: &[Column] = &[
    NAME,
    column("Pod-Selector", |policy| json!(labels(at(policy, &["spec", "podSelector", "matchLabels"])))),
    AGE,
];

const LEASES: &[Column] =
    &[NAME, column("Holder", |lease| json!(text(lease, &["spec", "holderIdentity"]))), AGE];

const EVENTS: &[Column] = &[
    column("Last Seen", |event| {
        let times = [&["lastTimestamp"][..], &["eventTime"], &["metadata", "creationTimestamp"]];
        let seen = times.iter().map(|path| text(event, path)).find(|time| !time.is_empty());
        json!(age(seen.unwrap_or_default()))
    }),
    column("Type", |event| json!(text(event, &["type"]))),
    column("Reason", |event| json!(text(event, &["reason"]))),
    column("Object", |event| {
        let field = if event.get("regarding").is_some() { "regarding" } else { "involvedObject" };
        json!(format!("{}/{}", text(event, &[field, "kind"]).to_lowercase(), text(event, &[field, "name"])))
    }),
    wide("Source", |event| json!(text(event, &["source", "component"]))),
    column("Message", |event| {
        let note = text(event, &["note"]);
        json!(if note.is_empty() { text(event, &["message"]) } else { note })
    }),
    wide("Name", |event| json!(name(event))),
];

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "<unknown>" } else { text }
}

fn number(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

fn entries(object: &Value) -> usize {
    let size = |key: &str| object.get(key).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    size("data") + size("binaryData")
}

fn template_containers(object: &Value) -> &[Value] {
    items(object, &["spec", "template", "spec", "containers"])
}

fn joined(list: &[Value], key: &str) -> String {
    list.iter().map(|element| text(element, &[key])).collect::<Vec<_>>().join(",")
}

fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<_> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or_none(&pairs.join(",")).to_owned()
}

/// Three at most, as kubectl prints them.
fn limited(list: Vec<String>) -> String {
    let more = list.len().saturating_sub(3);
    let shown = list.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match more {
        0 => or_none(&shown).to_owned(),
        more => format!("{shown} + {more} more..."),
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = items(object, &["status", "conditions"]);
    let found = conditions.iter().find(|condition| text(condition, &["type"]) == kind);
    found.map(|condition| text(condition, &["status"])).unwrap_or_default()
}

fn pod_status(pod: &Value) -> &str {
    if !text(pod, &["metadata", "deletionTimestamp"]).is_empty() {
        return "Terminating";
    }
    let waiting = items(pod, &["status", "containerStatuses"]).iter();
    let reason =
        waiting.map(|status| text(status, &["state", "waiting", "reason"])).find(|reason| !reason.is_empty());
    let given = text(pod, &["status", "reason"]);
    let phase = text(pod, &["status", "phase"]);
    reason.unwrap_or(if given.is_empty() { phase } else { given })
}

fn external_ips(service: &Value) -> String {
    let mut ips: Vec<&str> =
        items(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    let ingress = items(service, &["status", "loadBalancer", "ingress"]).iter();
    let balanced = ingress.map(|ingress| match text(ingress, &["ip"]) {
        "" => text(ingress, &["hostname"]),
        ip => ip,
    });
    match text(service, &["spec", "type"]) {
        "ExternalName" => return text(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            ips.splice(0..0, balanced);
            if ips.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    or_none(&ips.join(",")).to_owned()
}

fn service_ports(service: &Value) -> String {
    let show = |port: &Value| {
        let protocol = text(port, &["protocol"]);
        match number(port, &["nodePort"]) {
            0 => format!("{}/{protocol}", number(port, &["port"])),
            node_port => format!("{}:{node_port}/{protocol}", number(port, &["port"])),
        }
    };
    let ports: Vec<_> = items(service, &["spec", "ports"]).iter().map(show).collect();
    or_none(&ports.join(",")).to_owned()
}

fn endpoint_addresses(endpoints: &Value) -> Vec<String> {
    let mut list = Vec::new();
    for subset in items(endpoints, &["subsets"]) {
        for port in items(subset, &["ports"]) {
            let addresses = items(subset, &["addresses"]).iter().map(|address| text(address, &["ip"]));
            let with_port = |ip: &str| match ip.contains(':') {
                true => format!("[{ip}]:{}", number(port, &["port"])),
                false => format!("{ip}:{}", number(port, &["port"])),
            };
            list.extend(addresses.map(with_port));
        }
    }
    list
}

fn node_address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let addresses = items(node, &["status", "addresses"]);
    let found = addresses.iter().find(|address| text(address, &["type"]) == kind);
    found.map_or("<none>", |address| text(address, &["address"]))
}

/// The time since a timestamp.
fn age(timestamp: &str) -> String {
    let Ok(then) = timestamp.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    human_duration(Timestamp::now().as_second().saturating_sub(then.as_second()))
}

/// Seconds as `k8s.io/apimachinery/pkg/util/duration.HumanDuration` writes them.
fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, expected) in [
            (-3, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(human_duration(seconds), expected);
        }
    }

    #[test]
    fn a_service_shows_its_ways_in() {
        let service = json!({"spec": {"type": "LoadBalancer", "externalIPs": ["1.1.1.1"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(service_ports(&service), "80:30080/TCP,53/UDP");
        assert_eq!(external_ips(&service), "1.1.1.1");
        assert_eq!(external_ips(&json!({"spec": {"type": "LoadBalancer"}})), "<pending>");
        assert_eq!(external_ips(&json!({"spec": {"type": "ClusterIP"}})), "<none>");
    }

    #[test]
    fn long_lists_are_cut() {
        let list = |count: usize| (0..count).map(|index| index.to_string()).collect();
        assert_eq!(limited(list(0)), "<none>");
        assert_eq!(limited(list(3)), "0,1,2");
        assert_eq!(limited(list(5)), "0,1,2 + 2 more...");
    }
}
