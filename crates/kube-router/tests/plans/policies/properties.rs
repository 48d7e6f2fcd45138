//! Random clusters, policies and orders of events: evaluation and rows are what the API text says, and what was reached
//! step by step is what would have been planned from scratch.

use std::net::IpAddr;

use kube_router::network_policy::Packet;
use linux::row::Protocol;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::chains;
use super::naive;
use super::node::{HERE, NODE_IPS, Node};
use super::world::{Change, World};

const NAMESPACES: usize = 3;
const PODS: usize = 3;
const POLICIES: usize = 3;
const FLAGS: [&str; 3] =
    ["--enable-ipv6", "--service-cluster-ip-range=10.96.0.0/12,fd00:96::/112", "--run-router=false"];

fn labels() -> impl Strategy<Value = Value> {
    (prop::option::of(select(&["a", "b"][..])), prop::option::of(select(&["x", "y"][..]))).prop_map(
        |(app, tier)| {
            let mut labels = Map::new();
            labels.extend(app.map(|app| ("app".to_owned(), json!(app))));
            labels.extend(tier.map(|tier| ("tier".to_owned(), json!(tier))));
            Value::Object(labels)
        },
    )
}

fn selector() -> impl Strategy<Value = Value> {
    let values = prop::collection::vec(select(&["a", "b", "x", "y"][..]), 1..3);
    let expression =
        (select(&["app", "tier"][..]), select(&["In", "NotIn", "Exists", "DoesNotExist"][..]), values)
            .prop_map(|(key, operator, values)| match operator {
                "In" | "NotIn" => json!({"key": key, "operator": operator, "values": values}),
                _ => json!({"key": key, "operator": operator}),
            });
    prop_oneof![
        2 => Just(json!({})),
        3 => labels().prop_map(|labels| json!({"matchLabels": labels})),
        3 => prop::collection::vec(expression, 1..3).prop_map(|list| json!({"matchExpressions": list})),
    ]
}

const BLOCKS: &[(&str, &[&str])] = &[
    ("10.0.0.0/24", &[]),
    ("10.0.0.0/24", &["10.0.0.0/28"]),
    ("10.0.0.0/28", &["10.0.0.2/32", "10.0.0.4/31"]),
    ("0.0.0.0/0", &["10.0.0.0/8"]),
    ("0.0.0.0/0", &[]),
    ("::/0", &["fd00::10/124"]),
    ("fd00::/112", &[]),
];
const TYPES: &[&[&str]] = &[&[], &["Ingress"], &["Egress"], &["Ingress", "Egress"]];

fn peer() -> impl Strategy<Value = Value> {
    let block = select(BLOCKS);
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(namespaces, pods)| json!({"namespaceSelector": namespaces, "podSelector": pods})),
        block.prop_map(|(cidr, except)| json!({"ipBlock": {"cidr": cidr, "except": except}})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"protocol": "TCP", "port": 80})),
        Just(json!({"protocol": "UDP", "port": 53})),
        Just(json!({"protocol": "TCP", "port": 79, "endPort": 81})),
        Just(json!({"protocol": "SCTP"})),
        Just(json!({"protocol": "TCP", "port": "web"})),
        Just(json!({"protocol": "UDP", "port": "web"})),
        Just(json!({"port": "nobody"})),
    ]
}

fn rules(way: &'static str) -> impl Strategy<Value = Value> {
    let list = |one| prop::option::of(prop::collection::vec(one, 0..3));
    let rule = (list(peer().boxed()), list(port().boxed())).prop_map(move |(peers, ports)| {
        let mut rule = Map::new();
        rule.extend(peers.map(|peers| (way.to_owned(), json!(peers))));
        rule.extend(ports.map(|ports| ("ports".to_owned(), json!(ports))));
        Value::Object(rule)
    });
    prop_oneof![1 => Just(Value::Null), 4 => prop::collection::vec(rule, 0..3).prop_map(|rules| json!(rules))]
}

fn policy(namespace: String, name: String) -> impl Strategy<Value = Value> {
    let types = select(TYPES);
    (selector(), types, rules("from"), rules("to")).prop_map(move |(target, types, ingress, egress)| {
        json!({"metadata": {"namespace": namespace, "name": name},
               "spec": {"podSelector": target, "policyTypes": types, "ingress": ingress, "egress": egress}})
    })
}

fn ips(namespace: usize, pod: usize) -> [String; 2] {
    let last = namespace * PODS + pod + 1;
    [format!("10.0.0.{last}"), format!("fd00::{last:x}")]
}

fn pod(namespace: usize, number: usize) -> impl Strategy<Value = Value> {
    let web = json!([{"ports": [{"name": "web", "containerPort": 80}]}]);
    let other = json!([{"ports": [{"name": "web", "containerPort": 53, "protocol": "UDP"}]}]);
    let sidecar = json!([{"restartPolicy": "Always", "ports": [{"name": "web", "containerPort": 81}]}]);
    let ports =
        select(vec![(json!([]), json!([])), (web, json!([])), (other, json!([])), (json!([]), sidecar)]);
    let special = prop_oneof![8 => Just(("Running", false, 2)), 1 => Just(("Running", false, 1)), 1 => Just(("Running", false, 0)),
                              1 => Just(("Succeeded", false, 2)), 1 => Just(("Running", true, 2))];
    // Every other pod may be on its way out, and its addresses the next one's already.
    let heir = if number.is_multiple_of(2) && number + 1 < PODS {
        prop_oneof![3 => Just(None), 1 => Just(Some(number + 1))].boxed()
    } else {
        Just(None).boxed()
    };
    let parts = (labels(), any::<bool>(), special, ports, heir);
    parts.prop_map(move |(labels, here, (phase, host, families), (containers, inits), heir)| {
        let ips = ips(namespace, heir.unwrap_or(number));
        let ips: Vec<Value> = ips.iter().take(families).map(|ip| json!({"ip": ip})).collect();
        let deleted = heir.map(|_| "2026-01-01T00:00:00Z");
        json!({"metadata": {"namespace": format!("ns{namespace}"), "name": format!("pod{number}"), "labels": labels,
                            "deletionTimestamp": deleted},
               "spec": {"nodeName": if here { HERE } else { "there" }, "hostNetwork": host,
                        "containers": containers, "initContainers": inits},
               "status": {"phase": phase, "podIPs": ips}})
    })
}

fn change() -> impl Strategy<Value = Change> {
    let namespace = (0..NAMESPACES, prop::option::weighted(0.9, labels())).prop_map(|(number, labels)| {
        let name = format!("ns{number}");
        let object = labels.map(|labels| json!({"metadata": {"name": name, "labels": labels}}));
        Change::Namespace(name, object)
    });
    let pod = (0..NAMESPACES, 0..PODS).prop_flat_map(|(namespace, number)| {
        prop::option::weighted(0.8, pod(namespace, number))
            .prop_map(move |object| Change::Pod(format!("ns{namespace}"), format!("pod{number}"), object))
    });
    let policy = (0..NAMESPACES, 0..POLICIES).prop_flat_map(|(namespace, number)| {
        let (namespace, name) = (format!("ns{namespace}"), format!("policy{number}"));
        prop::option::weighted(0.8, policy(namespace.clone(), name.clone()))
            .prop_map(move |object| Change::Policy(namespace.clone(), name.clone(), object))
    });
    prop_oneof![1 => namespace, 4 => pod, 3 => policy]
}

/// Everybody's address, and one that nobody has.
fn addresses() -> Vec<IpAddr> {
    let pods = (0..NAMESPACES).flat_map(|namespace| (0..PODS).flat_map(move |pod| ips(namespace, pod)));
    let others = ["10.0.0.200", "198.51.100.7", "fd00::ffff", "2001:db8::7"].map(str::to_owned);
    pods.chain(others).map(|ip| ip.parse().unwrap()).collect()
}

const ASKED: [(Option<Protocol>, u16); 6] = [
    (Some(Protocol::Tcp), 80),
    (Some(Protocol::Tcp), 81),
    (Some(Protocol::Udp), 53),
    (Some(Protocol::Udp), 80),
    (Some(Protocol::Sctp), 80),
    (None, 0),
];

/// Every pair at every port: evaluated, in rows, and by the text.
fn check(node: &Node, world: &World) -> Result<(), TestCaseError> {
    let rows = node.rows();
    let here = |ip| naive::pods_at(world, ip).any(|(_, pod)| pod["spec"]["nodeName"] == HERE);
    for source in addresses() {
        for destination in addresses().into_iter().filter(|ip| ip.is_ipv4() == source.is_ipv4()) {
            for (protocol, port) in ASKED {
                let name = protocol.map(|protocol| protocol.as_str().to_uppercase());
                let asked = naive::Packet { source, destination, protocol: name.as_deref(), port };
                let (leaves, enters) = naive::allowed(world, asked);
                let packet = Packet { source, destination, protocol, port, from_own_node: false };
                let verdict = node.policies.index().evaluate(&packet);
                prop_assert_eq!(verdict.egress.passes(), leaves, "egress of {:?}: {:?}", packet, verdict);
                prop_assert_eq!(verdict.ingress.passes(), enters, "ingress of {:?}: {:?}", packet, verdict);
                let wanted = (leaves || !here(source)) && (enters || !here(destination));
                prop_assert_eq!(node.policies.index().passes_here(&packet), wanted, "{:?}", packet);
                let forwarded = chains::forwards(&rows, source, destination, protocol, port);
                prop_assert_eq!(forwarded, wanted, "rows of {:?}: {:?}", packet, verdict);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_pass_as_the_api_says_whatever_happened_before(
        steps in prop::collection::vec((change(), any::<bool>()), 1..30),
        maps in any::<bool>(),
    ) {
        let mut world = World::default();
        let mut heard = Vec::new();
        for number in 0..NAMESPACES {
            let name = format!("ns{number}");
            let change = Change::Namespace(name.clone(), Some(json!({"metadata": {"name": name}})));
            world.change(&change);
            heard.push(change);
        }
        let mut node = Node::of(&world, &FLAGS, maps);
        heard.extend(steps.iter().map(|(change, _)| change.clone()));
        for (change, plan) in steps {
            world.change(&change);
            node.change(&change);
            if plan {
                node.plan();
            }
        }
        node.plan();
        check(&node, &world)?;
        let from_scratch = Node::of(&world, &FLAGS, maps);
        prop_assert_eq!(node.claims_by_owner(), from_scratch.claims_by_owner());
        let standing = |node: &Node| node.objections.iter().map(ToString::to_string).collect::<Vec<_>>();
        prop_assert_eq!(standing(&node), standing(&from_scratch));
        let as_listed = Node::that_heard(&heard, &FLAGS, maps);
        prop_assert_eq!(as_listed.claims_by_owner(), from_scratch.claims_by_owner());
    }
}

/// More than is planned at a time; that members come behind their sets is looked after by the node.
#[test]
fn a_large_start_is_planned_in_parts_and_loses_nothing() {
    let mut world = World::default();
    let name = |number: usize| format!("pod{number}");
    let peers = json!([{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]);
    let policy =
        json!({"metadata": {"namespace": "ns0", "name": "p"}, "spec": {"podSelector": {}, "ingress": peers}});
    world.change(&Change::Policy("ns0".into(), "p".into(), Some(policy)));
    for number in 0..3_000_usize {
        let [low, high] = [number % 256, number / 256];
        let pod = json!({"metadata": {"namespace": "ns0", "name": name(number), "labels": {"app": "a"}},
                         "spec": {"nodeName": if number < 50 { HERE } else { "there" }},
                         "status": {"podIPs": [{"ip": format!("10.1.{high}.{low}")}]}});
        world.change(&Change::Pod("ns0".into(), name(number), Some(pod)));
    }
    let node = Node::of(&world, &FLAGS, true);
    let owners = |text: &str| node.wanted.keys().filter(|owner| owner.to_string().starts_with(text)).count();
    assert_eq!((owners("set members of pod"), owners("network policy of pod")), (3_000, 50));
}

#[test]
fn the_own_node_reaches_its_pods_whatever_policies_say() {
    let pod = json!({"metadata": {"namespace": "ns0", "name": "pod0"}, "spec": {"nodeName": HERE},
                     "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    let deny = json!({"metadata": {"namespace": "ns0", "name": "deny"}, "spec": {"podSelector": {}}});
    let mut world = World::default();
    world.change(&Change::Pod("ns0".into(), "pod0".into(), Some(pod)));
    world.change(&Change::Policy("ns0".into(), "deny".into(), Some(deny)));
    for maps in [false, true] {
        let node = Node::of(&world, &FLAGS, maps);
        for (own, pod, other) in
            [(NODE_IPS[0], "10.0.0.1", "192.0.2.2"), (NODE_IPS[1], "fd00::1", "fd00:192::2")]
        {
            let (own, pod, other) = (own.parse().unwrap(), pod.parse().unwrap(), other.parse().unwrap());
            assert!(chains::forwards(&node.rows(), own, pod, Some(Protocol::Tcp), 80));
            assert!(!chains::forwards(&node.rows(), other, pod, Some(Protocol::Tcp), 80));
        }
    }
}
