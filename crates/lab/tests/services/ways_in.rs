//! Every way in, from everywhere: cluster IP, node port, external and load-balancer address, three protocols, two
//! families.

use std::net::{IpAddr, SocketAddr};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Failure, Probe, Protocol};
use serde_json::{Value, json};

use crate::setup::{
    Cell, PORTS, SOON, cluster, cluster_ips, fails, in_pod, metric, node_port, pod, programmed, reach, ready,
    service, tool, until,
};

const BACKENDS: [&str; 2] = ["web-1", "web-2"];

/// `probe` to each address on every protocol's port.
fn every_protocol(probe: &Probe, addresses: &[IpAddr]) -> Vec<Cell> {
    let all = addresses.iter().flat_map(|ip| PORTS.iter().map(move |(protocol, port)| (*ip, protocol, port)));
    all.map(|(ip, protocol, port)| (probe.clone(), *protocol, SocketAddr::new(ip, *port))).collect()
}

/// `probe` to each address on every protocol's node port.
fn every_node_port(probe: &Probe, addresses: &[IpAddr], service: &Value) -> Vec<Cell> {
    let ports = PORTS.iter().enumerate().map(|(index, (protocol, _))| (*protocol, node_port(service, index)));
    let all = ports.flat_map(|(protocol, port)| {
        addresses.iter().map(move |ip| (probe.clone(), protocol, SocketAddr::new(*ip, port)))
    });
    all.collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn every_way_in_reaches_every_backend() {
    let mut cluster = cluster(2, &[]).await;
    let web = service(
        &cluster,
        "web",
        "web",
        json!({ "spec": { "type": "LoadBalancer", "externalIPs": [
            "203.0.113.5", "fd03::5", "192.0.2.5", "10.96.200.200",
        ] } }),
    );
    for (name, node, app) in
        [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client"), ("c-2", 2, "client")]
    {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1", "c-2"]).await;

    let inside: Vec<Probe> = [in_pod(&cluster, "c-1"), in_pod(&cluster, "c-2")]
        .into_iter()
        .chain([cluster.node_probe(1).unwrap(), cluster.node_probe(2).unwrap()])
        .collect();
    let cells: Vec<Cell> =
        inside.iter().flat_map(|probe| every_protocol(probe, &cluster_ips(&web))).collect();
    assert_eq!(cells.len(), 24);
    reach("cluster IPs from pods and nodes", &cells, &BACKENDS).await;
    counters_are_the_kernels(&cluster, &web).await;

    let outside = cluster.outside_probe();
    let addresses: Vec<IpAddr> = cluster.nodes().iter().flat_map(|node| node.addresses()).collect();
    let cells = every_node_port(&outside, &addresses, &web);
    assert_eq!(cells.len(), 12);
    reach("node ports from outside", &cells, &BACKENDS).await;
    reach("node ports from a pod", &every_node_port(&inside[0], &addresses, &web), &BACKENDS).await;

    balanced_addresses(&cluster, &outside, &inside).await;
    node_ports_on_every_address(&mut cluster, &outside, &web).await;
}

/// What a scrape tells of a service is what ipvsadm tells, once its last packets are through.
async fn counters_are_the_kernels(cluster: &Cluster, web: &Value) {
    // In the order of ipvsadm's columns.
    const NAMES: [&str; 5] = ["total_connections", "packets_in", "packets_out", "bytes_in", "bytes_out"];
    let ip = cluster_ips(web)[0];
    let address = format!("{ip}:80");
    let labels = format!(
        "port=\"80\",protocol=\"tcp\",service_name=\"web\",service_vip=\"{ip}\",svc_namespace=\"default\""
    );
    let compare = || async {
        let table = tool(cluster, 1, "ipvsadm -Ln --stats --exact");
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|words| words.starts_with(&["TCP", address.as_str()])).unwrap_or_default();
        let theirs: Vec<f64> = row.iter().skip(2).map(|word| word.parse().unwrap()).collect();
        let ours = NAMES.map(|name| metric(cluster, 1, &format!("kube_router_service_{name}{{{labels}}}")));
        match ours[..] == theirs[..] && ours.iter().all(|value| *value > 0.0) {
            true => Ok(()),
            false => Err(format!("/metrics tells {ours:?}: {table}")),
        }
    };
    eventually(SOON, compare).await.unwrap_or_else(|error| panic!("{error}"));
}

async fn balanced_addresses(cluster: &Cluster, outside: &Probe, inside: &[Probe]) {
    let node = cluster.node(1).unwrap();
    for range in ["203.0.113.0/24", "fd03::/112", "198.51.100.0/24", "fd98::/112", "192.0.2.0/24"] {
        cluster.outside().route(&range.parse().unwrap(), node).unwrap();
    }
    let api = cluster.api();
    let service = api.get(Resource::Services, Some("default"), "web").unwrap();
    let given = service["status"]["loadBalancer"]["ingress"].as_array().expect("load balancer IPs").iter();
    let mut balanced: Vec<IpAddr> = given.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(balanced.len(), 2, "one load balancer IP of each family");
    balanced.extend(ips(&["203.0.113.5", "fd03::5"]));
    let from = [outside, &inside[0], &inside[1]];
    let cells: Vec<Cell> = from.iter().flat_map(|probe| every_protocol(probe, &balanced)).collect();
    reach("external and load balancer IPs", &cells, &BACKENDS).await;

    left_to_others(cluster, &balanced).await;
    kept_by_the_balancer(cluster, &balanced).await;

    // Outside the given range, and inside the cluster range: not programmed, whatever the object says.
    let virtual_servers = tool(cluster, 1, "ipvsadm -Sn");
    let addresses = tool(cluster, 1, "ip -j addr show dev kube-dummy-if");
    for refused in ["192.0.2.5", "10.96.200.200"] {
        assert!(!virtual_servers.contains(refused), "{refused} in {virtual_servers}");
        assert!(!addresses.contains(refused), "{refused} in {addresses}");
    }
    let cell = (outside.clone(), Protocol::Tcp, SocketAddr::new(ips(&["192.0.2.5"])[0], 80));
    let no = [Failure::Timeout, Failure::Unreachable, Failure::Refused];
    fails("an external IP outside the range", &[cell], &no).await;
}

/// An annotation leaves load balancer IPs to somebody else, and gives them back.
async fn left_to_others(cluster: &Cluster, balanced: &[IpAddr]) {
    let annotate = |value: Value| {
        let patch = json!({ "metadata": { "annotations": { "kube-router.io/service.skiplbips": value } } });
        cluster.api().patch(Resource::Services, Some("default"), "web", &patch).unwrap();
    };
    let address = format!("-A -t {}:80 ", balanced[0]);
    annotate(json!(""));
    until("skiplbips", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&address)).await;
    annotate(Value::Null);
    until("skiplbips taken back", cluster, 1, "ipvsadm -Sn", |text| text.contains(&address)).await;
}

/// `ipMode: Proxy` says that the load balancer wants the traffic itself: a node that took it would bypass it.
async fn kept_by_the_balancer(cluster: &Cluster, balanced: &[IpAddr]) {
    let mode = |mode: &str| {
        let ingress: Vec<Value> =
            balanced[..2].iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": mode })).collect();
        let status = json!({ "loadBalancer": { "ingress": ingress } });
        cluster.api().patch_status(Resource::Services, Some("default"), "web", &status).unwrap();
    };
    let address = format!("-A -t {}:80 ", balanced[0]);
    let link = format!("{}/32", balanced[0]);
    mode("Proxy");
    until("ipMode Proxy", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&address)).await;
    until("its address goes", cluster, 1, "ip addr show dev kube-dummy-if", |text| !text.contains(&link))
        .await;
    mode("VIP");
    until("ipMode VIP", cluster, 1, "ipvsadm -Sn", |text| text.contains(&address)).await;
}

async fn node_ports_on_every_address(cluster: &mut Cluster, outside: &Probe, web: &Value) {
    // A second address of the node, and loopback, are answered at only when asked for.
    cluster.node(1).unwrap().namespace().ip("addr add 172.31.0.111/24 dev eth0\n").unwrap();
    let second = every_node_port(outside, &ips(&["172.31.0.111"]), web);
    let tcp: Vec<Cell> = second.iter().filter(|cell| cell.1 == Protocol::Tcp).cloned().collect();
    fails("a second address without --nodeport-bindon-all-ip", &tcp, &[Failure::Refused]).await;
    let flags = crate::setup::flags(&["--nodeport-bindon-all-ip", "--strict-external-ip-validation=false"]);
    cluster.set_agent_flags(1, flags).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
    reach("a second address with --nodeport-bindon-all-ip", &second, &BACKENDS).await;
    let unchecked = (outside.clone(), Protocol::Tcp, SocketAddr::new(ips(&["192.0.2.5"])[0], 80));
    reach("an external IP outside the range, not validated", &[unchecked], &BACKENDS).await;
    let inside = |text: &str| text.contains("-A -t 10.96.200.200:80 ");
    until("one in the cluster range, not validated", cluster, 1, "ipvsadm -Sn", inside).await;
    let port = node_port(web, 0);
    until("loopback", cluster, 1, "ipvsadm -Sn", |text| text.contains(&format!("-t 127.0.0.1:{port}"))).await;

    // An address that comes later is found, one that goes is given up.
    let namespace = cluster.node(1).unwrap().namespace().clone();
    namespace.ip("addr add 172.31.0.112/24 dev eth0\n").unwrap();
    reach("an address added later", &every_node_port(outside, &ips(&["172.31.0.112"]), web), &BACKENDS).await;
    namespace.ip("addr del 172.31.0.112/24 dev eth0\n").unwrap();
    until("its end", cluster, 1, "ipvsadm -Sn", |text| !text.contains("172.31.0.112")).await;
}
