//! Nodes, pods and probes on this kernel: everything but IPVS. Judged by packets, `ip -j` and `bridge -j`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::node::{Fabric, Families, Node, Outside, Pod, route_pods};
use lab::probe::{Failure, ONCE, Probe, Protocol, matrix};
use lab::process::{command, run};

struct Lab {
    pods: Vec<Pod>,
    outside: Outside,
    nodes: Vec<Arc<Node>>,
    fabric: Arc<Fabric>,
}

fn lab(families: Families, segments: u8) -> Lab {
    let fabric = Arc::new(Fabric::new(families, segments).expect("fabric"));
    let node = |index: u8| Arc::new(Node::new(&fabric, (index - 1) % segments, index).expect("node"));
    let nodes: Vec<_> = (1..=3).map(node).collect();
    route_pods(&fabric, &nodes.iter().map(AsRef::as_ref).collect::<Vec<_>>()).expect("routes");
    let mut pods = Vec::new();
    for node in &nodes {
        node.configure_cni(true).expect("CNI configuration");
        for pod in ["a", "b"] {
            pods.push(Pod::new(node, &format!("{}-{pod}", node.name())).expect("pod"));
        }
    }
    let outside = Outside::new(&fabric, 0, 1).expect("outside host");
    Lab { pods, outside, nodes, fabric }
}

fn in_node(node: &Node, line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let work = move || run(command(&words[0]).args(&words[1..]));
    node.namespace().run(work).expect("node").expect("command")
}

/// Every pod reaches every pod, in both families, TCP and UDP, and is seen with its own address.
async fn everyone_reaches_everyone(lab: &Lab, addresses: usize) {
    let probes: Vec<Probe> = lab.pods.iter().map(|pod| Probe::new(pod.name(), pod.namespace())).collect();
    let mut servers = Vec::new();
    for probe in &probes {
        servers.push(probe.serve(Protocol::Tcp, 8080).await.expect("TCP"));
        servers.push(probe.serve(Protocol::Udp, 8080).await.expect("UDP"));
    }
    let mut cells = Vec::new();
    let mut expected = Vec::new();
    for (client, probe) in lab.pods.iter().zip(&probes) {
        for server in &lab.pods {
            assert_eq!(server.addresses().len(), addresses);
            for (family, address) in server.addresses().iter().enumerate() {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    cells.push((probe.clone(), protocol, SocketAddr::new(*address, 8080)));
                    expected.push((server.name().to_owned(), client.addresses()[family]));
                }
            }
        }
    }
    let outcomes = matrix(&cells).await;
    for ((outcome, (name, source)), (probe, protocol, to)) in outcomes.iter().zip(&expected).zip(&cells) {
        let answer = outcome.as_ref().unwrap_or_else(|failure| {
            panic!("{} asked {to} over {protocol}: {failure}", probe.name());
        });
        assert_eq!((&answer.by, answer.source.ip()), (name, *source), "{} asked {to}", probe.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_dual_stack_cluster_reach_each_other() {
    everyone_reaches_everyone(&lab(Families::Dual, 1), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_each_other_across_two_routed_segments() {
    let lab = lab(Families::V4, 2);
    assert_eq!(lab.nodes[1].addresses(), ["172.31.1.12".parse::<IpAddr>().expect("address")]);
    everyone_reaches_everyone(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_an_ipv6_cluster_reach_each_other() {
    everyone_reaches_everyone(&lab(Families::V6, 1), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let lab = lab(Families::V4, 1);
    let node = lab.nodes[0].addresses()[0];
    let outside = Probe::new("outside", lab.outside.namespace()).patience(Duration::from_secs(4));
    let ask = |address: &str, protocol| {
        let to: SocketAddr = address.parse().expect("address");
        let outside = outside.clone();
        async move { outside.ask(protocol, to).await.map(|answer| answer.by) }
    };
    let closed = format!("{node}:81");
    assert_eq!(ask(&closed, Protocol::Tcp).await, Err(Failure::Refused));
    assert_eq!(ask(&closed, Protocol::Udp).await, Err(Failure::Refused));
    in_node(&lab.nodes[0], "iptables -A INPUT -p tcp --dport 82 -j DROP");
    assert_eq!(ask(&format!("{node}:82"), Protocol::Tcp).await, Err(Failure::Timeout));
    lab.outside.namespace().ip("route add unreachable 203.0.113.0/24\n").expect("route");
    assert_eq!(ask("203.0.113.1:80", Protocol::Tcp).await, Err(Failure::Unreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_conversation_says_when_and_how() {
    let lab = lab(Families::V4, 1);
    let server = Probe::new("server", lab.pods[0].namespace());
    let port = server.serve(Protocol::Tcp, 80).await.expect("port");
    let to = SocketAddr::new(lab.pods[0].addresses()[0], 80);
    let client = Probe::new("client", lab.pods[5].namespace()).patience(ONCE);
    let every = Duration::from_millis(20);
    let whole = client.talk(Protocol::Tcp, to, every).await.expect("opens");
    let broken = client.talk(Protocol::Tcp, to, every).await.expect("opens");
    let begun = Instant::now();
    let rate = client.rate(Protocol::Tcp, to, 100, Duration::from_secs(60)).stop_after(100).await;
    // A slow machine asks later, never sooner.
    assert!(rate.asked >= 100 && begun.elapsed() >= Duration::from_millis(950), "{rate:?}");
    assert_eq!((rate.failed.len(), rate.answered["server"]), (0, rate.asked), "{rate:?}");
    let whole = whole.stop().await;
    assert_eq!(whole.broke, None);
    assert!(whole.answered["server"] > 1, "{whole:?}");
    let broken_rate = client.rate(Protocol::Tcp, to, 100, Duration::from_secs(30));
    drop(port);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !broken.is_over() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(broken.stop().await.broke.expect("it broke").1, Failure::Reset);
    let asked = broken_rate.asked();
    let broken_rate = broken_rate.stop_after(asked + 10).await;
    assert!(broken_rate.failed.iter().any(|(_, failure)| *failure == Failure::Refused), "{broken_rate:?}");
}

/// A UDP answer leaves from the address that was asked, not from the one the route prefers.
#[tokio::test(flavor = "multi_thread")]
async fn udp_answers_from_the_address_asked() {
    let lab = lab(Families::Dual, 1);
    lab.nodes[0]
        .namespace()
        .ip("addr add 198.51.100.7/32 dev lo\naddr add fd99::7/128 dev lo\n")
        .expect("address");
    for address in ["198.51.100.7/32", "fd99::7/128"] {
        lab.outside.route(&address.parse().expect("range"), &lab.nodes[0]).expect("route");
    }
    let server = Probe::new("server", lab.nodes[0].namespace());
    let _port = server.serve(Protocol::Udp, 5353).await.expect("port");
    let client = Probe::new("client", lab.outside.namespace()).patience(ONCE);
    for to in ["198.51.100.7:5353", "[fd99::7]:5353"] {
        let answer = client.ask(Protocol::Udp, to.parse().expect("address")).await;
        assert_eq!(answer.map(|answer| answer.by), Ok("server".to_owned()), "{to}");
    }
}

/// Each node has its own locks, IPAM, rt_tables and devices, and the host sees none of it.
#[test]
fn nodes_share_no_state_with_each_other_or_the_host() {
    let lab = lab(Families::V4, 1);
    for folder in ["/run", "/var/lib/cni", "/var/lib/kube-router", "/etc/iproute2"] {
        let mark = format!("{folder}/lab-mark");
        in_node(&lab.nodes[0], &format!("touch {mark}"));
        assert!(in_node(&lab.nodes[0], &format!("ls {folder}")).contains("lab-mark"));
        assert!(!in_node(&lab.nodes[1], &format!("ls {folder}")).contains("lab-mark"), "{folder} is shared");
        assert!(!std::path::Path::new(&mark).exists(), "{folder} is the host's");
    }
    assert!(in_node(&lab.nodes[1], "ls /etc/iproute2").contains("rt_tables"));
    let devices = in_node(&lab.nodes[0], "ls /sys/class/net");
    assert!(devices.contains("kube-bridge") && devices.contains("eth0"), "{devices}");
    assert_eq!(lab.pods[0].addresses(), ["10.244.1.2".parse::<IpAddr>().expect("address")]);
    assert_eq!(lab.pods[2].addresses(), ["10.244.2.2".parse::<IpAddr>().expect("address")]);
}

/// Removing a pod gives its address back and leaves no port on the bridge.
#[test]
fn a_removed_pod_leaves_nothing() {
    let mut lab = lab(Families::Dual, 1);
    let ports = |lab: &Lab| {
        in_node(&lab.nodes[2], "ip -j link show master kube-bridge").matches("\"ifname\"").count()
    };
    let reserved = |lab: &Lab| in_node(&lab.nodes[2], "ls /var/lib/cni/networks/mynet");
    assert_eq!(ports(&lab), 2);
    let gone = lab.pods.pop().expect("a pod");
    let address = gone.addresses()[0].to_string();
    assert!(reserved(&lab).contains(&address));
    drop(gone);
    assert_eq!(ports(&lab), 1);
    assert!(!reserved(&lab).contains(&address));
}

/// Whatever happens to the test, nothing stays: no process, no namespace, no folder.
/// Machines come and go, and the router on their link stays who it is: what others know of it is not wrong all at once.
#[test]
fn a_router_keeps_its_hardware_address() {
    let fabric = Arc::new(Fabric::new(Families::V4, 1).expect("fabric"));
    let address = || {
        let show = || run(command("ip").args(["-br", "link", "show", "seg0"]));
        let text = fabric.namespace().run(show).expect("fabric").expect("ip");
        text.split_whitespace().nth(2).expect("an address").to_owned()
    };
    let alone = address();
    let plugged: Vec<_> = (1..=3).map(|index| Outside::new(&fabric, 0, index).expect("host")).collect();
    assert_eq!(address(), alone, "with others");
    drop(plugged);
    assert_eq!(address(), alone, "alone again");
}

#[test]
fn dropping_a_lab_removes_everything() {
    let lab = lab(Families::V4, 1);
    let folder = lab.fabric.folder().to_owned();
    let namespace = Arc::clone(lab.nodes[0].namespace());
    let work = || lab::process::spawn(lab::process::tied("sleep").arg("1000"));
    let mut sleeper = namespace.run(work).expect("node").expect("sleep");
    assert!(folder.join("node-1/ns/net").exists() && folder.join("node-3-b").exists());
    drop(namespace);
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("a test fails");
    });
    assert!(panicked.join().is_err());
    assert!(!folder.exists());
    let status = sleeper.wait().expect("reaped");
    assert_eq!(lab::process::exit_code(status), 128 + 9);
}

/// The same lab in the VM, with the protocol this kernel may not have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: SCTP sockets"]
async fn sctp_is_asked_and_answered() {
    let lab = lab(Families::Dual, 1);
    let server = Probe::new("server", lab.pods[0].namespace());
    let port = server.serve(Protocol::Sctp, 3868).await.expect("port");
    let client = Probe::new("client", lab.pods[5].namespace()).patience(ONCE);
    for (family, address) in lab.pods[0].addresses().iter().enumerate() {
        let to = SocketAddr::new(*address, 3868);
        let answer = client.ask(Protocol::Sctp, to).await.expect("answered");
        assert_eq!((answer.by.as_str(), answer.source.ip()), ("server", lab.pods[5].addresses()[family]));
    }
    drop(port);
    let to = SocketAddr::new(lab.pods[0].addresses()[0], 3868);
    // The listener closes when its task next runs.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut outcome = client.ask(Protocol::Sctp, to).await;
    while outcome != Err(Failure::Refused) && Instant::now() < deadline {
        outcome = client.ask(Protocol::Sctp, to).await;
    }
    assert_eq!(outcome, Err(Failure::Refused));
}
