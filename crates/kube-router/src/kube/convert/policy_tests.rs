//! Network policies as objects: defaults, what absent and empty mean, and that nothing wrong makes anything more open.

use serde_json::{Value, json};

use super::*;
use crate::kube::model::{Labels, NetworkPolicy, Peer, Pod, PolicyPort, PortRange};
use linux::row::{Name, Protocol};

fn policy(spec: Value) -> (NetworkPolicy, Vec<String>) {
    let value = json!({"metadata": {"namespace": "shop", "name": "allow"}, "spec": spec});
    let wire: wire::NetworkPolicy = serde_json::from_value(value).expect("every JSON object is readable");
    let converted = wire.convert(&mut Interner::default());
    let fields = converted.objections.into_iter().map(|objection| objection.field).collect();
    match converted.object {
        Ok(Object::NetworkPolicy(policy)) => (policy, fields),
        other => panic!("not a policy: {other:?}"),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect()
}

#[test]
fn types_default_as_the_api_server_fills_them_in() {
    let types = |spec: Value| {
        let (policy, fields) = policy(spec);
        assert_eq!(fields, Vec::<String>::new());
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(types(json!({"podSelector": {}})), (true, false));
    assert_eq!(types(json!({"podSelector": {}, "ingress": [{}]})), (true, false));
    assert_eq!(types(json!({"podSelector": {}, "egress": []})), (true, false));
    assert_eq!(types(json!({"podSelector": {}, "egress": [{}]})), (true, true));
    assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]})), (false, true));
    assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})), (true, true));
}

#[test]
fn absent_and_empty_mean_what_the_api_says() {
    let (all, _) =
        policy(json!({"podSelector": {}, "ingress": [{}, {"from": [], "ports": []}, {"from": null}]}));
    for rule in all.ingress.expect("ingress") {
        assert_eq!((rule.peers, rule.ports), (None, None));
    }
    let (none, _) = policy(json!({"podSelector": {}, "ingress": []}));
    assert_eq!(none.ingress, Some(Vec::new()));
    let (peers, _) = policy(json!({"podSelector": {}, "ingress": [{"from": [
        {"podSelector": {}}, {"namespaceSelector": {}}, {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}]}]}));
    let [rule] = peers.ingress.expect("ingress").try_into().expect("one rule");
    let found: Vec<(bool, String)> = rule
        .peers
        .expect("peers")
        .into_iter()
        .map(|peer| match peer {
            Peer::Pods { namespaces, pods } => (namespaces.is_some(), pods.to_string()),
            Peer::Block { .. } => panic!("a block"),
        })
        .collect();
    assert_eq!(found, [(false, String::new()), (true, String::new()), (true, "a in (b)".to_owned())]);
}

#[test]
fn ports_of_every_kind() {
    let (policy, fields) = policy(json!({"podSelector": {}, "egress": [{"ports": [
        {"port": 80}, {"protocol": "UDP", "port": 100, "endPort": 200}, {"protocol": "SCTP"}, {"port": "web"}]}]}));
    assert_eq!(fields, Vec::<String>::new());
    let ports = policy.egress.expect("egress").remove(0).ports.expect("ports");
    let port = |protocol, port| PolicyPort { protocol, port };
    assert_eq!(
        ports,
        [
            port(Protocol::Tcp, PortRange::Numbers(80, 80)),
            port(Protocol::Tcp, PortRange::Named("web".into())),
            port(Protocol::Udp, PortRange::Numbers(100, 200)),
            port(Protocol::Sctp, PortRange::Any),
        ]
    );
}

/// A rule of nothing but broken parts permits nothing; it does not become a rule without restrictions.
#[test]
fn what_cannot_be_read_permits_nothing() {
    let peers = [
        json!("x"),
        json!([null]),
        json!([{}]),
        json!([7]),
        json!([{"podSelector": 5}]),
        json!([{"podSelector": {"matchLabels": {"a": 5}}}]),
        json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near", "values": ["b"]}]}}]),
        json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]),
        json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}]),
        json!([{"podSelector": {"matchExpressions": "x"}}]),
        json!([{"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]),
        json!([{"ipBlock": {"cidr": "10.0.0.0/33"}}]),
        json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0"]}}]),
        json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.1.0.0/16"}}]),
        json!([{"ipBlock": 7}]),
    ];
    for from in peers {
        let (policy, fields) = policy(json!({"podSelector": {}, "ingress": [{"from": from}]}));
        let rule = policy.ingress.expect("ingress").remove(0);
        assert_eq!(rule.peers, Some(Vec::new()), "{from}");
        assert_eq!(fields.len(), 1, "{from}: one objection, not {fields:?}");
    }
    let ports = [
        json!("x"),
        json!([{"protocol": "ICMP"}]),
        json!([{"port": 0}]),
        json!([{"port": 70000}]),
        json!([{"port": ""}]),
        json!([{"port": true}]),
        json!([{"port": 80, "endPort": 79}]),
        json!([{"port": 80, "endPort": 70000}]),
        json!([{"port": 80, "endPort": "x"}]),
        json!([{"port": "web", "endPort": 90}]),
        json!([{"endPort": 90}]),
    ];
    for ports in ports {
        let (policy, fields) = policy(json!({"podSelector": {}, "ingress": [{"ports": ports}]}));
        let rule = policy.ingress.expect("ingress").remove(0);
        assert_eq!(rule.ports, Some(Vec::new()), "{ports}");
        assert_eq!(fields.len(), 1, "{ports}: one objection, not {fields:?}");
    }
}

#[test]
fn the_rest_of_a_broken_policy_is_used() {
    let (policy, fields) =
        policy(json!({"podSelector": {}, "policyTypes": ["Ingress", "Sideways"], "ingress": [
        {"from": [{"ipBlock": {"cidr": "nonsense"}}, {"podSelector": {}}]}]}));
    assert_eq!(fields, ["spec.policyTypes[1]", "spec.ingress[0].from[0].ipBlock.cidr"]);
    assert_eq!(policy.ingress.expect("ingress").remove(0).peers.expect("peers").len(), 1);
}

/// Whom it isolates is not known, so it isolates all that it may mean, and permits them nothing.
#[test]
fn a_policy_with_a_broken_target_isolates_and_permits_nothing() {
    let broken =
        json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Near"}]});
    let (policy, fields) = policy(json!({"podSelector": broken, "egress": [{}], "ingress": [{}]}));
    assert_eq!(fields, ["spec.podSelector.matchExpressions[0].operator"]);
    assert!(policy.target.matches(&labels(&[("app", "web"), ("tier", "x")])));
    assert!(!policy.target.matches(&labels(&[("app", "db")])));
    assert_eq!((policy.ingress, policy.egress), (Some(Vec::new()), Some(Vec::new())));
}

#[test]
fn excepts_outside_of_their_block_are_said_and_change_nothing() {
    let block =
        json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "0.0.0.0/0"]});
    let (policy, fields) = policy(json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}));
    let place = |number| format!("spec.ingress[0].from[0].ipBlock.except[{number}]");
    assert_eq!(fields, [place(0), place(3)]);
    let net = |text: &str| text.parse().expect("a prefix");
    let peers = policy.ingress.expect("ingress").remove(0).peers.expect("peers");
    let except = vec![net("0.0.0.0/0"), net("10.1.0.0/16")];
    assert_eq!(peers, [Peer::Block { net: net("10.0.0.0/8"), except }]);
}

#[test]
fn ports_of_containers_and_of_sidecars_have_names() {
    let value = json!({
        "metadata": {"namespace": "shop", "name": "web-0", "labels": {"app": "web"}},
        "spec": {
            "containers": [{"ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090},
                                      {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                           {"ports": [{"name": "web", "containerPort": 1}]}],
            "initContainers": [{"restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15001}]},
                               {"ports": [{"name": "over", "containerPort": 2}]}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    });
    let mut names = Interner::default();
    let mut pod = || -> Pod {
        let wire: wire::Pod = serde_json::from_value(value.clone()).expect("readable");
        match wire.convert(&mut names).object {
            Ok(Object::Pod(pod)) => pod,
            other => panic!("not a pod: {other:?}"),
        }
    };
    let (one, other) = (pod(), pod());
    let ports: Vec<(&str, u16)> = one.ports.iter().map(|port| (&*port.name, port.port)).collect();
    assert_eq!(ports, [("dns", 53), ("mesh", 15001), ("web", 8080)], "the first of two of one name counts");
    assert_eq!(one.labels, labels(&[("app", "web")]));
    assert!(
        std::sync::Arc::ptr_eq(&one.ports, &other.ports),
        "pods of one template share what they have alike"
    );
}
