//! What a variant does, seen on the node and from outside of the cluster: by packets, in the kernel, at routers. What it
//! does not do must not be seen.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use lab::api_server::Resource;
use lab::cluster::eventually;
use lab::node::{CONFLIST, Families};
use lab::probe::{PATIENCE, Protocol, matrix};
use lab::router::{Config, Neighbour, Router, Software};
use serde_json::{Value, json};

use super::SOON;
use super::pod::Pod;
use super::stage::{ALLOWED, FORBIDDEN, PEERS, Stage};
use super::variants::{Does, Variant};

/// Of the nodes and of the routers outside, in the manifests.
const NODES_ASN: u32 = 64512;
const ROUTERS_ASN: u32 = 65000;
/// Where the pod is reached on the node.
const HOST_PORT: u16 = 8088;
/// A part, a sysctl it keeps, a value that it does not leave, its own.
const SYSCTLS: [(Does, &str, &str, &str); 5] = [
    (Does::Policy, "net.bridge.bridge-nf-call-iptables", "0", "1"),
    (Does::Listen, "net.ipv4.ip_forward", "0", "1"),
    (Does::Proxy, "net.ipv4.vs.conntrack", "0", "1"),
    (Does::Proxy, "net.ipv4.vs.conn_reuse_mode", "1", "0"),
    (Does::Proxy, "net.ipv4.conf.all.arp_ignore", "0", "1"),
];

/// A variant at work.
pub(super) struct Works<'a> {
    pub(super) stage: &'a Stage,
    pub(super) variant: &'a Variant,
    pub(super) routers: &'a [Router],
    /// Of the service.
    pub(super) addresses: [IpNet; 3],
}

impl Works<'_> {
    /// Looks at everything.
    pub(super) async fn show(&self) {
        has_sysctls(self.stage, self.variant, "written by the agent");
        let pod = self.create_pod().await;
        self.packets(pod).await;
        self.kernel(pod).await;
        eventually(SOON, || async { self.routes() }).await.unwrap_or_else(|error| panic!("{error}"));
        self.delete_pod().await;
    }

    /// The pod behind the service, wired by what there is on the node.
    async fn create_pod(&self) -> IpAddr {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web", "namespace": "default", "labels": { "app": "web" } },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "image": "lab", "ports": [
                { "containerPort": ALLOWED, "hostPort": HOST_PORT }, { "containerPort": FORBIDDEN },
            ] }] },
        });
        let (cluster, api) = (&self.stage.cluster, self.stage.cluster.api());
        api.create(Resource::Pods, pod).unwrap();
        cluster.pods_ready(SOON).await.unwrap_or_else(|error| panic!("{error}"));
        let pod = api.get(Resource::Pods, Some("default"), "web").unwrap();
        pod["status"]["podIP"].as_str().unwrap().parse().unwrap()
    }

    /// Asked from outside: the pod, its port on the node, the service.
    async fn packets(&self, pod: IpAddr) {
        let cluster = &self.stage.cluster;
        let node = cluster.node(1).unwrap();
        for range in &self.addresses {
            cluster.outside().route(range, node).unwrap();
        }
        let mut wanted = vec![
            (SocketAddr::new(pod, ALLOWED), true),
            (SocketAddr::new(pod, FORBIDDEN), !self.variant.does(Does::Policy)),
            (SocketAddr::new(node.addresses()[0], HOST_PORT), self.variant.does(Does::HostPort)),
        ];
        wanted.extend(self.virtual_servers().map(|(vip, serves)| (SocketAddr::new(vip, 80), serves)));
        let probe = cluster.outside_probe();
        // Who is silent for a second is silent: those who answer do so in milliseconds.
        let patience = |answered| if answered { PATIENCE } else { Duration::from_secs(1) };
        let ask = |(to, answered): &(SocketAddr, bool)| {
            (probe.clone().patience(patience(*answered)), Protocol::Tcp, *to)
        };
        let cells: Vec<_> = wanted.iter().map(ask).collect();
        let look = || async {
            let outcomes = matrix(&cells).await;
            let seen = outcomes.iter().map(|outcome| outcome.as_ref().is_ok_and(|answer| answer.by == "web"));
            match seen.eq(wanted.iter().map(|(_, answered)| *answered)) {
                true => Ok(()),
                false => Err(format!("{wanted:?}: {outcomes:?}")),
            }
        };
        eventually(SOON, look).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The service's addresses, and whether the variant answers there: at those that are not of the cluster only where its
    /// arguments name their ranges, which those who tell routers of them do.
    fn virtual_servers(&self) -> impl Iterator<Item = (IpAddr, bool)> {
        let (proxy, ranges) = (self.variant.does(Does::Proxy), self.variant.does(Does::Tell));
        let served = [proxy, proxy && ranges, proxy && ranges];
        self.addresses.map(|range| range.addr()).into_iter().zip(served)
    }

    async fn kernel(&self, pod: IpAddr) {
        let rules = self.stage.tool("iptables-save");
        for (jump, part) in
            [("-j KUBE-ROUTER-FORWARD", Does::Policy), ("-j KUBE-ROUTER-SERVICES", Does::Proxy)]
        {
            assert_eq!(rules.contains(jump), self.variant.does(part), "{jump}: {rules}");
        }
        if self.variant.does(Does::Proxy) {
            let servers = self.stage.tool("ipvsadm -Sn");
            for (vip, serves) in self.virtual_servers() {
                for line in [format!("-A -t {vip}:80 -s rr"), format!("-a -t {vip}:80 -r {pod}:{ALLOWED}")] {
                    assert_eq!(servers.contains(&line), serves, "{line}: {servers}");
                }
            }
        }
        if self.variant.does(Does::Wire) {
            self.cni_file();
        }
        // `/readyz` does not speak of it.
        let listens = || async {
            let said = self.stage.tool("ss -Hltn sport = :179");
            match said.contains(":179") == self.variant.does(Does::Listen) {
                true => Ok(()),
                false => Err(format!("listening at port 179: {said:?}")),
            }
        };
        eventually(SOON, listens).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The ConfigMap's text with the node's pod network.
    fn cni_file(&self) {
        let text = self.stage.inside(|| fs::read_to_string(CONFLIST).unwrap());
        let list: Value = serde_json::from_str(&text).unwrap();
        let plugins = list["plugins"].as_array().unwrap().iter();
        let plugins: Vec<&str> = plugins.map(|plugin| plugin["type"].as_str().unwrap()).collect();
        let wanted: &[&str] =
            if self.variant.does(Does::HostPort) { &["bridge", "portmap"] } else { &["bridge"] };
        assert_eq!(plugins, wanted, "{text}");
        let range = self.stage.cluster.node(1).unwrap().pod_ranges()[0];
        assert!(text.contains(&range.to_string()), "{text}");
    }

    /// Every router knows the service by this node, and pods only of those who wire them.
    fn routes(&self) -> Result<(), String> {
        let node = self.stage.cluster.node(1).unwrap();
        let mut wanted = self.addresses.map(|vip| (vip, true)).to_vec();
        wanted.push((node.pod_ranges()[0], self.variant.does(Does::Wire)));
        for router in self.routers {
            for (prefix, known) in &wanted {
                let paths = router.paths(prefix).map_err(|error| error.to_string())?;
                let ours = paths
                    .iter()
                    .any(|path| path.next_hop == node.addresses()[0] && path.as_path == [NODES_ASN]);
                if ours != *known {
                    return Err(format!("{prefix} at {}: {paths:?}\n{}", router.name(), router.log()));
                }
            }
        }
        Ok(())
    }

    /// Waits until no router knows the service: the agent has said good-bye.
    pub(super) async fn are_no_longer_told(&self) {
        let look = || async {
            for router in self.routers {
                for vip in &self.addresses {
                    let paths = router.paths(vip).map_err(|error| error.to_string())?;
                    if !paths.is_empty() {
                        return Err(format!("{} still knows {paths:?}", router.name()));
                    }
                }
            }
            Ok(())
        };
        eventually(SOON, look).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A bridge with a pod would stay.
    async fn delete_pod(&self) {
        self.stage.cluster.api().delete(Resource::Pods, Some("default"), "web", Some(0)).unwrap();
        let look = || async {
            let ports = || fs::read_dir("/sys/class/net/kube-bridge/brif").unwrap().count();
            match self.stage.inside(ports) {
                0 => Ok(()),
                ports => Err(format!("{ports} ports of the bridge")),
            }
        };
        eventually(SOON, look).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The routers that the variant tells, peering with the node; none for others.
pub(super) fn routers(stage: &Stage, variant: &Variant) -> Vec<Router> {
    if !variant.does(Does::Tell) {
        return Vec::new();
    }
    let start = |index: u8| {
        let mut router = Router::new(stage.cluster.fabric(), 0, index, Software::Bird).unwrap();
        let own = router.addresses()[0].to_string();
        assert!(PEERS.contains(&own.as_str()), "{own}");
        let mut node = Neighbour::new(stage.cluster.node(1).unwrap().addresses()[0], NODES_ASN);
        node.families = Families::V4;
        let config = Config::new(ROUTERS_ASN, [10, 255, 1, index].into()).neighbour(node);
        router.start(config).unwrap_or_else(|error| panic!("{error}"));
        router
    };
    vec![start(1), start(2)]
}

/// Gives the sysctls of a variant's parts values that these do not leave.
pub(super) fn unlearn_sysctls(stage: &Stage, variant: &Variant) {
    let of_it = SYSCTLS.iter().filter(|(part, ..)| variant.does(*part));
    let words: Vec<String> = of_it.map(|(_, key, wrong, _)| format!("{key}={wrong}")).collect();
    // Some are there only when a module is.
    stage.tool(&format!("sysctl -qew {}", words.join(" ")));
}

fn has_sysctls(stage: &Stage, variant: &Variant, who: &str) {
    let of_it: Vec<_> = SYSCTLS.iter().filter(|(part, ..)| variant.does(*part)).collect();
    let keys: Vec<&str> = of_it.iter().map(|(_, key, ..)| *key).collect();
    let said = stage.tool(&format!("sysctl -n {}", keys.join(" ")));
    let wanted: Vec<&str> = of_it.iter().map(|(.., right)| *right).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), wanted, "{who}: {keys:?}");
}

/// `prepare-node`, which writes what the agent keeps.
pub(super) fn prepares(stage: &Stage, pod: &Pod, variant: &Variant) {
    unlearn_sysctls(stage, variant);
    let said = stage.containerd.run(pod, "prepare-node").unwrap_or_else(|error| panic!("{error}"));
    has_sysctls(stage, variant, &format!("written by prepare-node: {said}"));
}

/// `install-cni` on a node that has no configuration, and again where containers are cheap.
pub(super) fn installs_cni(stage: &Stage, pod: &Pod, variant: &Variant) {
    const PLUGINS: [&str; 5] = ["bridge", "host-local", "portmap", "loopback", "kube-router-cni"];
    let there = || PLUGINS.map(|plugin| fs::exists(format!("/opt/cni/bin/{plugin}")).unwrap());
    let install = || stage.containerd.run(pod, "install-cni").unwrap_or_else(|error| panic!("{error}"));
    let said = install();
    assert!(said.contains(&format!("wrote {CONFLIST}")), "{said}");
    assert_eq!(stage.inside(there), [true; 5], "{said}");
    if !variant.does(Does::Proxy) {
        assert_eq!(install().trim(), "", "a second time it has nothing to do");
    }
}

/// After the clean-up, of which this is the log.
pub(super) fn nothing_is_left(stage: &Stage, said: &str) {
    let rules = stage.tool("iptables-save");
    for chain in ["KUBE-ROUTER", "KUBE-POD-FW", "KUBE-NWPLCY"] {
        assert!(!rules.contains(chain), "{rules}\n{said}");
    }
    let look = || {
        // Of this thread: it alone is on the node. Without IPVS there is none.
        let servers = fs::read_to_string("/proc/thread-self/net/ip_vs").unwrap_or_default();
        let links = ["kube-bridge", "kube-dummy-if"];
        let there = |link: &&str| fs::exists(format!("/sys/class/net/{link}")).unwrap();
        (servers.lines().any(|line| line.starts_with("TCP")), links.into_iter().find(there))
    };
    assert_eq!(stage.inside(look), (false, None), "virtual servers, links: {said}");
}
