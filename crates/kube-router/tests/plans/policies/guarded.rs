//! When a new pod may be let go: with all that decides about it in the kernel, and not a row before.

use std::collections::BTreeSet;

use kube_router::kube::model::{ObjectName, PodUid};
use kube_router::names::{chain, set};
use kube_router::network_policy::Direction;
use kube_router::network_policy::rules::{pod_chain, policy_chain};
use kube_router::store::Announced;
use linux::row::Key;
use serde_json::{Value, json};

use super::node::{HERE, Node};
use super::world::{Change, World};

fn id(name: &str) -> ObjectName {
    ObjectName { namespace: "shop".into(), name: name.into() }
}

fn pod(name: &str, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "metadata": { "namespace": "shop", "name": name, "uid": name, "labels": { "app": name } },
        "spec": { "nodeName": HERE }, "status": { "podIPs": ips },
    })
}

fn world() -> World {
    let mut world = World::default();
    let policy = json!({
        "metadata": { "namespace": "shop", "name": "web" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "db" } } }] }],
        },
    });
    world.policies.insert(("shop".into(), "web".into()), policy);
    world.namespaces.insert("shop".into(), json!({ "metadata": { "name": "shop" } }));
    world.pods.insert(("shop".into(), "db".into()), pod("db", &["10.0.0.9"]));
    world
}

/// The names of chains and sets whose absence keeps the pod waiting.
fn needed(node: &Node, name: &str) -> BTreeSet<String> {
    let keys = node.rows().into_keys();
    let needed = keys.filter(|key| !node.guards(&id(name), |other| other == key));
    needed
        .map(|key| match key {
            Key::Chain(chain) => chain.name.to_string(),
            Key::ForeignRule(chain, _) => chain.name.to_string(),
            Key::Member(set, member) => format!("{} {member}", set.name),
            Key::Verdict(map, ip) => format!("{} {ip}", map.name),
            other => other.to_string(),
        })
        .collect()
}

#[test]
fn an_announced_pod_is_guarded_by_the_rows_that_decide_about_it() {
    let mut node = Node::of(&world(), &["--netpol-default-deny"], false);
    node.change(&Change::Pod("shop".into(), "web".into(), Some(pod("web", &[]))));
    node.plan();
    assert!(!node.guards(&id("web"), |_| false), "it has no address yet");
    node.announce(Announced {
        id: id("web"),
        uid: Some(PodUid::of("web")),
        container: "c1".into(),
        ips: vec!["10.0.0.5".parse().unwrap()],
    });
    assert!(!node.plan().is_empty());
    assert!(node.guards(&id("web"), |_| false));
    let own = ["INPUT", "FORWARD", "OUTPUT", chain::INPUT, chain::FORWARD, chain::OUTPUT];
    let shared = [chain::POLICY_COMMON, chain::POLICY_DEFAULT, chain::POLICY_TAIL];
    let mut expected: BTreeSet<String> = own.iter().chain(&shared).map(|name| (*name).to_owned()).collect();
    expected.insert(pod_chain(&id("web")).to_string());
    expected.extend(Direction::ALL.map(|direction| policy_chain(&id("web"), direction).to_string()));
    expected.insert(format!("{} 10.0.0.5", set::LOCAL_PODS));
    assert_eq!(needed(&node, "web"), expected, "nothing of the pod beside it");

    // A pod that others name: it is not let go before they know it.
    let needs = needed(&node, "db");
    assert!(
        needs.iter().any(|need| need.starts_with(set::SOURCE_PREFIX) && need.ends_with(" 10.0.0.9")),
        "{needs:?}"
    );

    // With another address than the rules are about, as when a sandbox is made anew.
    node.announce(Announced {
        id: id("web"),
        uid: None,
        container: "c2".into(),
        ips: vec!["10.0.0.6".parse().unwrap()],
    });
    assert!(!node.guards(&id("web"), |_| false), "nothing is planned for it");
    node.plan();
    assert!(node.guards(&id("web"), |_| false));
}

#[test]
fn verdict_maps_lead_to_the_pod_or_it_waits() {
    let mut world = world();
    world.pods.insert(("shop".into(), "web".into()), pod("web", &["10.0.0.5"]));
    let node = Node::of(&world, &[], true);
    let needs = needed(&node, "web");
    for map in [set::POD_INGRESS, set::POD_EGRESS] {
        assert!(needs.contains(&format!("{map} 10.0.0.5")), "{needs:?}");
        assert!(!needs.contains(&format!("{map} 10.0.0.9")), "{needs:?}");
    }
    assert!(needs.contains(chain::FORWARD) && needs.contains("FORWARD"), "{needs:?}");
    // What it shares with pods restricted alike, for each direction, and its own that lets it reach itself.
    // And the chains that look into the maps.
    let chains = needs.iter().filter(|need| need.starts_with(chain::POD_PREFIX));
    assert_eq!(chains.count(), 5, "{needs:?}");
}
