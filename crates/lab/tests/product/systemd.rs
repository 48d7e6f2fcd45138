//! The agent as a unit of systemd: started, killed, stopped and started again, in the unit's sandbox and by its privileges.

use std::fs;
use std::net::SocketAddr;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually, kubeconfig_text};
use lab::probe::ONCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::manager::Systemd;
use crate::privileges::Process;
use crate::{agent, manifests};

/// A node on which nothing has run yet, with the kubeconfig that the unit wants there.
async fn node() -> Cluster {
    let cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let server = SocketAddr::new(cluster.fabric().gateway(0)[0], 8080);
    let config = kubeconfig_text(&json!({ "server": format!("http://{server}") }), &json!({}));
    let write = move || fs::write("/var/lib/kube-router/kubeconfig", config);
    cluster.node(1).unwrap().namespace().run(write).unwrap().unwrap();
    cluster
}

fn tool(cluster: &Cluster, line: &str) -> String {
    cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until the agent listens for peers, which `/readyz` does not speak of.
async fn speaks(cluster: &Cluster) {
    let listens = || async {
        let said = tool(cluster, "ss -Hltn sport = :179");
        if said.contains(":179") { Ok(()) } else { Err(format!("nobody listens at port 179: {said}")) }
    };
    eventually(ONCE, listens).await.unwrap();
}

/// What the kernel is asked for, by the tools of others.
struct Kernel {
    commands: &'static [&'static str],
}

impl Kernel {
    /// All of it, without comments and counters.
    fn state(&self, cluster: &Cluster) -> String {
        let ask = |command: &&str| tool(cluster, command);
        let lines = self.commands.iter().map(ask).collect::<String>();
        let bare = |line: &str| line.split(" [").next().unwrap_or_default().to_owned() + "\n";
        lines.lines().filter(|line| !line.starts_with('#')).map(bare).collect()
    }
}

/// The unit's life. `flags` are those of the operator, besides the node's name.
async fn life(
    flags: &str,
    kernel: Kernel,
    programmed: impl Fn(&Cluster) -> Result<(), String>,
) -> (Cluster, Systemd) {
    let cluster = node().await;
    // Where no pod has been wired yet there is not even the folder.
    tool(&cluster, "mount -t tmpfs tmpfs /etc/cni");
    tool(&cluster, "sysctl -q -w net.ipv4.ip_forward=0 net.bridge.bridge-nf-call-iptables=0");
    let flags = format!("--hostname-override=node-1 {flags}");
    let systemd = Systemd::start(cluster.node(1).unwrap(), &flags, cluster.fabric().folder()).await;

    systemd.ctl("enable --now kube-router");
    write_cni_file(&cluster).await;
    let first = is_at_work(&cluster, &systemd, None).await;
    assert!(tool(&cluster, "ls /etc/systemd/system/multi-user.target.wants").contains("kube-router.service"));
    has_the_units_privileges(first);
    speaks(&cluster).await;
    for key in ["net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"] {
        assert_eq!(tool(&cluster, &format!("sysctl -n {key}")).trim(), "1", "{key}");
    }
    gets_the_nodes_range(&cluster).await;
    wire_a_pod(&cluster).await;
    eventually(ONCE, || async { programmed(&cluster) }).await.unwrap();
    is_settled(&cluster).await;
    let stands = || (kernel.state(&cluster), records(&cluster));
    let before = stands();

    kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(stands(), before, "killed");
    let second = is_at_work(&cluster, &systemd, Some(first)).await;
    assert_eq!(systemd.property("NRestarts"), "1", "{}", systemd.account());
    has_the_units_privileges(second);
    assert_eq!(stands(), before, "killed and started");

    systemd.ctl("stop kube-router");
    let end = ["ActiveState", "Result", "ExecMainStatus"].map(|name| systemd.property(name));
    assert_eq!(end, ["inactive", "success", "0"], "{}", systemd.account());
    assert_eq!(stands(), before, "stopped");
    says_nothing_bad(&systemd);
    (cluster, systemd)
}

/// What the sandbox forbids and the agent wants, it would say. The CNI file may be missing at the first look.
fn says_nothing_bad(systemd: &Systemd) {
    let said = systemd.said();
    let bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    let bad: Vec<&str> = said.lines().filter(bad).filter(|line| !line.contains("No such file")).collect();
    assert!(said.contains(" INFO ") && bad.is_empty(), "{}", systemd.account());
}

/// Waits until another process than this one is ready by its own word, on its port and its socket.
async fn is_at_work(cluster: &Cluster, systemd: &Systemd, before: Option<u32>) -> u32 {
    let probe = cluster.node_probe(1).unwrap();
    let health = SocketAddr::from(([127, 0, 0, 1], 20244));
    let ready = || async {
        let failed = |what: String| format!("the unit is at work ({what}):\n{}", systemd.account());
        let pid = systemd.agent().filter(|pid| Some(*pid) != before);
        let pid = pid.ok_or_else(|| failed("no new process".to_owned()))?;
        match probe.get(health, "/readyz").await {
            Ok((200, _)) => Ok(pid),
            other => Err(failed(format!("/readyz: {other:?}"))),
        }
    };
    let pid = eventually(ONCE, ready).await.unwrap();
    assert_eq!(systemd.property("ActiveState"), "active");
    is_settled(cluster).await;
    pid
}

/// By the agent's own account.
async fn is_settled(cluster: &Cluster) {
    let settled = || async {
        let said = tool(cluster, "/usr/local/bin/kube-router status -o json");
        let status: Value = serde_json::from_str(&said).unwrap();
        if status["settled"] == true { Ok(()) } else { Err(format!("everything is programmed: {status:#}")) }
    };
    eventually(ONCE, settled).await.unwrap();
}

fn has_the_units_privileges(pid: u32) {
    let process = Process::of(pid);
    process.has_only(&["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"]);
    process.sees("/", "ro");
    process.sees("/run", "rw");
}

/// The file that is shipped, without the node's range, comes after the agent.
async fn write_cni_file(cluster: &Cluster) {
    let (_, documents) =
        manifests().into_iter().find(|(path, _)| path.ends_with("generic-kuberouter.yaml")).unwrap();
    let text = documents.iter().find_map(|document| document["data"]["cni-conf.json"].as_str()).unwrap();
    let write = || async {
        let text = text.to_owned();
        let write = move || fs::write("/etc/cni/net.d/10-kuberouter.conflist", text);
        let written = cluster.node(1).unwrap().namespace().run(write).unwrap();
        written.map_err(|error| format!("the unit makes the folder /etc/cni/net.d ({error})"))
    };
    eventually(ONCE, write).await.unwrap();
}

async fn gets_the_nodes_range(cluster: &Cluster) {
    let range = cluster.node(1).unwrap().pod_ranges()[0].to_string();
    let written = || async {
        let said = tool(cluster, "cat /etc/cni/net.d/10-kuberouter.conflist");
        if said.contains(&range) { Ok(()) } else { Err(format!("{range} is in the CNI file: {said}")) }
    };
    eventually(ONCE, written).await.unwrap();
}

/// A pod of a service that is denied everything, and waits for that in CNI: it leaves a record.
async fn wire_a_pod(cluster: &Cluster) {
    let node = cluster.node(1).unwrap();
    node.install_waiting_plugin(&agent()).unwrap();
    node.chain_waiting_plugin(&json!({ "timeout": "60s" })).unwrap();
    let policy = json!({
        "metadata": { "name": "nobody", "namespace": "default" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress", "Egress"] },
    });
    cluster.api().create(Resource::NetworkPolicies, policy).unwrap();
    let pod = json!({
        "metadata": { "name": "web", "namespace": "default", "labels": { "app": "web" } },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "image": "lab", "ports": [{ "containerPort": 80 }] }] },
    });
    cluster.api().create(Resource::Pods, pod).unwrap();
    let service = json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
    });
    cluster.api().create(Resource::Services, service).unwrap();
    cluster.pods_ready(ONCE).await.unwrap();
}

fn records(cluster: &Cluster) -> String {
    let said = tool(cluster, "ls /run/kube-router/pods");
    assert_eq!(said.lines().filter(|name| name.ends_with(".json")).count(), 1, "{said}");
    said
}

fn told(yes: bool, what: &str, seen: String) -> Result<(), String> {
    if yes { Ok(()) } else { Err(format!("{what}: {seen}")) }
}

/// The rules of the pod's policy, by its address.
fn isolates_the_pod(cluster: &Cluster) -> Result<(), String> {
    let pod = cluster.api().get(Resource::Pods, Some("default"), "web").unwrap();
    let address = format!("-d {}/32", pod["status"]["podIP"].as_str().unwrap());
    let rules = tool(cluster, "iptables-save -t filter");
    told(rules.contains("-j KUBE-ROUTER-FORWARD") && rules.contains(&address), &address, rules)
}

/// The virtual server of the pod's service, and the pod behind it.
fn serves_the_pod(cluster: &Cluster) -> Result<(), String> {
    let get = |kind, pointer: &str| {
        let object = cluster.api().get(kind, Some("default"), "web").unwrap();
        object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned()
    };
    let (service, pod) = (get(Resource::Services, "/spec/clusterIP"), get(Resource::Pods, "/status/podIP"));
    let servers = tool(cluster, "ipvsadm -Sn");
    let wanted = [format!("-A -t {service}:80 -s rr"), format!("-a -t {service}:80 -r {pod}:80 ")];
    told(wanted.iter().all(|line| servers.contains(line)), &format!("{wanted:?}"), servers)
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_and_routes_work_as_a_unit() {
    let kernel = Kernel { commands: &["iptables-save", "ip -4 rule", "ip -4 route show table all"] };
    let (cluster, systemd) =
        life("--run-service-proxy=false --run-router=true", kernel, isolates_the_pod).await;
    let before = records(&cluster);
    systemd.ctl("start kube-router");
    is_at_work(&cluster, &systemd, None).await;
    assert_eq!(records(&cluster), before, "started again");
    // Who tries flags does not take the agent off the node by that.
    for _ in 0..6 {
        systemd.ctl("restart kube-router");
    }
    is_at_work(&cluster, &systemd, None).await;
    says_nothing_bad(&systemd);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS and modules"]
async fn all_services_work_as_a_unit() {
    let kernel =
        Kernel { commands: &["iptables-save", "ipvsadm -Sn", "ip -4 -o address show kube-dummy-if"] };
    let programmed = |cluster: &Cluster| isolates_the_pod(cluster).and_then(|()| serves_the_pod(cluster));
    life("--run-service-proxy=true --run-firewall=true --run-router=true", kernel, programmed).await;
}
