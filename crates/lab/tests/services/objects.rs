//! Objects that are nobody's, somebody else's, contested, malformed or very large: none of them disturbs the others.

use std::net::SocketAddr;

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::Protocol;
use serde_json::{Value, json};

use crate::setup::{
    Cell, SOON, cluster, cluster_ips, http, in_pod, log, metric, pod, pod_ips, reach, ready, service, tool,
    until, web_cells,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn odd_objects_do_not_disturb_others() {
    let cluster = cluster(1, &[]).await;
    // The older of two that will contest an address: made first, and last by name.
    let external = json!({ "spec": { "externalIPs": ["203.0.113.7", "fd03::7"] } });
    let web = service(&cluster, "zz-older", "web", external.clone());
    for (name, app) in [("web-1", "web"), ("other-1", "other"), ("c-1", "client")] {
        pod(&cluster, name, 1, app);
    }
    ready(&cluster, &["web-1", "other-1", "c-1"]).await;
    let probe = in_pod(&cluster, "c-1");
    reach("an ordinary service", &web_cells(&probe, &web), &["web-1"]).await;

    not_ours(&cluster).await;
    without_a_selector(&cluster).await;
    alike(&cluster).await;
    contested(&cluster, external).await;
    malformed(&cluster).await;
    five_thousand_endpoints(&cluster).await;
    let younger = cluster.api().get(Resource::Services, Some("default"), "aa-younger").unwrap();
    reach("an ordinary service after all that", &web_cells(&probe, &younger), &["other-1"]).await;
    let (status, body) = http(&cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "{body}");
}

/// Labels that give a service to somebody else, or to nobody.
async fn not_ours(cluster: &Cluster) {
    let labelled = |label: &str, value: &str| json!({ "metadata": { "labels": { label: value } } });
    let headless = labelled("service.kubernetes.io/headless", "");
    let another = labelled("service.kubernetes.io/service-proxy-name", "another");
    let ours = labelled("service.kubernetes.io/service-proxy-name", "kube-router");
    let none = json!({ "spec": { "clusterIP": "None" } });
    let not: Vec<Value> = [("headless", headless), ("another", another), ("none", none)]
        .into_iter()
        .map(|(name, more)| service(cluster, name, "web", more))
        .collect();
    let ours = service(cluster, "named", "web", ours);
    let there = format!("-A -t {}:80 -s rr\n", cluster_ips(&ours)[0]);
    until("a service named for us", cluster, 1, "ipvsadm -Sn", |text| text.contains(&there)).await;
    let all = tool(cluster, 1, "ipvsadm -Sn");
    for other in &not {
        let ip = &other["spec"]["clusterIP"].as_str().unwrap();
        assert!(!all.contains(&format!("{ip}:")), "{other} is not ours: {all}");
    }
    // Given to another while it is served, and taken back.
    let label = |value: Value| {
        let patch =
            json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": value } } });
        cluster.api().patch(Resource::Services, Some("default"), "named", &patch).unwrap();
    };
    label(json!("another"));
    until("given to another", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&there)).await;
    label(Value::Null);
    until("taken back", cluster, 1, "ipvsadm -Sn", |text| text.contains(&there)).await;
}

fn slice(name: &str, service: &str, addresses: &[String], port: Value) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true, "serving": true, "terminating": false } }))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "ports": [port], "endpoints": endpoints,
    })
}

async fn without_a_selector(cluster: &Cluster) {
    let manual = service(cluster, "manual", "web", json!({ "spec": { "selector": null } }));
    let ip = pod_ips(cluster, "other-1")[0].to_string();
    let port = json!({ "name": "web", "port": 8080, "protocol": "TCP" });
    cluster.api().create(Resource::EndpointSlices, slice("manual-1", "manual", &[ip], port)).unwrap();
    let to = SocketAddr::new(cluster_ips(&manual)[0], 80);
    reach("endpoints written by hand", &[(in_pod(cluster, "c-1"), Protocol::Tcp, to)], &["other-1"]).await;
}

/// Names that differ only in where the namespace ends: `team/a-web` and `team-a/web` are two services.
async fn alike(cluster: &Cluster) {
    let mut made = Vec::new();
    for (namespace, name, backend) in [("team", "a-web", "web-1"), ("team-a", "web", "other-1")] {
        let space = json!({ "metadata": { "name": namespace } });
        cluster.api().create(Resource::Namespaces, space).unwrap();
        let more = json!({ "metadata": { "namespace": namespace }, "spec": { "selector": null } });
        let to = SocketAddr::new(cluster_ips(&service(cluster, name, "web", more))[0], 80);
        let ip = pod_ips(cluster, backend)[0];
        let port = json!({ "name": "web", "port": 8080, "protocol": "TCP" });
        let mut endpoints = slice(&format!("{name}-1"), name, &[ip.to_string()], port);
        endpoints["metadata"]["namespace"] = json!(namespace);
        api_slice(cluster, endpoints);
        made.push((to, ip, backend));
    }
    let probe = in_pod(cluster, "c-1");
    for (to, ip, backend) in &made {
        reach("a service with a like name", &[(probe.clone(), Protocol::Tcp, *to)], &[*backend]).await;
        let all = tool(cluster, 1, "ipvsadm -Sn");
        let own = format!("-a -t {to} -r ");
        let servers: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix(own.as_str())).collect();
        assert!(matches!(servers[..], [one] if one.starts_with(&format!("{ip}:8080 "))), "{to}: {servers:?}");
    }
    cluster.api().delete(Resource::Services, Some("team"), "a-web", None).unwrap();
    let gone = format!("-t {} ", made[0].0);
    until("one of them goes", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&gone)).await;
    reach("the other stays", &[(probe, Protocol::Tcp, made[1].0)], &[made[1].2]).await;
}

async fn contested(cluster: &Cluster, external: Value) {
    let probe = cluster.outside_probe();
    let node = cluster.node(1).unwrap();
    let cells: Vec<Cell> = ["203.0.113.7", "fd03::7"]
        .map(|ip| (probe.clone(), Protocol::Tcp, SocketAddr::new(ip.parse().unwrap(), 80)))
        .to_vec();
    for range in ["203.0.113.0/24", "fd03::/112"] {
        cluster.outside().route(&range.parse().unwrap(), node).unwrap();
    }
    reach("before the contest", &cells, &["web-1"]).await;
    let younger = service(cluster, "aa-younger", "other", external);
    let own = (probe.clone(), Protocol::Tcp, SocketAddr::new(cluster_ips(&younger)[0], 80));
    let own = [(in_pod(cluster, "c-1"), own.1, own.2)];
    reach("the younger is served at its own address", &own, &["other-1"]).await;
    reach("the older keeps what both want", &cells, &["web-1"]).await;
    // Once for each of its two addresses on each of three ports, and for no other reason.
    let log = log(cluster, 1);
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("WARN") && line.contains("aa-younger")).collect();
    let older = "is already served by the older Service default/zz-older";
    assert!(told.len() == 6 && told.iter().all(|line| line.contains(older)), "the loser is told once: {log}");
    let web = told.iter().filter(|line| line.contains("203.0.113.7:80")).count();
    assert_eq!(web, 1, "one warning for one address and port: {log}");
    assert_eq!(metric(cluster, 1, "kube_router_rejected_objects"), 1.0);
    cluster.api().delete(Resource::Services, Some("default"), "zz-older", None).unwrap();
    reach("the next takes over", &cells, &["other-1"]).await;
    let none_rejected = || async {
        let count = metric(cluster, 1, "kube_router_rejected_objects");
        if count == 0.0 { Ok(()) } else { Err(format!("{count} rejected objects")) }
    };
    eventually(SOON, none_rejected).await.unwrap();
}

/// Everything an API server without validation would let through.
async fn malformed(cluster: &Cluster) {
    let api = cluster.api();
    let annotated = |key: &str, value: &str| json!({ "metadata": { "annotations": { key: value } } });
    service(cluster, "bad-scheduler", "web", annotated("kube-router.io/service.scheduler", "nonsense"));
    service(cluster, "bad-external", "web", json!({ "spec": { "externalIPs": ["999.1.2.3", "192.0.2.9"] } }));
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "not-an-address" }] } } });
    service(cluster, "bad-balancer", "web", status);
    let wanted = json!({ "name": "web", "port": 8080, "protocol": "TCP" });
    let slices = [
        ("bad-port", json!({ "name": "web", "port": null }), "10.9.9.1"),
        ("bad-range", json!({ "name": "web", "port": 70000, "protocol": "TCP" }), "10.9.9.2"),
        ("bad-protocol", json!({ "name": "web", "port": 80, "protocol": "DCCP" }), "10.9.9.3"),
        ("bad-address", wanted.clone(), "10.9.9.300"),
        ("bad-family", wanted, "fd00::9"),
    ];
    let victim = service(cluster, "victim", "web", json!({}));
    for (name, port, ip) in slices {
        api.create(Resource::EndpointSlices, slice(name, "victim", &[ip.to_owned()], port)).unwrap();
    }
    let after = service(cluster, "after", "web", json!({}));
    let probe = in_pod(cluster, "c-1");
    let cells = [web_cells(&probe, &victim), web_cells(&probe, &after)].concat();
    reach("the good endpoints, and a service after them", &cells, &["web-1"]).await;
    let told = || async {
        let log = log(cluster, 1);
        let all = [
            "bad-scheduler",
            "192.0.2.9",
            "999.1.2.3",
            "not-an-address",
            "bad-range",
            "bad-protocol",
            "10.9.9.300",
        ];
        let missing: Vec<&str> = all.into_iter().filter(|text| !log.contains(text)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("nothing is said of {missing:?}: {log}")) }
    };
    eventually(SOON, told).await.unwrap();
    // Once: changes of other objects, and of theirs that mend nothing, repeat no warning.
    let warnings = || {
        let text = log(cluster, 1);
        let about = |line: &&str| ["bad-", "victim", "default/after"].iter().any(|name| line.contains(name));
        text.lines().filter(|line| line.contains("WARN")).filter(about).count()
    };
    let before = warnings();
    let patch = annotated("unrelated", "x");
    for name in ["bad-scheduler", "bad-external", "after"] {
        api.patch(Resource::Services, Some("default"), name, &patch).unwrap();
    }
    let last = service(cluster, "last", "web", json!({}));
    let cell = (probe, Protocol::Tcp, SocketAddr::new(cluster_ips(&last)[0], 80));
    reach("a service after the changes", &[cell], &["web-1"]).await;
    assert_eq!(warnings(), before, "{}", log(cluster, 1));
    assert!(metric(cluster, 1, "kube_router_rejected_objects") >= 6.0);
    let (status, body) = http(cluster, 1, "http://127.0.0.1:20244/healthz");
    assert_eq!(status, 200, "{body}");
}

async fn five_thousand_endpoints(cluster: &Cluster) {
    let huge = service(
        cluster,
        "huge",
        "web",
        json!({ "spec": { "selector": null, "ipFamilyPolicy": "SingleStack" } }),
    );
    for part in 0..5 {
        let ips: Vec<String> =
            (0..1000).map(|n| format!("10.250.{}.{}", part * 4 + n / 250, n % 250 + 1)).collect();
        let port = json!({ "name": "web", "port": 8080, "protocol": "TCP" });
        api_slice(cluster, slice(&format!("huge-{part}"), "huge", &ips, port));
    }
    let ip = cluster_ips(&huge)[0];
    let servers =
        |text: &str| text.lines().filter(|line| line.starts_with(&format!("-a -t {ip}:80 -r "))).count();
    until("5,000 real servers", cluster, 1, "ipvsadm -Sn", |text| servers(text) == 5000).await;
    let last = SocketAddr::new(
        cluster_ips(&cluster.api().get(Resource::Services, Some("default"), "last").unwrap())[0],
        80,
    );
    reach("another service beside it", &[(in_pod(cluster, "c-1"), Protocol::Tcp, last)], &["web-1"]).await;
    cluster.api().delete(Resource::EndpointSlices, Some("default"), "huge-0", None).unwrap();
    until("a thousand fewer", cluster, 1, "ipvsadm -Sn", |text| servers(text) == 4000).await;
}

fn api_slice(cluster: &Cluster, slice: Value) {
    cluster.api().create(Resource::EndpointSlices, slice).unwrap();
}
