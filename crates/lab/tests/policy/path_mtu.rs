//! A path narrower than its ends: the router's "too big" reaches a pod that policies isolate both ways, in either family, and
//! what it sends arrives.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use lab::api_server::Resource;
use lab::cluster::Cluster;
use lab::node::Families;
use lab::probe::Probe;
use lab::process;
use serde_json::json;

use crate::fence::Fence;
use crate::nodes::all;
use crate::service_flows::{pod_ips, ready};
use crate::stage::SOON;
use crate::tables::{NFTABLES, flags, logs};

/// Of the hop behind the router; every other link has 1500. IPv6 wants 1280 at least.
const NARROW: u16 = 1300;
/// Many segments, so that some are too large at first.
const BYTES: usize = 100 * 1024;
/// Of the transfer, and of the lab's servers, which policies leave shut.
const PORTS: [u16; 2] = [80, 81];

/// A pod on `node` whose ports are the shut ones.
fn pod(cluster: &Cluster, name: &str, node: usize) {
    let ports = ["TCP", "UDP"].map(|protocol| json!({ "containerPort": PORTS[1], "protocol": protocol }));
    let pod = json!({
        "metadata": { "namespace": "default", "name": name, "labels": { "pod": name } },
        "spec": {
            "nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "lab", "ports": ports }],
        },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
}

/// Each takes one direction of one peer and nothing else.
fn isolate(cluster: &Cluster) {
    let policy = |name: &str, way: &str, peers: &str, peer: &str| {
        let rule = json!({
            peers: [{ "podSelector": { "matchLabels": { "pod": peer } } }], "ports": [{ "port": PORTS[0] }],
        });
        let mut spec = json!({
            "podSelector": { "matchLabels": { "pod": name } }, "policyTypes": ["Ingress", "Egress"],
        });
        spec[way] = json!([rule]);
        let policy = json!({ "metadata": { "namespace": "default", "name": name }, "spec": spec });
        cluster.api().create(Resource::NetworkPolicies, policy).unwrap();
    };
    policy("sender", "egress", "to", "receiver");
    policy("receiver", "ingress", "from", "sender");
}

/// How many bytes arrive of [`BYTES`].
fn transfer(sender: &Probe, receiver: &Probe, to: SocketAddr) -> std::io::Result<usize> {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let at = SocketAddr::new(any.parse().expect("an address"), to.port());
    let listener =
        receiver.namespace().run(move || TcpListener::bind(at)).expect("the receiver's namespace")?;
    let connect = move || TcpStream::connect_timeout(&to, SOON);
    let mut stream = sender.namespace().run(connect).expect("the sender's namespace")?;
    let (mut accepted, _) = listener.accept()?;
    stream.set_write_timeout(Some(SOON))?;
    accepted.set_read_timeout(Some(SOON))?;
    let receiving = std::thread::spawn(move || {
        let mut all = Vec::new();
        // What arrived before an error counts.
        let _ = accepted.read_to_end(&mut all);
        all.len()
    });
    stream.write_all(&vec![7; BYTES])?;
    stream.shutdown(Shutdown::Write)?;
    Ok(receiving.join().expect("it reads"))
}

/// What the sender's kernel knows of the way.
fn route(sender: &Probe, to: IpAddr) -> String {
    let ask = move || process::run(process::command("ip").args(["route", "get", &to.to_string()]));
    sender.namespace().run(ask).unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_pod_learns_of_a_narrow_path() {
    narrow_path(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_pod_learns_of_a_narrow_path_with_nftables() {
    narrow_path(&[NFTABLES]).await;
}

async fn narrow_path(more: &[&str]) {
    let builder = Cluster::builder().nodes(2).segments(2).families(Families::Dual);
    let mut cluster = builder.agent_flags(flags(Families::Dual, more)).start().await.unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    // The router's link on the second node's side.
    cluster.fabric().namespace().ip(&format!("link set seg1 mtu {NARROW}\n")).unwrap();
    pod(&cluster, "sender", 1);
    pod(&cluster, "receiver", 2);
    ready(&cluster).await;
    let probe = |name: &str| cluster.pod_probe("default", name).unwrap();
    let (sender, receiver) = (probe("sender"), probe("receiver"));
    let (from, to) = (pod_ips(&cluster, "sender"), pod_ips(&cluster, "receiver"));
    let mut fence = Fence::new(&cluster).await;
    all("no policy", &sender, &to, PORTS[1], true).await.unwrap();
    isolate(&cluster);
    fence.pass().await;
    all("isolated", &sender, &to, PORTS[1], false).await.unwrap();
    all("isolated", &receiver, &from, PORTS[1], false).await.unwrap();
    for ip in to {
        let learned = format!("mtu {NARROW}");
        assert!(!route(&sender, ip).contains(&learned), "nobody has said so yet");
        let (sender, receiver) = (sender.clone(), receiver.clone());
        let work = move || {
            let arrived = transfer(&sender, &receiver, SocketAddr::new(ip, PORTS[0]));
            (arrived, route(&sender, ip))
        };
        let (arrived, route) = tokio::task::spawn_blocking(work).await.unwrap();
        assert!(matches!(arrived, Ok(BYTES)), "{ip}: {arrived:?}\n{}", logs(&cluster));
        assert!(route.contains(&learned), "{ip}: {route}");
    }
}
