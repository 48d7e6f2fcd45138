//! One node with a container runtime in a cluster as kubeadm makes it: the API server speaks TLS to those who show a token,
//! and is found by the node's kubeconfig, by an address in the manifest, by kube-proxy's ConfigMap, or through its Service.
//!
//! Beside the agent there is what it works from: a service of all kinds, and a policy for the pods behind it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use lab::api_server::{Resource, Tls};
use lab::cluster::{Authority, Cluster, eventually, kubeconfig_text};
use lab::process::{self, command};
use serde_json::{Value, json};

use super::SOON;
use super::containerd::Containerd;
use super::pod::{ACCOUNT, API_SERVICE, Pod};
use crate::root;

/// Where an agent finds the node's kubeconfig, and what is beside it.
const OWN: &str = "/var/lib/kube-router";
/// In the range that the manifests have for an example.
const EXTERNAL: &str = "198.51.100.10";
/// The same of load balancers.
const BALANCERS: &str = "203.0.113.0/24";
/// In [`lab::cluster`]'s plan, of the first router.
pub(super) const PEERS: [&str; 2] = ["172.31.0.101", "172.31.0.102"];
/// What everyone may ask of the service's pods, and what the policy forbids.
pub(super) const ALLOWED: u16 = 8080;
pub(super) const FORBIDDEN: u16 = 8081;

/// How an agent comes to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the kubeconfig that was put on the node.
    Node,
    /// By an address that the user has put into the manifest, as the pod's account.
    Address,
    /// By the kubeconfig that kubeadm has made for kube-proxy, as the pod's account.
    KubeProxysMap,
    /// Through the API server's Service, which kube-proxy serves, as the pod's account.
    Service,
}

/// Fields go in order: containers before the node.
pub(super) struct Stage {
    pub(super) containerd: Containerd,
    pub(super) cluster: Cluster,
    server: SocketAddr,
    /// What a pod is given of its account.
    account: tempfile::TempDir,
}

impl Stage {
    /// A node on which nothing of ours has run yet.
    pub(super) async fn start() -> Self {
        let builder = Cluster::builder().nodes(1).load_balancers([BALANCERS.parse().unwrap()]);
        let cluster = builder.start().await.unwrap();
        let account = tempfile::tempdir().unwrap();
        let server = serve_tls(&cluster, account.path());
        give_kubeconfig(&cluster, server, account.path());
        cluster.node(1).unwrap().namespace().run(bare).unwrap();
        // A node that does not serve an address says that the gateway knows better, of which the next variant should not suffer.
        let deaf = ["all", "eth0"].map(|link| format!("net/ipv4/conf/{link}/accept_redirects"));
        cluster.outside().namespace().sysctls(&deaf.each_ref().map(|key| (key.as_str(), "0"))).unwrap();
        create_objects(&cluster);
        let containerd = Containerd::start(cluster.node(1).unwrap()).await;
        Self { containerd, cluster, server, account }
    }

    /// The pod of these documents, after the user did what their head asks for, in a cluster that lets in only who comes
    /// this way.
    pub(super) fn pod_of(&self, documents: Vec<Value>, way: Way) -> Pod {
        self.cluster.faults().set_tokens([if way == Way::Node { "of-the-node" } else { "of-the-account" }]);
        let server = format!("https://{}", self.server);
        let mut text = Value::Array(documents).to_string();
        assert_eq!(text.contains("%APISERVER%"), way == Way::Address, "{text}");
        text = text.replace("%APISERVER%", &server).replace("192.0.2.1,192.0.2.2", &PEERS.join(","));
        let mut documents: Vec<Value> = serde_json::from_str(&text).unwrap();
        if way == Way::KubeProxysMap {
            let cluster = json!({ "server": server, "certificate-authority": format!("{ACCOUNT}/ca.crt") });
            let config = kubeconfig_text(&cluster, &json!({ "tokenFile": format!("{ACCOUNT}/token") }));
            documents.push(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
                "data": { "kubeconfig.conf": config },
            }));
        }
        if way == Way::Service {
            self.as_kube_proxy();
        }
        let pod = Pod::of(&documents, self.account.path());
        self.make_host_paths(&pod);
        pod
    }

    /// What kube-proxy does for the API server's Service, as far as the node's own processes go.
    fn as_kube_proxy(&self) {
        let (ip, port) = API_SERVICE;
        let to = format!("-d {ip}/32 -p tcp --dport {port} -j DNAT --to-destination {}", self.server);
        for line in
            ["-N KUBE-SERVICES".into(), "-A OUTPUT -j KUBE-SERVICES".into(), format!("-A KUBE-SERVICES {to}")]
        {
            self.tool(&format!("iptables -t nat {line}"));
        }
    }

    /// What the kubelet does before any container starts.
    fn make_host_paths(&self, pod: &Pod) {
        let (folders, files) = pod.made_by_the_kubelet();
        self.inside(move || {
            folders.iter().try_for_each(fs::create_dir_all).unwrap();
            for file in files {
                fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            }
        });
    }

    /// The documented pod that cleans up a node.
    pub(super) fn clean_up(&self) -> String {
        let text = block("```yaml", "name: kube-router-cleanup").replace("NODE", "node-1");
        let pod = Pod::of(&[serde_saphyr::from_str(&text).unwrap()], self.account.path());
        self.make_host_paths(&pod);
        self.containerd.run(&pod, "cleanup").unwrap_or_else(|error| panic!("{error}"))
    }

    /// The documented removal of files: nothing is left by which pods are wired.
    pub(super) fn remove_files(&self) {
        let script = block("```sh", "rm -f /etc/cni/net.d");
        self.inside(move || process::run(command("sh").args(["-ec", &script])).unwrap());
    }

    /// Output of a program on the node.
    pub(super) fn tool(&self, line: &str) -> String {
        self.cluster.on_node(1, line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Does something on the node.
    pub(super) fn inside<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        self.cluster.node(1).unwrap().namespace().run(work).unwrap()
    }

    /// The service's addresses: of the cluster, of the user, of a load balancer.
    pub(super) async fn addresses(&self) -> [IpNet; 3] {
        let look = || async {
            let service = self.cluster.api().get(Resource::Services, Some("default"), "web").unwrap();
            let places = ["/spec/clusterIP", "/spec/externalIPs/0", "/status/loadBalancer/ingress/0/ip"];
            let at = |place| service.pointer(place).and_then(Value::as_str).map(str::to_owned);
            let found: Option<Vec<String>> = places.into_iter().map(at).collect();
            found.ok_or_else(|| format!("addresses of the service: {service}"))
        };
        let found = eventually(SOON, look).await.unwrap();
        [0, 1, 2].map(|at| format!("{}/32", found[at]).parse().unwrap())
    }
}

/// What is written to `/opt` stays on the node, and pods are wired by the plugins that are there, where they are.
fn bare() {
    process::run(command("mount").args(["-t", "tmpfs", "tmpfs", "/opt"])).unwrap();
    std::os::unix::fs::symlink("/opt/cni/bin", "/run/cni-plugins").unwrap();
}

/// Serves as kube-apiserver does, and writes what pods are given of their account.
fn serve_tls(cluster: &Cluster, account: &Path) -> SocketAddr {
    let folder = cluster.fabric().folder();
    let authority = Authority::new(&folder.join("pki"), "kubernetes").unwrap();
    let mut names = cluster.fabric().gateway(0);
    names.push(API_SERVICE.0.parse().unwrap());
    let own = authority.server("kube-apiserver", &names).unwrap();
    let clients = authority.certificate().to_owned();
    fs::copy(&clients, account.join("ca.crt")).unwrap();
    fs::write(account.join("token"), "of-the-account").unwrap();
    fs::write(account.join("namespace"), "kube-system").unwrap();
    cluster.serve_tls(&Tls { certificate: own.certificate, key: own.key, clients }).unwrap()[0]
}

/// Puts a kubeconfig on the node, with the authority beside it.
fn give_kubeconfig(cluster: &Cluster, server: SocketAddr, account: &Path) {
    let authority = fs::read(account.join("ca.crt")).unwrap();
    let place = json!({
        "server": format!("https://{server}"), "certificate-authority": format!("{OWN}/ca.crt"),
    });
    let config = kubeconfig_text(&place, &json!({ "token": "of-the-node" }));
    let write = move || {
        fs::write(format!("{OWN}/ca.crt"), authority).unwrap();
        fs::write(format!("{OWN}/kubeconfig"), config).unwrap();
    };
    cluster.node(1).unwrap().namespace().run(write).unwrap();
}

fn create_objects(cluster: &Cluster) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "web" }, "externalIPs": [EXTERNAL],
            "ports": [{ "port": 80, "targetPort": ALLOWED }],
        },
    });
    let policy = json!({
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "ports": [{ "port": ALLOWED }] }],
        },
    });
    cluster.api().create(Resource::Services, service).unwrap();
    cluster.api().create(Resource::NetworkPolicies, policy).unwrap();
}

/// The one code block of the page about manifests that begins like this and has this in it.
fn block(begin: &str, with: &str) -> String {
    let text = fs::read_to_string(root().join("docs/packaging.md")).unwrap();
    let begin = format!("\n{begin}\n");
    let blocks = text.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let found: Vec<&str> = blocks.filter(|block| block.contains(with)).collect();
    assert_eq!(found.len(), 1, "{with}");
    found[0].to_owned()
}
