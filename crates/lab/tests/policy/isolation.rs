//! Before the first packet, with the CNI plugin: a pod whose first act is to send is isolated when its sandbox is wired, not
//! when the API server shows its addresses. Judged by what arrives in the pods it sends to, counted by iptables there.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, agent_program, eventually};
use lab::node::{Families, Pod, PodObject};
use lab::probe::{Probe, Protocol};
use lab::process::{command, run, run_with_input};
use serde_json::{Value, json};

use crate::fence::Fence;
use crate::operator::asked;
use crate::stage::{PATIENCE, SOON, Stage};
use crate::tables::{NFTABLES, cluster, logs};

/// How long a refused connection is waited for: a refusal comes at once, silence is IPv6's or default-deny's.
const FIRST_ACT: Duration = Duration::from_secs(3);
/// How long a connection that is allowed is waited for.
const ALLOWED_ACT: Duration = Duration::from_secs(20);
/// What a timeout of a second comes to at least: a try that would begin after it is not made.
const A_SECOND: Duration = Duration::from_millis(850);

/// Creates the object of a pod as the kubelet of node 1 finds it: bound, without addresses. Returns its UID.
fn bind(cluster: &Cluster, name: &str, labels: &Value) -> String {
    let metadata = json!({
        "namespace": "x", "name": name, "labels": labels, "annotations": { lab::kubelet::HANDS_OFF: "" },
    });
    let containers = json!([{ "name": "c", "image": "lab" }]);
    let spec = json!({ "nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": containers });
    let made = cluster.api().create(Resource::Pods, json!({ "metadata": metadata, "spec": spec })).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// What the kubelet says once the pod runs.
fn show(cluster: &Cluster, name: &str, pod: &Pod) {
    let ips: Vec<Value> = pod.addresses().iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    let status = json!({ "phase": "Running", "podIPs": ips, "podIP": ips[0]["ip"] });
    cluster.api().patch_status(Resource::Pods, Some("x"), name, &status).unwrap();
}

/// A pod that has acted: it, how long CNI took, and how many of its connections were accepted.
struct Born {
    pod: Pod,
    added_in: Duration,
    accepted: usize,
}

/// Who a pod sends to at once, and how long it waits for the connection.
type Target = (IpAddr, Duration);

/// Has CNI wire the sandbox, and sends from it in the same breath: a datagram and a SYN to port 80 of each address.
async fn wire(cluster: &Cluster, name: &str, uid: &str, to: &[Target]) -> Result<Born, String> {
    let node = cluster.node(1).unwrap().clone();
    let object =
        PodObject { namespace: "x".into(), name: name.into(), uid: uid.into(), ..PodObject::default() };
    let (full, to) = (format!("x.{name}"), to.to_vec());
    let work = move || {
        let start = Instant::now();
        let pod = Pod::of_object(&node, &full, object).map_err(|error| error.to_string())?;
        let added_in = start.elapsed();
        let act = move || to.iter().filter(|target| acts(**target)).count();
        let accepted = pod.namespace().run(act).map_err(|error| error.to_string())?;
        Ok(Born { pod, added_in, accepted })
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn acts((ip, patience): Target) -> bool {
    let to = SocketAddr::new(ip, 80);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    // Refused locally when a rule answers at once; what arrives is counted elsewhere.
    let _ = UdpSocket::bind(any).unwrap().send_to(b"first", to);
    TcpStream::connect_timeout(&to, patience).is_ok()
}

/// Counts what arrives in a pod on port 80.
struct Door {
    probe: Probe,
    addresses: Vec<IpAddr>,
}

const TOOLS: [&str; 2] = ["iptables", "ip6tables"];

impl Door {
    fn new(stage: &Stage<'_>, name: &str) -> Door {
        let member = stage.members().into_iter().find(|member| member.name == name).unwrap();
        let door = Door { probe: member.probe.unwrap(), addresses: member.addresses };
        for protocol in ["tcp", "udp"] {
            door.tools(&format!("-A INPUT -p {protocol} --dport 80"));
        }
        door
    }

    fn tools(&self, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let work = move || -> String {
            let done = TOOLS.iter().map(|tool| run(command(tool).arg("-w").args(&arguments)).unwrap());
            done.collect()
        };
        self.probe.namespace().run(work).unwrap()
    }

    /// Packets since the last question, of both protocols and families.
    fn arrived(&self) -> u64 {
        let listing = self.tools("-nvxL INPUT -Z");
        let counts = listing.lines().filter(|line| line.contains("dpt:80"));
        counts.map(|line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// The places of these stories: who may never be reached from quarantine, on the same node, and who may, on another.
struct Scene {
    denied: Door,
    allowed: Door,
    fence: Fence,
}

impl Scene {
    async fn new(cluster: &Cluster) -> Scene {
        let stage = Stage::new(cluster.api(), Some(cluster)).await;
        let mut fence = Fence::new(cluster).await;
        let friend = json!([{ "namespaceSelector": { "matchLabels": { "ns": "y" } }, "podSelector": { "matchLabels": { "pod": "a" } } }]);
        let quarantine = json!({
            "podSelector": { "matchLabels": { "quarantine": "yes" } },
            "policyTypes": ["Ingress", "Egress"], "egress": [{ "to": friend }],
        });
        stage.policy("x", "quarantine", quarantine);
        fence.pass().await;
        Scene { denied: Door::new(&stage, "x/b"), allowed: Door::new(&stage, "y/a"), fence }
    }

    fn targets(&self) -> Vec<Target> {
        let denied = self.denied.addresses.iter().map(|ip| (*ip, FIRST_ACT));
        denied.chain(self.allowed.addresses.iter().map(|ip| (*ip, ALLOWED_ACT))).collect()
    }

    /// A pod in quarantine that acts at once; what arrived of it where it may not go and where it may.
    async fn birth(&self, cluster: &Cluster, name: &str) -> (Born, u64, u64) {
        self.denied.arrived();
        self.allowed.arrived();
        let uid = bind(cluster, name, &json!({ "quarantine": "yes" }));
        let born = wire(cluster, name, &uid, &self.targets()).await;
        let born = born.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
        (born, self.denied.arrived(), self.allowed.arrived())
    }

    fn end(&self, cluster: &Cluster, name: &str, born: Born) {
        cluster.api().delete(Resource::Pods, Some("x"), name, None).unwrap();
        drop(born);
    }

    /// Asks again and again until a denied pod refuses in both families, and an allowed one answers.
    async fn isolated(&self, cluster: &Cluster, about: &str, born: &Born) {
        let probe = Probe::new("born", born.pod.namespace()).patience(PATIENCE);
        let look = || async {
            for (door, passes) in [(&self.denied, false), (&self.allowed, true)] {
                for ip in &door.addresses {
                    for protocol in [Protocol::Tcp, Protocol::Udp] {
                        let outcome = probe.ask(protocol, SocketAddr::new(*ip, 80)).await;
                        if outcome.is_ok() != passes {
                            return Err(format!("{about}: {ip} {protocol}: {outcome:?}"));
                        }
                    }
                }
            }
            Ok(())
        };
        let done = eventually(SOON, look).await;
        done.unwrap_or_else(|error| panic!("{error}\n{}", logs(cluster)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_denied_leaves_a_pod_that_waited_for_its_rules() {
    nothing_denied_leaves(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_denied_leaves_a_pod_that_waited_for_its_verdicts() {
    nothing_denied_leaves(&[NFTABLES]).await;
}

async fn nothing_denied_leaves(flags: &[&str]) {
    let cluster = cluster(Families::Dual, flags).await;
    let node = cluster.node(1).unwrap().clone();
    let mut scene = Scene::new(&cluster).await;
    // Without the plugin first packets pass: the proof that these doors would show it.
    let (born, denied, _) = scene.birth(&cluster, "unguarded").await;
    assert!(denied > 0, "nothing arrived from a pod that nobody knew");
    scene.end(&cluster, "unguarded", born);

    node.install_waiting_plugin(&agent_program().unwrap()).unwrap();
    node.chain_waiting_plugin(&json!({ "timeout": "60s" })).unwrap();
    let mut took = Vec::new();
    for number in 0..8 {
        let name = format!("guarded-{number}");
        let (born, denied, allowed) = scene.birth(&cluster, &name).await;
        took.push(born.added_in);
        // Two families; the datagram, and at least the packet that opens a connection.
        let accepted = scene.allowed.addresses.len();
        assert!(
            denied == 0 && allowed >= 4 && born.accepted == accepted,
            "{name}: {denied} {allowed} {}",
            born.accepted
        );
        scene.isolated(&cluster, "before the API server shows it", &born).await;
        show(&cluster, &name, &born.pod);
        scene.isolated(&cluster, "after that", &born).await;
        assert_eq!(scene.denied.arrived(), 0, "{name}");
        scene.end(&cluster, &name, born);
    }
    took.sort();
    eprintln!("ADD took {:?} to {:?} with the pod's rules", took[0], took[took.len() - 1]);

    // The watch is behind: CNI waits for the object, too.
    let announced = Instant::now();
    let late = Duration::from_millis(700);
    let uid = "00000000-0000-4000-8000-000000000001";
    let create = async {
        tokio::time::sleep(late).await;
        let metadata = json!({
            "namespace": "x", "name": "late", "uid": uid, "labels": { "quarantine": "yes" },
            "annotations": { lab::kubelet::HANDS_OFF: "", "kubernetes.io/config.mirror": uid },
        });
        let spec = json!({ "nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "lab" }] });
        cluster.api().create(Resource::Pods, json!({ "metadata": metadata, "spec": spec })).unwrap();
    };
    let targets = scene.targets();
    let ((), born) = tokio::join!(create, wire(&cluster, "late", uid, &targets));
    let born = born.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    assert!(announced.elapsed() >= late && scene.denied.arrived() == 0);
    scene.end(&cluster, "late", born);
    peers_elsewhere(&cluster, &mut scene).await;
}

/// How long a peer on another node refuses a pod that its policy lets in: it has to hear of it. Measured, not promised.
async fn peers_elsewhere(cluster: &Cluster, scene: &mut Scene) {
    let stage = Stage::of(cluster.api(), cluster);
    let from = json!([{ "namespaceSelector": { "matchLabels": { "ns": "x" } }, "podSelector": { "matchLabels": { "guest": "yes" } } }]);
    stage.policy(
        "y",
        "guests",
        json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": [{ "from": from }] }),
    );
    scene.fence.pass().await;
    let to = SocketAddr::new(scene.allowed.addresses[0], 80);
    let mut delays = Vec::new();
    for number in 0..5 {
        let name = format!("guest-{number}");
        let uid = bind(cluster, &name, &json!({ "guest": "yes" }));
        let born = wire(cluster, &name, &uid, &[]).await.unwrap();
        let probe = Probe::new("guest", born.pod.namespace()).patience(PATIENCE);
        let start = Instant::now();
        show(cluster, &name, &born.pod);
        while probe.ask(Protocol::Udp, to).await.is_err() {
            assert!(start.elapsed() < SOON, "{name} is never let in\n{}", logs(cluster));
        }
        delays.push(start.elapsed());
        scene.end(cluster, &name, born);
    }
    delays.sort();
    eprintln!(
        "a peer on another node lets a new pod in {:?} to {:?} after the API server shows it",
        delays[0], delays[4]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_holds_pods_up_as_the_list_says() {
    let mut cluster = cluster(Families::Dual, &[]).await;
    let program = agent_program().unwrap();
    let node = cluster.node(1).unwrap().clone();
    node.install_waiting_plugin(&program).unwrap();
    let scene = Scene::new(&cluster).await;
    cluster.take_agent(1).unwrap().kill();

    // Closed: the pod does not start, and the sandbox is taken down again.
    node.chain_waiting_plugin(&json!({ "timeout": "1s" })).unwrap();
    let uid = bind(&cluster, "closed", &json!({ "quarantine": "yes" }));
    let start = Instant::now();
    let refused = wire(&cluster, "closed", &uid, &scene.targets()).await.err().expect("a refusal");
    let took = start.elapsed();
    eprintln!("without an agent ADD is refused after {took:?}: {refused}");
    assert!(refused.contains("\"code\":11") && refused.contains("is it running on this node"), "{refused}");
    assert!(took >= A_SECOND && took < SOON, "{took:?}");
    let records = |cluster: &Cluster| cluster.on_node(1, "ls /run/kube-router/pods").unwrap();
    assert_eq!(records(&cluster), "", "DEL has removed the record");

    // Open: it starts, and is isolated as soon as an agent has read its record, before the API server shows addresses.
    node.chain_waiting_plugin(&json!({ "timeout": "1s", "onTimeout": "open" })).unwrap();
    let uid = bind(&cluster, "open", &json!({ "quarantine": "yes" }));
    let open = wire(&cluster, "open", &uid, &[]).await.unwrap();
    assert!(open.added_in >= A_SECOND, "{:?}", open.added_in);
    assert!(records(&cluster).contains(".json"));

    // An agent that comes while CNI waits is in time.
    node.chain_waiting_plugin(&json!({ "timeout": "60s" })).unwrap();
    let uid = bind(&cluster, "waits", &json!({ "quarantine": "yes" }));
    scene.denied.arrived();
    let targets = scene.targets();
    let waits = {
        let node = node.clone();
        let object = PodObject { namespace: "x".into(), name: "waits".into(), uid, ..PodObject::default() };
        tokio::task::spawn_blocking(move || {
            let pod = Pod::of_object(&node, "x.waits", object).unwrap();
            let act = move || targets.iter().filter(|target| acts(**target)).count();
            let accepted = pod.namespace().run(act).unwrap();
            Born { pod, added_in: Duration::ZERO, accepted }
        })
    };
    eventually(SOON, || async {
        if records(&cluster).lines().count() == 2 { Ok(()) } else { Err("two records".to_owned()) }
    })
    .await
    .unwrap();
    cluster.start_agent(1).unwrap();
    let waits = waits.await.unwrap();
    assert_eq!((scene.denied.arrived(), waits.accepted), (0, 2), "{}", logs(&cluster));
    scene.isolated(&cluster, "from its record", &open).await;

    // What is announced outlives a killed agent: nothing denied passes while it is away and while the next one starts.
    scene.denied.arrived();
    cluster.take_agent(1).unwrap().kill();
    let asker = Probe::new("waits", waits.pod.namespace()).patience(PATIENCE);
    let asking = asker.rate(
        Protocol::Udp,
        SocketAddr::new(scene.denied.addresses[0], 80),
        100,
        Duration::from_secs(5),
    );
    cluster.start_agent(1).unwrap();
    cluster.agents_ready(SOON).await.unwrap();
    asking.stop().await;
    assert_eq!(scene.denied.arrived(), 0, "{}", logs(&cluster));
    scene.isolated(&cluster, "with a new agent", &waits).await;
    scene.end(&cluster, "waits", waits);
    scene.end(&cluster, "open", open);
}

/// A runtime that speaks CNI 1.1: asks whether pods can start, and says which sandboxes it still has.
#[tokio::test(flavor = "multi_thread")]
async fn runtimes_ask_for_readiness_and_collect_garbage() {
    let mut cluster = cluster(Families::V4, &[]).await;
    let program = agent_program().unwrap();
    let node = cluster.node(1).unwrap().clone();
    node.install_waiting_plugin(&program).unwrap();
    node.chain_waiting_plugin(&json!({ "timeout": "120s" })).unwrap();
    cluster.api().create(Resource::Namespaces, json!({ "metadata": { "name": "x" } })).unwrap();
    let call = |verb: &str, more: Value| {
        let mut input =
            json!({ "cniVersion": "1.1.0", "name": "lab", "type": "kube-router-cni", "timeout": "60s" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (program, verb) = (program.clone(), format!("CNI_COMMAND={verb}"));
        let run = move || {
            // The name makes it the plugin.
            let mut named = command("bash");
            named.arg("-c").arg("export \"$1\"; exec -a kube-router-cni \"$0\"").arg(program).arg(verb);
            run_with_input(&mut named, &input.to_string())
        };
        node.namespace().run(run).unwrap().map_err(|error| error.to_string())
    };
    let versions = call("VERSION", json!({})).unwrap();
    assert!(versions.contains("\"1.1.0\""), "{versions}");
    assert_eq!(call("STATUS", json!({})), Ok(String::new()));

    let mut containers = Vec::new();
    let mut pods = Vec::new();
    for name in ["stays", "goes"] {
        let uid = bind(&cluster, name, &json!({}));
        pods.push(wire(&cluster, name, &uid, &[]).await.unwrap());
        let announced = announced(&cluster);
        let one = announced.iter().find(|pod| pod["pod"] == format!("x/{name}"));
        let one = one.unwrap_or_else(|| panic!("{announced:#?}"));
        containers.push(one["container"].as_str().unwrap().to_owned());
    }
    // Who does not say which are in use has none removed.
    assert_eq!(call("GC", json!({})), Ok(String::new()));
    assert_eq!(announced(&cluster).len(), 2);
    let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": containers[0], "ifname": "eth0" }] });
    // The agent is told, but not waited for.
    let collected = || async {
        assert_eq!(call("GC", valid.clone()), Ok(String::new()));
        let left = announced(&cluster);
        let one = left.len() == 1 && left[0]["container"] == *containers[0];
        if one { Ok(()) } else { Err(format!("{left:#?}")) }
    };
    eventually(SOON, collected).await.unwrap();
    assert_eq!(cluster.on_node(1, "ls /run/kube-router/pods").unwrap().lines().count(), 1);

    cluster.take_agent(1).unwrap().kill();
    let refused = call("STATUS", json!({ "timeout": "1s" })).unwrap_err();
    assert!(refused.contains("\"code\":50"), "{refused}");
    assert_eq!(call("STATUS", json!({ "timeout": "1s", "onTimeout": "open" })), Ok(String::new()));
}

/// What the agent of node 1 knows from the plugin alone.
fn announced(cluster: &Cluster) -> Vec<Value> {
    asked(cluster, 1, "status policies")["announced"].as_array().unwrap().clone()
}

/// Together with default-deny nothing has to be held up: what has no rules yet is refused by the kernel.
#[tokio::test(flavor = "multi_thread")]
async fn with_default_deny_an_open_list_lets_nothing_pass_either() {
    let mut cluster = cluster(Families::Dual, &["--netpol-default-deny"]).await;
    let program = agent_program().unwrap();
    let node = cluster.node(1).unwrap().clone();
    node.install_waiting_plugin(&program).unwrap();
    node.chain_waiting_plugin(&json!({ "timeout": "60s" })).unwrap();
    let scene = Scene::new(&cluster).await;
    let (born, denied, allowed) = scene.birth(&cluster, "guarded").await;
    assert!(denied == 0 && allowed >= 4 && born.accepted == 2, "{denied} {allowed} {}", born.accepted);
    scene.end(&cluster, "guarded", born);
    cluster.take_agent(1).unwrap().kill();
    node.chain_waiting_plugin(&json!({ "timeout": "500ms", "onTimeout": "open" })).unwrap();
    let (born, denied, allowed) = scene.birth(&cluster, "unknown").await;
    assert_eq!((denied, allowed, born.accepted), (0, 0, 0), "nobody knows it");
    cluster.start_agent(1).unwrap();
    scene.isolated(&cluster, "from its record", &born).await;
    assert_eq!(scene.denied.arrived(), 0);
    scene.end(&cluster, "unknown", born);
}

/// The agent keeps the plugin in the list where it is asked to, once there is a program for it, and takes it out when it
/// cleans up.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_chains_the_plugin_where_it_is_asked_to() {
    let flags = [
        "--run-service-proxy=false",
        "--run-router=true",
        "--cni-wait-for-policy",
        "--routes-sync-period=1s",
    ];
    let builder = Cluster::builder().nodes(1).agent_flags(flags);
    let mut cluster = builder.start().await.unwrap();
    cluster.agents_ready(SOON).await.unwrap_or_else(|error| panic!("{error}\n{}", logs(&cluster)));
    let list = |cluster: &Cluster| {
        let text = cluster.on_node(1, "cat /etc/cni/net.d/10-kuberouter.conflist").unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let kinds = file["plugins"].as_array().unwrap().iter();
        kinds.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&cluster), ["bridge"], "no pod could be made by a program that is not there");
    let program = agent_program().unwrap();
    let status = cluster.on_node(1, &format!("{} status", program.display())).unwrap();
    assert!(status.contains("there is no program kube-router-cni in /run/cni-plugins"), "{status}");

    cluster.node(1).unwrap().install_waiting_plugin(&program).unwrap();
    let look = || async {
        let there = list(&cluster);
        if there == ["bridge", "kube-router-cni"] { Ok(()) } else { Err(format!("{there:?}")) }
    };
    eventually(SOON, look).await.unwrap();
    let stage = Stage::of(cluster.api(), &cluster);
    stage.api.create(Resource::Namespaces, json!({ "metadata": { "name": "x" } })).unwrap();
    stage.create("x/a", 1, json!({}));
    stage.ready().await;
    assert!(cluster.on_node(1, "ls /run/kube-router/pods").unwrap().contains(".json"), "it was used");

    cluster.take_agent(1).unwrap().stop(SOON);
    cluster.on_node(1, &format!("{} --cleanup-config", program.display())).unwrap();
    assert_eq!(list(&cluster), ["bridge"], "without an agent no pod would start");
}
