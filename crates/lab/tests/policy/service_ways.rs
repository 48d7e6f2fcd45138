//! Every way in to a Service, under policies: cluster IP, node port, external and load-balancer address, from pods, nodes
//! and outside. A policy judges what they lead to, the pod behind with its own port, so a case says who may and holds for
//! every way. A pod reaches itself by each of them whatever isolates it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::api_server::Resource;
use lab::cluster::{Cluster, attempts, eventually};
use lab::probe::{Outcome, Probe, Protocol, matrix};
use serde_json::{Value, json};

use crate::service_flows::{pod, pod_ips, policy, ready};
use crate::stage::SOON;
use crate::tables::{NFTABLES, logs};

const FLAGS: [&str; 6] = [
    "--enable-ipv6",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--service-external-ip-range=203.0.113.0/24,fd03::/112",
    "--loadbalancer-ip-range=198.51.100.0/24,fd98::/112",
    "--run-firewall=true",
    "--metrics-port=20241",
];

/// External IPs of the Service, IPv4 first.
const EXTERNAL: [&str; 2] = ["203.0.113.9", "fd03::9"];
/// How long a question waits at first: an emulated processor is slow, and a refused IPv6 connection is known by silence.
const PATIENCE: Duration = Duration::from_secs(2);
/// And at last.
const LATEST: Duration = Duration::from_secs(15);

/// Who asks: pods beside the server and on the other node, the host outside through the server's node and through the
/// other one (which masquerades it as itself), both nodes, the server itself, and what the server asks of another pod.
const EVERYONE: [&str; 8] =
    ["near", "far", "outside", "through node-2", "node-1", "node-2", "itself", "the server"];

/// One question, whose answer counts only if it is by the pod that was meant.
struct Cell {
    who: &'static str,
    way: &'static str,
    question: (Probe, Protocol, SocketAddr),
    by: &'static str,
}

impl Cell {
    /// What is wrong with an outcome, if anybody but these passes, or one of these does not.
    fn objection(&self, outcome: &Outcome, pass: &[&str]) -> Option<String> {
        let passes = matches!(outcome, Ok(answer) if answer.by == self.by);
        let (_, protocol, to) = &self.question;
        let wanted = if pass.contains(&self.who) { "passes" } else { "is refused" };
        (passes != pass.contains(&self.who))
            .then(|| format!("{} by {}, {protocol} to {to}, {wanted}: {outcome:?}", self.who, self.way))
    }
}

/// The Service as clients of one family see it.
struct Ways {
    cluster: IpAddr,
    external: IpAddr,
    balanced: IpAddr,
    /// Of both nodes.
    nodes: [IpAddr; 2],
    /// TCP and UDP.
    node_ports: [u16; 2],
}

impl Ways {
    fn of(cluster: &Cluster, service: &Value, balanced: &[IpAddr], family: usize) -> Self {
        let node_port = |at: usize| service["spec"]["ports"][at]["nodePort"].as_u64().unwrap();
        let given = service["spec"]["clusterIPs"][family].as_str().unwrap();
        Self {
            cluster: given.parse().unwrap(),
            external: EXTERNAL[family].parse().unwrap(),
            balanced: *balanced.iter().find(|ip| ip.is_ipv4() == (family == 0)).unwrap(),
            nodes: [1, 2].map(|node| cluster.node(node).unwrap().addresses()[family]),
            node_ports: [0, 1].map(|at| node_port(at).try_into().unwrap()),
        }
    }

    /// Name, address, and the ports of TCP and UDP; the node port is that of node 1 or 2.
    fn all(&self, node: usize) -> [(&'static str, IpAddr, [u16; 2]); 4] {
        [
            ("cluster IP", self.cluster, [80, 80]),
            ("node port", self.nodes[node - 1], self.node_ports),
            ("external IP", self.external, [80, 80]),
            ("load-balancer IP", self.balanced, [80, 80]),
        ]
    }
}

/// Every question of one family. `far` is the address of the pod that the server asks.
fn cells(cluster: &Cluster, ways: &Ways, far: IpAddr) -> Vec<Cell> {
    let inside = |name: &str| cluster.pod_probe("default", name).unwrap_or_else(|| panic!("{name} runs"));
    let host = |node: usize| cluster.node_probe(node).unwrap();
    let near_node = ways.all(1);
    let far_node = ways.all(2);
    let asked = vec![
        ("near", inside("near"), near_node.to_vec(), "server"),
        ("far", inside("far"), far_node.to_vec(), "server"),
        // Nobody routes cluster IPs out of the cluster.
        ("outside", cluster.outside_probe(), near_node[1..].to_vec(), "server"),
        ("through node-2", cluster.outside_probe(), far_node[1..2].to_vec(), "server"),
        ("node-1", host(1), near_node[..1].to_vec(), "server"),
        ("node-2", host(2), far_node[..1].to_vec(), "server"),
        // Hairpin of load-balancer addresses is nothing a Service can ask for.
        ("itself", inside("server"), near_node[..3].to_vec(), "server"),
        ("the server", inside("server"), vec![("its own address", far, [8080, 8080])], "far"),
    ];
    let mut cells = Vec::new();
    for (who, probe, ways, by) in asked {
        for (way, ip, ports) in ways {
            for (protocol, port) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(ports) {
                let question = (probe.clone(), protocol, SocketAddr::new(ip, port));
                cells.push(Cell { who, way, question, by });
            }
        }
    }
    cells
}

/// Asks everything until those pass that should, and nobody else.
async fn holds(about: &str, cells: &[Cell], pass: &[&str]) -> Result<(), String> {
    let look = |attempt| async move {
        let patience = LATEST.min(PATIENCE * (attempt + 1));
        let ask = |cell: &Cell| {
            let (probe, protocol, to) = &cell.question;
            (probe.clone().patience(patience), *protocol, *to)
        };
        let questions: Vec<_> = cells.iter().map(ask).collect();
        let outcomes = matrix(&questions).await;
        let both = cells.iter().zip(&outcomes);
        let wrong: Vec<String> = both.filter_map(|(cell, outcome)| cell.objection(outcome, pass)).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{about}: {wrong:#?}")) }
    };
    attempts(SOON, look).await.map_err(|error| error.to_string())
}

/// A step: which policies the server and the far client have, and who passes then.
struct Case {
    about: &'static str,
    server: Option<Value>,
    far: Option<Value>,
    pass: Vec<&'static str>,
}

fn everyone_but(these: &[&str]) -> Vec<&'static str> {
    EVERYONE.into_iter().filter(|who| !these.contains(who)).collect()
}

/// The table. A node always reaches its own pods, and a pod itself.
fn cases(blocks: impl Fn(&str) -> Value) -> Vec<Case> {
    let pods = |name: &str| json!([{ "podSelector": { "matchLabels": { "pod": name } } }]);
    let takes = |from: Value| {
        Some(
            json!({ "podSelector": { "matchLabels": { "pod": "server" } }, "policyTypes": ["Ingress"], "ingress": [{ "from": from }] }),
        )
    };
    let isolated = |types: &[&str]| {
        Some(json!({ "podSelector": { "matchLabels": { "pod": "server" } }, "policyTypes": types }))
    };
    let asks = |to: Value| {
        Some(
            json!({ "podSelector": { "matchLabels": { "pod": "far" } }, "policyTypes": ["Egress"], "egress": [{ "to": to }] }),
        )
    };
    let always = ["node-1", "itself", "the server"];
    let with = |more: &[&'static str]| more.iter().chain(&always).copied().collect::<Vec<_>>();
    let case = |about, server, far, pass| Case { about, server, far, pass };
    vec![
        case("no policy", None, None, everyone_but(&[])),
        case("the server takes a pod", takes(pods("near")), None, with(&["near"])),
        case("the server takes a block: outside", takes(blocks("outside")), None, with(&["outside"])),
        case(
            "the server takes a block: the other node",
            takes(blocks("node-2")),
            None,
            with(&["node-2", "through node-2"]),
        ),
        case("the server takes nobody", isolated(&["Ingress"]), None, with(&[])),
        case("the server asks nobody", isolated(&["Egress"]), None, everyone_but(&["the server"])),
        case("the server is isolated", isolated(&["Ingress", "Egress"]), None, vec!["node-1", "itself"]),
        case("a client asks nobody", None, asks(pods("nobody")), everyone_but(&["far"])),
        case("a client asks the pod behind", None, asks(pods("server")), everyone_but(&[])),
        case("a client asks a block: the Service", None, asks(blocks("service")), everyone_but(&["far"])),
        case("a client asks a block: the pod", None, asks(blocks("server")), everyone_but(&[])),
    ]
}

/// Peers by block: one for each address.
fn peers(addresses: &[IpAddr]) -> Value {
    let block = |ip: &IpAddr| json!({ "ipBlock": { "cidr": ipnet::IpNet::from(*ip).to_string() } });
    json!(addresses.iter().map(block).collect::<Vec<_>>())
}

fn put(cluster: &Cluster, name: &str, spec: Option<&Value>) {
    match spec {
        Some(spec) => policy(cluster, name, spec.clone()),
        // It may be none there.
        None => drop(cluster.api().delete(Resource::NetworkPolicies, Some("default"), name, None)),
    }
}

/// The Service, with an address of each kind and family. Its load-balancer addresses are given by the cloud.
async fn service(cluster: &Cluster) -> (Value, Vec<IpAddr>) {
    let ports = ["TCP", "UDP"].map(|protocol| {
        json!({ "name": protocol.to_lowercase(), "port": 80, "targetPort": 8080, "protocol": protocol })
    });
    let annotations = json!({
        "kube-router.io/service.hairpin": "", "kube-router.io/service.hairpin.externalips": "",
    });
    let service = json!({
        "metadata": { "name": "server", "namespace": "default", "annotations": annotations },
        "spec": {
            "type": "LoadBalancer", "selector": { "pod": "server" }, "ipFamilyPolicy": "RequireDualStack",
            "externalIPs": EXTERNAL, "ports": ports,
        },
    });
    cluster.api().create(Resource::Services, service).unwrap();
    let look = || async {
        let service = cluster.api().get(Resource::Services, Some("default"), "server").unwrap();
        let given = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let balanced: Vec<IpAddr> = given.iter().filter_map(|one| one["ip"].as_str()?.parse().ok()).collect();
        match balanced.len() {
            2 => Ok(((*service).clone(), balanced)),
            _ => Err(format!("the Service has load-balancer addresses: {service}")),
        }
    };
    eventually(SOON, look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn policies_hold_by_every_way_in() {
    every_way_in(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn policies_hold_by_every_way_in_with_nftables() {
    every_way_in(&[NFTABLES]).await;
}

async fn every_way_in(more: &[&str]) {
    let flags = FLAGS.iter().chain(more).map(|flag| (*flag).to_owned());
    let mut cluster = Cluster::builder().nodes(2).dual_stack().agent_flags(flags).start().await.unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let (service, balanced) = service(&cluster).await;
    for (name, node) in [("server", 1), ("near", 1), ("far", 2)] {
        pod(&cluster, name, node);
    }
    ready(&cluster).await;
    for range in ["203.0.113.0/24", "fd03::/112", "198.51.100.0/24", "fd98::/112"] {
        cluster.outside().route(&range.parse().unwrap(), cluster.node(1).unwrap()).unwrap();
    }
    let far = pod_ips(&cluster, "far");
    let families = [0, 1].map(|family| Ways::of(&cluster, &service, &balanced, family));
    let cells: Vec<Cell> =
        families.iter().zip(&far).flat_map(|(ways, far)| cells(&cluster, ways, *far)).collect();
    let addresses = |whom: &str| match whom {
        "outside" => peers(&cluster.outside().addresses()),
        "node-2" => peers(&cluster.node(2).unwrap().addresses()),
        "server" => peers(&pod_ips(&cluster, "server")),
        _ => {
            let all = families.iter().flat_map(|ways| ways.all(2).map(|(_, ip, _)| ip));
            peers(&all.collect::<Vec<_>>())
        }
    };
    let mut wrong = Vec::new();
    for case in cases(addresses) {
        put(&cluster, "server", case.server.as_ref());
        put(&cluster, "far", case.far.as_ref());
        wrong.extend(holds(case.about, &cells, &case.pass).await.err());
        assert!(wrong.len() < 3, "enough: {wrong:#?}\n{}", logs(&cluster));
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(&cluster));
}
