//! The agent in its container: prepared, started, at work, stopped.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually, kubeconfig_text};
use lab::process::{self, command};
use serde_json::{Value, json};

use crate::container::{Containerd, Pod};
use crate::privileges::Process;
use crate::{agent, manifests};

const SOON: Duration = Duration::from_secs(120);
/// The tag of the manifests.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pod of a variant, in which the user has put this API server.
fn pod_of(variant: &str, server: &str) -> Pod {
    let (_, documents) = manifests().into_iter().find(|(path, _)| path.ends_with(variant)).unwrap();
    let text = Value::Array(documents).to_string().replace("%APISERVER%", server);
    Pod::of(serde_json::from_str(&text).unwrap())
}

/// The API server as nodes see it.
fn server(cluster: &Cluster) -> String {
    let gateway: IpAddr = cluster.fabric().gateway(0)[0];
    format!("http://{}", SocketAddr::new(gateway, 8080))
}

pub(crate) fn tool(cluster: &Cluster, line: &str) -> String {
    cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until the agent listens for peers, which `/readyz` does not speak of.
pub(crate) async fn speaks(cluster: &Cluster) {
    let listens = || async {
        let said = tool(cluster, "ss -Hltn sport = :179");
        if said.contains(":179") { Ok(()) } else { Err(format!("nobody listens at port 179: {said}")) }
    };
    eventually(SOON, listens).await.unwrap();
}

/// A node on which nothing has run yet, with the kubeconfig that manifests and the unit want there.
pub(crate) async fn node() -> Cluster {
    let cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let config = kubeconfig_text(&json!({ "server": server(&cluster) }), &json!({}));
    let write = move || fs::write("/var/lib/kube-router/kubeconfig", config);
    cluster.node(1).unwrap().namespace().run(write).unwrap().unwrap();
    cluster
}

/// What the kubelet does before any container starts.
fn make_host_paths(cluster: &Cluster, pod: &Pod) {
    let (folders, files) = pod.made_by_the_kubelet();
    let make = move || {
        folders.iter().try_for_each(fs::create_dir_all)?;
        files
            .iter()
            .try_for_each(|file| fs::OpenOptions::new().create(true).append(true).open(file).map(drop))
    };
    cluster.node(1).unwrap().namespace().run(make).unwrap().unwrap();
}

/// From the start of the agent's container to its end; `at_work` looks at the node in between.
async fn life(cluster: &Cluster, containerd: &Containerd, pod: &Pod, at_work: impl AsyncFnOnce()) {
    let log = cluster.fabric().folder().join("container.log");
    let mut running = containerd.spawn(pod, "kube-router", &log);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let end = Instant::now() + SOON;
    loop {
        if let Some(status) = running.try_wait().unwrap() {
            panic!("it ended with {}:\n{}", process::exit_code(status), said());
        }
        match cluster.on_node(1, "curl -s -m 10 -w \n%{http_code} http://127.0.0.1:20244/readyz") {
            Ok(text) if text.ends_with("\n200") => break,
            other => assert!(Instant::now() < end, "/readyz: {other:?}\n{}", said()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = containerd.pid("kube-router").unwrap();
    has_named_privileges_only(pod, pid);
    at_work().await;
    let status = status(cluster);
    assert_eq!(status["settled"], true, "{status:#}");

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), nix::sys::signal::SIGTERM)
        .unwrap();
    let end = Instant::now() + SOON;
    let exit = loop {
        match running.try_wait().unwrap() {
            Some(status) => break process::exit_code(status),
            None if Instant::now() > end => panic!("it does not stop:\n{}", said()),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(exit, 0, "{}", said());
}

/// The agent's own account, over the socket that the manifest puts on the node.
fn status(cluster: &Cluster) -> Value {
    let program = agent();
    let ask = move || process::run(command(program).args(["status", "-o", "json"]));
    let text = cluster.node(1).unwrap().namespace().run(ask).unwrap().expect("status exits 0");
    serde_json::from_str(&text).unwrap()
}

/// The kernel's view of the process: exactly the capabilities the manifest names, seccomp, and a root nobody can write.
fn has_named_privileges_only(pod: &Pod, pid: u32) {
    let named = pod.container("kube-router")["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let process = Process::of(pid);
    process.has_only(&named.iter().map(|name| name.as_str().unwrap()).collect::<Vec<_>>());
    process.sees("/", "ro");
    process.sees("/proc/sys", "ro");
    process.sees("/host/proc/sys/net", "rw");
}

/// Network policy alone, beside another CNI plugin: runs on every kernel.
#[tokio::test(flavor = "multi_thread")]
async fn the_firewall_variant_works_with_its_privileges() {
    let cluster = node().await;
    let pod = pod_of("kube-router-firewall-daemonset.yaml", "");
    make_host_paths(&cluster, &pod);
    let containerd = Containerd::start(cluster.node(1).unwrap(), VERSION).await;
    // As if nobody had prepared the node: the agent has to write it, by the way of /host.
    tool(&cluster, "sysctl -q -w net.bridge.bridge-nf-call-iptables=0");
    life(&cluster, &containerd, &pod, async || {
        let rules = tool(&cluster, "iptables-save -t filter");
        assert!(rules.contains("-j KUBE-ROUTER-FORWARD"), "{rules}");
        assert_eq!(tool(&cluster, "sysctl -n net.bridge.bridge-nf-call-iptables").trim(), "1");
    })
    .await;
}

/// The same from the image that holds the agent alone, by nftables.
#[tokio::test(flavor = "multi_thread")]
async fn the_firewall_variant_works_without_any_program() {
    let cluster = node().await;
    let (_, mut documents) = manifests()
        .into_iter()
        .find(|(path, _)| path.ends_with("kube-router-firewall-daemonset.yaml"))
        .unwrap();
    let tag = format!("{VERSION}-nft");
    let set = documents.iter_mut().find(|document| document["kind"] == "DaemonSet").unwrap();
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!(format!("kube-router:{tag}"));
    container["args"].as_array_mut().unwrap().push(json!("--firewall-backend=nftables"));
    let pod = Pod::of(documents);
    make_host_paths(&cluster, &pod);
    let containerd = Containerd::start(cluster.node(1).unwrap(), &tag).await;
    life(&cluster, &containerd, &pod, async || {
        let rules = tool(&cluster, "nft list ruleset");
        assert!(rules.contains("chain KUBE-ROUTER-FORWARD"), "{rules}");
        assert!(!tool(&cluster, "iptables-save").contains("KUBE-"));
    })
    .await;
}

/// Everything at once, from a bare node: modules, sysctls, CNI, then services, policy and routes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS and modules"]
async fn all_services_work_with_their_privileges() {
    let cluster = node().await;
    let pod = pod_of("kube-router-all-service-daemonset.yaml", "");
    without_cni(&cluster);
    make_host_paths(&cluster, &pod);
    let containerd = Containerd::start(cluster.node(1).unwrap(), VERSION).await;
    let keys =
        [("net.ipv4.ip_forward", "1"), ("net.ipv4.vs.conntrack", "1"), ("net.ipv4.vs.conn_reuse_mode", "0")];
    tool(&cluster, "sysctl -q -w net.ipv4.ip_forward=0");

    let said = containerd.run(&pod, "prepare-node").unwrap_or_else(|error| panic!("{error}"));
    for (key, value) in keys {
        assert_eq!(
            tool(&cluster, &format!("sysctl -n {key}")).trim(),
            value,
            "{key} after prepare-node: {said}"
        );
    }
    installs_cni(&cluster, &containerd, &pod);

    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    let service = cluster.api().create(Resource::Services, service).unwrap();
    let vip = service["spec"]["clusterIP"].as_str().unwrap();
    // Written by the agent again, by the way of /host.
    tool(&cluster, "sysctl -q -w net.ipv4.vs.conn_reuse_mode=1 net.ipv4.conf.all.arp_ignore=0");
    life(&cluster, &containerd, &pod, async || {
        let servers = tool(&cluster, "ipvsadm -Sn");
        assert!(servers.contains(&format!("-A -t {vip}:80 -s rr")), "{servers}");
        assert!(tool(&cluster, "iptables-save").contains("-j KUBE-ROUTER-SERVICES"));
        speaks(&cluster).await;
        assert_eq!(tool(&cluster, "sysctl -n net.ipv4.vs.conn_reuse_mode").trim(), "0");
        assert_eq!(tool(&cluster, "sysctl -n net.ipv4.conf.all.arp_ignore").trim(), "1");
        pods_get_addresses_of_the_node(&cluster);
    })
    .await;
}

/// A node that has neither plugins nor a configuration yet; what is written to `/opt` stays on it.
fn without_cni(cluster: &Cluster) {
    let bare = || {
        fs::remove_file("/etc/cni/net.d/10-kuberouter.conflist").unwrap();
        process::run(command("mount").args(["-t", "tmpfs", "tmpfs", "/opt"])).unwrap();
    };
    cluster.node(1).unwrap().namespace().run(bare).unwrap();
}

fn installs_cni(cluster: &Cluster, containerd: &Containerd, pod: &Pod) {
    let said = containerd.run(pod, "install-cni").unwrap_or_else(|error| panic!("{error}"));
    assert!(said.contains("wrote /etc/cni/net.d/10-kuberouter.conflist"), "{said}");
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        tool(cluster, &format!("test -x /opt/cni/bin/{plugin}"));
    }
    let again = containerd.run(pod, "install-cni").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.trim(), "", "a second time it has nothing to do");
}

fn pods_get_addresses_of_the_node(cluster: &Cluster) {
    let range = cluster.node(1).unwrap().pod_ranges()[0];
    let cni = tool(cluster, "cat /etc/cni/net.d/10-kuberouter.conflist");
    assert!(cni.contains(&range.to_string()), "{cni}");
}

/// Pod routing and network policy by the pod's own account, with the ConfigMap's kubeconfig and CNI configuration.
#[tokio::test(flavor = "multi_thread")]
async fn the_generic_variant_works_by_the_pods_account() {
    let cluster = Cluster::builder().nodes(1).start().await.unwrap();
    let pod = pod_of("generic-kuberouter.yaml", &server(&cluster));
    without_cni(&cluster);
    make_host_paths(&cluster, &pod);
    let containerd = Containerd::start(cluster.node(1).unwrap(), VERSION).await;
    installs_cni(&cluster, &containerd, &pod);
    tool(&cluster, "sysctl -q -w net.ipv4.ip_forward=0");
    life(&cluster, &containerd, &pod, async || {
        assert!(tool(&cluster, "iptables-save -t filter").contains("-j KUBE-ROUTER-FORWARD"));
        speaks(&cluster).await;
        assert_eq!(tool(&cluster, "sysctl -n net.ipv4.ip_forward").trim(), "1");
        pods_get_addresses_of_the_node(&cluster);
    })
    .await;
}
