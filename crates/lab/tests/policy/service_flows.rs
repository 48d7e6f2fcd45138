//! Flows through a Service that exist when a policy changes: IPVS rewrites their packets, and policy is about the pods at
//! both ends. The server sends all the time, so a flow that is only forgotten would begin again from its side.

use std::net::{IpAddr, SocketAddr};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually, is_ready};
use lab::probe::{Hearing, ONCE, Protocol};
use serde_json::{Value, json};

use crate::operator::asked;
use crate::stage::{PATIENCE, SOON, flows, is_cut};
use crate::tables::{NFTABLES, logs};

const FLAGS: [&str; 4] = [
    "--enable-ipv6",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
    "--run-firewall=true",
    "--metrics-port=20241",
];

/// One on the server's node, one on another.
const CLIENTS: [(&str, usize); 2] = [("near", 1), ("far", 2)];

struct Flow {
    about: String,
    client: &'static str,
    protocol: Protocol,
    hearing: Hearing,
}

/// Creates a pod that answers on 8080, TCP and UDP; its label `pod` is its name.
pub(crate) fn pod(cluster: &Cluster, name: &str, node: usize) {
    let ports = ["TCP", "UDP"].map(|protocol| json!({ "containerPort": 8080, "protocol": protocol }));
    let pod = json!({
        "metadata": { "name": name, "namespace": "default", "labels": { "pod": name } },
        "spec": {
            "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "lab", "ports": ports }],
        },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
}

/// Addresses of a pod, IPv4 first.
pub(crate) fn pod_ips(cluster: &Cluster, name: &str) -> Vec<IpAddr> {
    let pod = cluster.api().get(Resource::Pods, Some("default"), name).unwrap();
    let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect()
}

/// Creates or replaces a policy.
pub(crate) fn policy(cluster: &Cluster, name: &str, spec: Value) {
    let policy = json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec });
    let api = cluster.api();
    match api.get(Resource::NetworkPolicies, Some("default"), name) {
        Some(_) => api.update(Resource::NetworkPolicies, policy).unwrap(),
        None => api.create(Resource::NetworkPolicies, policy).unwrap(),
    };
}

/// Waits until every pod is.
pub(crate) async fn ready(cluster: &Cluster) {
    let look = || async {
        let pods = cluster.api().list(Resource::Pods, Some("default"));
        let waiting = pods.iter().find(|pod| !is_ready(pod));
        waiting.map_or(Ok(()), |pod| Err(format!("every pod is ready: {pod}")))
    };
    eventually(SOON, look).await.unwrap();
}

/// Which clients the server takes.
fn server_takes(cluster: &Cluster, peers: Value) {
    let server = json!({ "matchLabels": { "pod": "server" } });
    policy(cluster, "server", json!({ "podSelector": server, "ingress": [{ "from": peers }] }));
}

/// Whom the far client may ask.
fn far_asks(cluster: &Cluster, peers: Value) {
    let far = json!({ "matchLabels": { "pod": "far" } });
    policy(
        cluster,
        "far",
        json!({ "podSelector": far, "policyTypes": ["Egress"], "egress": [{ "to": peers }] }),
    );
}

fn everyone() -> Value {
    json!([{ "podSelector": {} }])
}

fn nobody() -> Value {
    json!([{ "podSelector": { "matchLabels": { "pod": "nobody" } } }])
}

/// A flow of each client, protocol and address of the Service; tried until rules and endpoints are there.
async fn open(cluster: &Cluster, to: &[IpAddr], protocols: &[Protocol]) -> Vec<Flow> {
    let mut opened = Vec::new();
    for (client, _) in CLIENTS {
        let probe = cluster.pod_probe("default", client).unwrap();
        for ip in to {
            for protocol in protocols {
                let about = format!("{client} > {ip} {protocol}");
                let hear = || async {
                    let heard = probe.hear(*protocol, SocketAddr::new(*ip, 80)).await;
                    heard.map_err(|failure| format!("{about}: {failure}"))
                };
                let hearing = eventually(SOON, hear).await;
                let hearing = hearing.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
                opened.push(Flow { about, client, protocol: *protocol, hearing });
            }
        }
    }
    opened
}

async fn expect(cluster: &Cluster, what: &str, all: &[Flow], cut: impl Fn(&Flow) -> bool) {
    let mut wrong = Vec::new();
    for flow in all {
        let about = format!("{what}: {}", flow.about);
        let seen =
            if cut(flow) { is_cut(&about, &flow.hearing).await } else { flows(&about, &flow.hearing).await };
        wrong.extend(seen.err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", logs(cluster));
}

/// What `explain` says of each way through the Service is what packets do.
async fn explain_agrees(cluster: &Cluster, what: &str, to: &[IpAddr], passes: impl Fn(&str) -> bool) {
    for (client, node) in CLIENTS {
        // A refusal of IPv6 is known by silence, a late answer is none.
        let patience = if passes(client) { ONCE } else { PATIENCE };
        let probe = cluster.pod_probe("default", client).unwrap().patience(patience);
        for ip in to {
            for (protocol, name) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
                let line = format!("explain --from default/{client} --to {ip} --port 80 --protocol {name}");
                // The agent of the client's node may hear of the change later than the one that was seen to act.
                let agree = || async {
                    let told = asked(cluster, node, &line);
                    let allowed = told["verdict"] == "allowed";
                    let seen = probe.ask(protocol, SocketAddr::new(*ip, 80)).await;
                    match allowed == passes(client) && seen.is_ok() == passes(client) {
                        true => Ok(told),
                        false => Err(format!("{what}: {line}: {seen:?}, {told:#}")),
                    }
                };
                let told = eventually(SOON, agree).await.unwrap_or_else(|error| panic!("{error}"));
                let backend = &told["paths"][0]["destination_pod"];
                assert_eq!(*backend, "default/server", "{what}: {line}: {told:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn a_policy_cuts_flows_through_a_service() {
    cuts_flows_through_a_service(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn a_policy_cuts_flows_through_a_service_with_nftables() {
    cuts_flows_through_a_service(&[NFTABLES]).await;
}

async fn cuts_flows_through_a_service(more: &[&str]) {
    let flags = FLAGS.iter().chain(more).map(|flag| (*flag).to_owned());
    let mut cluster = Cluster::builder().nodes(2).dual_stack().agent_flags(flags).start().await.unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let ports = ["TCP", "UDP"].map(|protocol| {
        json!({ "name": protocol.to_lowercase(), "port": 80, "targetPort": 8080, "protocol": protocol })
    });
    let service = json!({
        "metadata": { "name": "server", "namespace": "default" },
        "spec": { "selector": { "pod": "server" }, "ipFamilyPolicy": "RequireDualStack", "ports": ports },
    });
    let service = cluster.api().create(Resource::Services, service).unwrap();
    let ips = service["spec"]["clusterIPs"].as_array().unwrap().iter();
    let to: Vec<IpAddr> = ips.map(|ip| ip.as_str().unwrap().parse().unwrap()).collect();
    pod(&cluster, "server", 1);
    CLIENTS.iter().for_each(|(name, node)| pod(&cluster, name, *node));
    ready(&cluster).await;
    server_takes(&cluster, everyone());
    far_asks(&cluster, everyone());

    let both = [Protocol::Tcp, Protocol::Udp];
    let all = open(&cluster, &to, &both).await;
    assert_eq!(all.len(), 8);
    explain_agrees(&cluster, "everyone may", &to, |_| true).await;
    server_takes(&cluster, nobody());
    expect(&cluster, "the server takes nobody", &all, |_| true).await;
    explain_agrees(&cluster, "the server takes nobody", &to, |_| false).await;
    server_takes(&cluster, everyone());
    // Datagrams flow again by themselves; a connection may have been reset or waits out its timer, but a new one opens.
    let (datagrams, connections): (Vec<Flow>, Vec<Flow>) =
        all.into_iter().partition(|flow| flow.protocol == Protocol::Udp);
    expect(&cluster, "the server takes everyone again", &datagrams, |_| false).await;
    drop(connections);
    let mut all = open(&cluster, &to, &[Protocol::Tcp]).await;
    all.extend(datagrams);

    far_asks(&cluster, nobody());
    expect(&cluster, "the far client asks nobody", &all, |flow| flow.client == "far").await;
    explain_agrees(&cluster, "the far client asks nobody", &to, |client| client == "near").await;
    far_asks(&cluster, everyone());
    let datagrams: Vec<Flow> = all.into_iter().filter(|flow| flow.protocol == Protocol::Udp).collect();
    expect(&cluster, "the far client asks everyone again", &datagrams, |_| false).await;
    open(&cluster, &to, &both).await;
}
