//! Every manifest of `daemonset/`, run as its head says, one after the other on one node: each takes over from the one
//! before, and the node is cleaned up in the end, as `docs/packaging.md` says.
//!
//! What each does is said here and looked for in [`super::work`], where it must be and, elsewhere, must not be. Those with
//! the service proxy need IPVS; the others run on every kernel.

use std::time::Instant;

use serde_json::{Value, json};

use super::life::life;
use super::stage::{Stage, Way};
use super::work::{Works, installs_cni, nothing_is_left, prepares, routers, unlearn_sysctls};
use crate::manifests;

/// A manifest, how its agent finds the API server, and what it does.
pub(super) struct Variant {
    file: &'static str,
    way: Way,
    does: &'static [Does],
}

/// What a user sees of a part of kube-router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Forbids what policies do not allow.
    Policy,
    /// Answers at addresses of services.
    Proxy,
    /// Listens for BGP peers.
    Listen,
    /// Wires pods: CNI configuration and plugins.
    Wire,
    /// The same for their `hostPort`s.
    HostPort,
    /// Tells routers outside where services are.
    Tell,
}
use Does::{HostPort, Listen, Policy, Proxy, Tell, Wire};

/// Those beside another CNI plugin first: the node comes with a configuration that is not ours to them. None comes after one
/// that leaves in the kernel what it does not do itself: an agent that ends leaves everything.
const NATIVE: [Variant; 4] = [
    Variant {
        file: "generic-kuberouter-only-advertise-routes.yaml",
        way: Way::Address,
        does: &[Listen, Tell],
    },
    Variant { file: "kube-router-firewall-daemonset.yaml", way: Way::Node, does: &[Policy] },
    Variant { file: "generic-kuberouter.yaml", way: Way::Address, does: &[Policy, Listen, Wire] },
    Variant { file: "kubeadm-kuberouter.yaml", way: Way::Service, does: &[Policy, Listen, Wire] },
];

const WITH_PROXY: [Variant; 7] = [
    Variant { file: "kube-router-proxy-daemonset.yaml", way: Way::Node, does: &[Proxy] },
    Variant { file: "kube-router-all-service-daemonset.yaml", way: Way::Node, does: ALL },
    Variant {
        file: "kube-router-all-service-daemonset-advertise-routes.yaml",
        way: Way::Node,
        does: ALL_AND_TELL,
    },
    Variant { file: "generic-kuberouter-all-features.yaml", way: Way::Address, does: ALL },
    Variant {
        file: "generic-kuberouter-all-features-advertise-routes.yaml",
        way: Way::Address,
        does: ALL_AND_TELL,
    },
    Variant { file: "kubeadm-kuberouter-all-features.yaml", way: Way::KubeProxysMap, does: ALL },
    Variant {
        file: "kubeadm-kuberouter-all-features-hostport.yaml",
        way: Way::KubeProxysMap,
        does: &[Policy, Proxy, Listen, Wire, HostPort],
    },
];
const ALL: &[Does] = &[Policy, Proxy, Listen, Wire];
const ALL_AND_TELL: &[Does] = &[Policy, Proxy, Listen, Wire, Tell];

impl Variant {
    pub(super) fn does(&self, what: Does) -> bool {
        self.does.contains(&what)
    }
}

fn documents(variant: &str) -> Vec<Value> {
    manifests().into_iter().find(|(path, _)| path.ends_with(variant)).unwrap().1
}

#[test]
fn every_manifest_is_run() {
    let mut run: Vec<&str> = NATIVE.iter().chain(&WITH_PROXY).map(|variant| variant.file).collect();
    run.sort_unstable();
    let sets = manifests()
        .into_iter()
        .filter(|(_, documents)| documents.iter().any(|document| document["kind"] == "DaemonSet"));
    let there: Vec<String> =
        sets.map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(run, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_without_the_service_proxy_work_with_their_privileges() {
    one_after_the_other(&NATIVE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS and modules"]
async fn variants_with_the_service_proxy_work_with_their_privileges() {
    one_after_the_other(&WITH_PROXY).await;
}

async fn one_after_the_other(variants: &[Variant]) {
    let began = Instant::now();
    let stage = Stage::start().await;
    println!("the stage: {:.1} s", began.elapsed().as_secs_f32());
    for variant in variants {
        let began = Instant::now();
        run(&stage, variant).await;
        println!("{}: {:.1} s", variant.file, began.elapsed().as_secs_f32());
    }
    let said = stage.clean_up();
    nothing_is_left(&stage, &said);
}

async fn run(stage: &Stage, variant: &Variant) {
    if variant.does(Wire) {
        stage.remove_files();
    }
    let pod = stage.pod_of(documents(variant.file), variant.way);
    prepares(stage, &pod, variant);
    if variant.does(Wire) {
        installs_cni(stage, &pod, variant);
    }
    let routers = routers(stage, variant);
    let works = Works { stage, variant, routers: &routers, addresses: stage.addresses().await };
    // The agent has to write them again, by the way of /host.
    unlearn_sysctls(stage, variant);
    life(stage, &pod, async || works.show().await).await;
    works.are_no_longer_told().await;
}

/// Network policy from the image that holds the agent alone, by nftables.
#[tokio::test(flavor = "multi_thread")]
async fn the_firewall_variant_works_without_any_program() {
    let tag = concat!(env!("CARGO_PKG_VERSION"), "-nft");
    let mut documents = documents("kube-router-firewall-daemonset.yaml");
    let set = documents.iter_mut().find(|document| document["kind"] == "DaemonSet").unwrap();
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!(format!("kube-router:{tag}"));
    container["args"].as_array_mut().unwrap().push(json!("--firewall-backend=nftables"));
    let stage = Stage::start().await;
    let pod = stage.pod_of(documents, Way::Node);
    life(&stage, &pod, async || {
        let rules = stage.tool("nft list ruleset");
        assert!(rules.contains("chain KUBE-ROUTER-FORWARD"), "{rules}");
        assert!(!stage.tool("iptables-save").contains("KUBE-"));
    })
    .await;
}
