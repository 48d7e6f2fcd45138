//! `daemonset/`: every document is what the Kubernetes API takes, no field of it is unknown, the arguments are ours, and
//! the role is exactly what the agent lists and watches with them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube_router::core::{enabled_controllers, needs};
use kube_router::kube::model::Kind;
use kube_router::options::{self, Options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{file, root};

/// Upstream's names, but for the variant with direct server return, which is not built.
const VARIANTS: [&str; 11] = [
    "generic-kuberouter-all-features-advertise-routes.yaml",
    "generic-kuberouter-all-features.yaml",
    "generic-kuberouter-only-advertise-routes.yaml",
    "generic-kuberouter.yaml",
    "kube-router-all-service-daemonset-advertise-routes.yaml",
    "kube-router-all-service-daemonset.yaml",
    "kube-router-firewall-daemonset.yaml",
    "kube-router-proxy-daemonset.yaml",
    "kubeadm-kuberouter-all-features-hostport.yaml",
    "kubeadm-kuberouter-all-features.yaml",
    "kubeadm-kuberouter.yaml",
];

fn documents(name: &str) -> Vec<Value> {
    let text = file(&format!("daemonset/{name}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a kind, as the API's own type.
fn of_kind<T: DeserializeOwned>(name: &str, kind: &str) -> Vec<T> {
    let documents = documents(name).into_iter().filter(|document| document["kind"] == kind);
    documents.map(|document| serde_json::from_value(document).unwrap()).collect()
}

fn daemon_set(name: &str) -> DaemonSet {
    let mut sets = of_kind(name, "DaemonSet");
    assert_eq!(sets.len(), 1, "{name}");
    sets.remove(0)
}

fn pod(name: &str) -> PodSpec {
    daemon_set(name).spec.unwrap().template.spec.unwrap()
}

/// The agent's container.
fn agent(name: &str) -> Container {
    let mut containers = pod(name).containers;
    assert_eq!(containers.len(), 1, "{name}");
    containers.remove(0)
}

fn agent_options(name: &str) -> Options {
    let args = agent(name).args.unwrap();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Options::from_flags(&args).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

#[test]
fn every_variant_is_there() {
    let entries = std::fs::read_dir(root().join("daemonset")).unwrap();
    let there: BTreeSet<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let expected = VARIANTS.iter().chain(&["rbac.yaml"]).map(|name| (*name).to_owned()).collect();
    assert_eq!(there, expected);
}

/// Read into the API's type and written again, nothing may be lost: what the type does not know is dropped.
fn strictly<T: DeserializeOwned + Serialize>(name: &str, document: &Value) {
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|error| panic!("{name}: {}: {error}", document["kind"]));
    let again = serde_json::to_value(&typed).unwrap();
    let mut lost = Vec::new();
    compare(document, &again, "", &mut lost);
    assert!(lost.is_empty(), "{name}: {} has fields the API does not know: {lost:?}", document["kind"]);
}

fn compare(given: &Value, typed: &Value, path: &str, lost: &mut Vec<String>) {
    match (given, typed) {
        (Value::Object(given), Value::Object(typed)) => {
            for (key, value) in given {
                let path = format!("{path}.{key}");
                match typed.get(key) {
                    Some(typed) => compare(value, typed, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(typed)) if given.len() == typed.len() => {
            for (at, (given, typed)) in given.iter().zip(typed).enumerate() {
                compare(given, typed, &format!("{path}[{at}]"), lost);
            }
        }
        (given, typed) if given == typed => {}
        _ => lost.push(path.to_owned()),
    }
}

#[test]
fn documents_are_what_the_api_takes() {
    for name in VARIANTS.iter().chain(&["rbac.yaml"]) {
        for document in documents(name) {
            match document["kind"].as_str().unwrap() {
                "ConfigMap" => strictly::<ConfigMap>(name, &document),
                "DaemonSet" => strictly::<DaemonSet>(name, &document),
                "ServiceAccount" => strictly::<ServiceAccount>(name, &document),
                "ClusterRole" => strictly::<ClusterRole>(name, &document),
                "ClusterRoleBinding" => strictly::<ClusterRoleBinding>(name, &document),
                kind => panic!("{name}: {kind}"),
            }
        }
    }
}

#[test]
fn an_unknown_field_is_noticed() {
    let mut document = documents("rbac.yaml").remove(0);
    document["metadata"]["labeels"] = Value::from("x");
    let outcome = std::panic::catch_unwind(|| strictly::<ServiceAccount>("rbac.yaml", &document));
    assert!(outcome.is_err());
}

/// Arguments parse, are without effect nowhere, and say explicitly what upstream has another default for.
#[test]
fn arguments_are_ours() {
    for name in VARIANTS {
        let options = agent_options(name);
        assert!(options.warnings.is_empty(), "{name}: {:?}", options.warnings);
        assert_eq!(options::unbuilt(&options), Vec::<&str>::new(), "{name}");
        let args = agent(name).args.unwrap();
        for flag in ["--run-router=", "--run-firewall=", "--run-service-proxy="] {
            assert!(args.iter().any(|arg| arg.starts_with(flag)), "{name}: {flag}… is not said");
        }
        let prepared = pod(name).init_containers.unwrap().remove(0);
        assert_eq!(prepared.name, "prepare-node", "{name}");
        let parts: BTreeSet<String> = prepared.command.unwrap().into_iter().skip(1).collect();
        let controllers = options.controllers;
        let running = [
            ("routes", controllers.routes),
            ("policy", controllers.network_policy),
            ("proxy", controllers.service_proxy),
        ];
        let running =
            running.into_iter().filter(|(_, runs)| *runs).map(|(part, _)| part.to_owned()).collect();
        assert_eq!(parts, running, "{name}: the node is prepared for what runs");
    }
}

fn resource(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Service => ("", "services"),
        Kind::EndpointSlice => ("discovery.k8s.io", "endpointslices"),
        Kind::Node => ("", "nodes"),
        Kind::Pod => ("", "pods"),
        Kind::Namespace => ("", "namespaces"),
        Kind::NetworkPolicy => ("networking.k8s.io", "networkpolicies"),
    }
}

type Grants = BTreeMap<(String, String), BTreeSet<String>>;

fn granted(name: &str) -> Option<Grants> {
    let mut grants = Grants::new();
    let role = of_kind::<ClusterRole>(name, "ClusterRole").into_iter().next()?;
    for rule in role.rules.unwrap() {
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.as_ref().unwrap() {
                let verbs = rule.verbs.iter().cloned().collect();
                assert!(
                    grants.insert((group.clone(), resource.clone()), verbs).is_none(),
                    "{name}: {resource} twice"
                );
            }
        }
    }
    Some(grants)
}

fn asked(options: &Options) -> Grants {
    let watches = needs(&enabled_controllers(options), &"node-1".into(), options).watches;
    let verbs: BTreeSet<String> = ["list", "watch"].map(str::to_owned).into();
    let kinds = watches.into_iter().map(|selection| resource(selection.kind));
    kinds.map(|(group, resource)| ((group.to_owned(), resource.to_owned()), verbs.clone())).collect()
}

/// No more and no less; where a file has no role, `rbac.yaml` has it.
#[test]
fn the_role_is_exactly_what_is_watched() {
    let everything = Options::from_flags(&["--run-router", "--run-firewall", "--run-service-proxy"]).unwrap();
    assert_eq!(granted("rbac.yaml").unwrap(), asked(&everything));
    for name in VARIANTS {
        match granted(name) {
            Some(granted) => assert_eq!(granted, asked(&agent_options(name)), "{name}"),
            None => assert!(name.starts_with("kube-router-"), "{name} has no role"),
        }
    }
}

/// The agent is no privileged container, in any variant, and its root is read-only.
#[test]
fn the_agent_has_named_privileges_only() {
    for name in VARIANTS {
        let security = agent(name).security_context.unwrap();
        assert_eq!(security.privileged, None, "{name}");
        assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
        assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault", "{name}");
        let capabilities = security.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"], "{name}");
        let mut expected = vec!["NET_ADMIN", "NET_RAW"];
        expected.extend(agent_options(name).controllers.routes.then_some("NET_BIND_SERVICE"));
        assert_eq!(capabilities.add.unwrap(), expected, "{name}");
        let pod = pod(name);
        assert_eq!((pod.host_network, pod.host_pid, pod.host_ipc), (Some(true), None, None), "{name}");
        let privileged = |container: &Container| {
            container.security_context.as_ref().and_then(|security| security.privileged) == Some(true)
        };
        let privileged: Vec<String> = pod
            .init_containers
            .unwrap()
            .into_iter()
            .filter(privileged)
            .map(|container| container.name)
            .collect();
        assert_eq!(privileged, ["prepare-node"], "{name}");
    }
}

/// Probes ask the port and paths of the agent; volumes that are mounted exist and those that exist are mounted.
#[test]
fn the_pod_is_of_one_piece() {
    for name in VARIANTS {
        let (pod, agent) = (pod(name), agent(name));
        let health = agent_options(name).endpoints.health.unwrap();
        for (probe, path) in [(agent.liveness_probe, "/healthz"), (agent.readiness_probe, "/readyz")] {
            let get = probe.unwrap().http_get.unwrap();
            let port = serde_json::to_value(get.port).unwrap();
            assert_eq!((get.path.as_deref(), port), (Some(path), Value::from(health.port)), "{name}");
        }
        let volumes: BTreeSet<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
        let containers = pod.init_containers.unwrap().into_iter().chain(pod.containers);
        let containers: Vec<Container> = containers.collect();
        let mounts = containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
        let mounted: BTreeSet<String> = mounts.map(|mount| mount.name.clone()).collect();
        assert_eq!(volumes, mounted, "{name}");
        let images: BTreeSet<&str> =
            containers.iter().filter_map(|container| container.image.as_deref()).collect();
        let expected = format!("kube-router:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(images, [expected.as_str()].into(), "{name}");
        let labels = daemon_set(name).spec.unwrap().selector.match_labels.unwrap();
        let upstream = [("k8s-app", "kube-router"), ("tier", "node")];
        assert_eq!(labels, upstream.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), "{name}");
    }
}

/// One text for how pods are wired, wherever it is written.
#[test]
fn cni_configurations_say_the_same() {
    let list: Value = serde_json::from_str(&file("cni/10-kuberouter.conflist")).unwrap();
    let single: Value = serde_json::from_str(&file("cni/10-kuberouter.conf")).unwrap();
    for key in ["type", "bridge", "isDefaultGateway", "hairpinMode", "ipam"] {
        assert_eq!(list["plugins"][0][key], single[key], "{key}");
    }
    assert_eq!((&list["name"], &list["cniVersion"]), (&single["name"], &single["cniVersion"]));
    let mut seen = 0;
    for name in VARIANTS {
        for map in of_kind::<ConfigMap>(name, "ConfigMap") {
            let Some(text) = map.data.unwrap().remove("cni-conf.json") else { continue };
            let shipped: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let plugins = shipped["plugins"].as_array().unwrap().len();
            assert_eq!(plugins, if name.contains("hostport") { 2 } else { 1 }, "{name}");
            assert_eq!(shipped["plugins"][0], list["plugins"][0], "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// The systemd unit grants what the manifests grant, and the flags its comment shows are ours.
#[test]
fn the_unit_agrees_with_the_manifests() {
    let unit = file("packaging/kube-router.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    assert_eq!(value("CapabilityBoundingSet"), "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE");
    assert_eq!(value("ExecStart"), "/usr/local/bin/kube-router $KUBE_ROUTER_FLAGS");
    assert_eq!(value("RuntimeDirectoryPreserve"), "yes", "records of wired pods outlive the agent");
    let flags = unit.lines().find_map(|line| line.strip_prefix("#   KUBE_ROUTER_FLAGS=")).unwrap();
    let options = Options::from_flags(&flags.split(' ').collect::<Vec<_>>()).unwrap();
    assert!(options.warnings.is_empty() && options::unbuilt(&options).is_empty());
}
