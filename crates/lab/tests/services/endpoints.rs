//! Which endpoints take connections: readiness, termination, traffic policies, affinity, schedulers, health checks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::api_server::Resource;
use lab::cluster::{Cluster, eventually};
use lab::probe::{Failure, ONCE, Protocol, Talking};
use serde_json::{Value, json};

use crate::setup::{
    Cell, SOON, cluster, cluster_ips, fails, in_pod, node_port, pod, pod_ips, reach, ready, service,
    set_ready, tool, until, web_cells,
};

/// How long a silent client is remembered, where one waits for it to be forgotten.
const AFFINITY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn connections_go_where_the_service_says() {
    let cluster = cluster(2, &[]).await;
    for (name, node, app) in
        [("web-1", 1, "web"), ("web-2", 2, "web"), ("c-1", 1, "client"), ("c-2", 2, "client")]
    {
        pod(&cluster, name, node, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1", "c-2"]).await;
    schedulers_follow_annotations(&cluster).await;
    clients_stay_where_they_were(&cluster).await;
    internal_policy_stays_on_the_node(&cluster).await;
    external_policy_and_health_checks(&cluster).await;
    udp_flows_move_at_once(&cluster).await;
    udp_flows_that_came_too_early_are_forgotten(&cluster).await;
    endpoints_come_and_go(&cluster).await;
}

/// Cells over both families of a service's cluster IPs, TCP.
fn tcp(cluster: &Cluster, client: &str, service: &Value) -> Vec<Cell> {
    web_cells(&in_pod(cluster, client), service)
}

fn annotate(cluster: &Cluster, service: &str, annotations: Value) {
    let patch = json!({ "metadata": { "annotations": annotations } });
    cluster.api().patch(Resource::Services, Some("default"), service, &patch).unwrap();
}

async fn schedulers_follow_annotations(cluster: &Cluster) {
    let web = service(cluster, "sched", "web", json!({}));
    let ip = cluster_ips(&web)[0];
    let says = |what: &str| format!("-A -t {ip}:80 -s {what}");
    until("rr by default", cluster, 1, "ipvsadm -Sn", |text| text.contains(&says("rr\n"))).await;
    let wanted = [
        (json!({ "kube-router.io/service.scheduler": "sh" }), "sh\n"),
        (
            json!({
                "kube-router.io/service.scheduler": "mh",
                "kube-router.io/service.schedflags": "flag-1, flag-2",
            }),
            "mh -b mh-fallback,mh-port\n",
        ),
        (
            json!({ "kube-router.io/service.scheduler": "lc", "kube-router.io/service.schedflags": null }),
            "lc\n",
        ),
        (json!({ "kube-router.io/service.scheduler": "nonsense" }), "rr\n"),
    ];
    for (annotations, expected) in wanted {
        let about = annotations.to_string();
        annotate(cluster, "sched", annotations);
        until(&about, cluster, 1, "ipvsadm -Sn", |text| text.contains(&says(expected))).await;
    }
    reach("after changing schedulers", &tcp(cluster, "c-1", &web), &["web-1", "web-2"]).await;
    cluster.api().delete(Resource::Services, Some("default"), "sched", None).unwrap();
    let gone = |text: &str| !text.contains(&format!("{ip}:"));
    until("a deleted service goes", cluster, 1, "ipvsadm -Sn", gone).await;
    let gone = |text: &str| !text.contains(&format!("{ip}/"));
    until("its address goes", cluster, 1, "ip addr show dev kube-dummy-if", gone).await;
}

async fn clients_stay_where_they_were(cluster: &Cluster) {
    let more = json!({ "spec": {
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 600 } },
    } });
    let web = service(cluster, "sticky", "web", more);
    let ip = cluster_ips(&web)[0];
    let persistent = format!("-A -t {ip}:80 -s rr -p 600\n");
    until("affinity", cluster, 1, "ipvsadm -Sn", |text| text.contains(&persistent)).await;
    for cell in tcp(cluster, "c-1", &web) {
        let mut answered = vec![first_answer(&cell).await];
        let patient = cell.0.clone().patience(ONCE);
        for _ in 0..5 {
            answered.push(patient.ask(cell.1, cell.2).await.map(|answer| answer.by));
        }
        answered.dedup();
        assert!(matches!(&answered[..], [Ok(_)]), "one client, one backend: {answered:?}");
    }
    affinity_expires(cluster).await;
    let none = json!({ "spec": { "sessionAffinity": "None", "sessionAffinityConfig": null } });
    cluster.api().patch(Resource::Services, Some("default"), "sticky", &none).unwrap();
    let plain = format!("-A -t {ip}:80 -s rr\n");
    until("affinity taken back", cluster, 1, "ipvsadm -Sn", |text| text.contains(&plain)).await;
}

/// A client that was silent for its time is nobody's, and with `rr` the next connection goes to the next backend. UDP,
/// because IPVS remembers a closed TCP connection for two minutes, and its client with it.
async fn affinity_expires(cluster: &Cluster) {
    let more = json!({ "spec": {
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": AFFINITY.as_secs() } },
    } });
    let web = service(cluster, "forgetful", "web", more);
    tool(cluster, 1, "ipvsadm --set 0 0 1");
    let probe = in_pod(cluster, "c-1");
    for ip in cluster_ips(&web) {
        let cell = (probe.clone(), Protocol::Udp, SocketAddr::new(ip, 53));
        let first = twice_in_time(&cell).await;
        let virtual_address = cell.2.to_string();
        let forgotten = |text: &str| !text.contains(&virtual_address);
        until("the client is forgotten", cluster, 1, "ipvsadm -Lnc", forgotten).await;
        let next = first_answer(&cell).await.unwrap();
        assert_ne!(next, first, "after its time");
    }
    // As the kernel has it by itself: what follows holds UDP flows open.
    tool(cluster, 1, "ipvsadm --set 0 0 300");
    cluster.api().delete(Resource::Services, Some("default"), "forgetful", None).unwrap();
}

/// Who answers first, once anybody does.
/// Who answers two questions of which the second comes while the first is remembered.
async fn twice_in_time(cell: &Cell) -> String {
    let mut answers = Vec::new();
    for _ in 0..10 {
        let first = first_answer(cell).await.unwrap();
        let start = Instant::now();
        let again = first_answer(cell).await.unwrap();
        if start.elapsed() < AFFINITY / 2 {
            assert_eq!(again, first, "within its time");
            return again;
        }
        answers.push(start.elapsed());
    }
    panic!("this machine is too slow to ask twice within {AFFINITY:?}: {answers:?}");
}

async fn first_answer(cell: &Cell) -> Result<String, Failure> {
    let ask = || async { cell.0.ask(cell.1, cell.2).await.map_err(|failure| failure.to_string()) };
    Ok(eventually(SOON, ask).await.unwrap().by)
}

async fn internal_policy_stays_on_the_node(cluster: &Cluster) {
    let web = service(cluster, "inner", "web", json!({ "spec": { "internalTrafficPolicy": "Local" } }));
    reach("internal Local on node 1", &tcp(cluster, "c-1", &web), &["web-1"]).await;
    reach("internal Local on node 2", &tcp(cluster, "c-2", &web), &["web-2"]).await;
    set_ready(cluster, "web-1", false);
    let no = [Failure::Refused, Failure::Unreachable, Failure::Timeout];
    fails("internal Local without a local endpoint", &tcp(cluster, "c-1", &web), &no).await;
    reach("the other node", &tcp(cluster, "c-2", &web), &["web-2"]).await;
    set_ready(cluster, "web-1", true);
    reach("and back", &tcp(cluster, "c-1", &web), &["web-1"]).await;
}

async fn external_policy_and_health_checks(cluster: &Cluster) {
    let spec = json!({ "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local" } });
    let outer = service(cluster, "outer", "web", spec);
    let local = json!({
        "metadata": { "annotations": { "kube-router.io/service.local": "true" } }, "spec": { "type": "NodePort" },
    });
    let annotated = service(cluster, "annotated", "web", local);
    let outside = cluster.outside_probe();
    let cells = |node: usize| -> Vec<Cell> {
        let ips = cluster.node(node).unwrap().addresses().into_iter();
        let ports = [node_port(&outer, 0), node_port(&annotated, 0)];
        let all = ips.flat_map(|ip| ports.map(|port| SocketAddr::new(ip, port)));
        all.map(|to| (outside.clone(), Protocol::Tcp, to)).collect()
    };
    reach("external Local on node 1", &cells(1), &["web-1"]).await;
    reach("external Local on node 2", &cells(2), &["web-2"]).await;
    let addresses = cluster.outside().addresses();
    for (probe, protocol, to) in cells(1) {
        let answer = probe.patience(ONCE).ask(protocol, to).await.unwrap();
        assert!(addresses.contains(&answer.source.ip()), "the source is kept: {answer:?}");
    }
    reach("its cluster IP is not local", &tcp(cluster, "c-1", &outer), &["web-1", "web-2"]).await;

    let port = outer["spec"]["healthCheckNodePort"].as_u64().expect("healthCheckNodePort");
    let [v4, v6] = cluster.node(1).unwrap().addresses()[..] else { panic!("two families") };
    let checks = [format!("http://{v4}:{port}/healthz"), format!("http://[{v6}]:{port}/healthz")];
    for url in &checks {
        let line = format!("curl -s -w %{{http_code}} {url}");
        let healthy = |text: &str| text.starts_with("2 Service Endpoints found") && text.ends_with("200");
        until("the health check at an address of each family", cluster, 2, &line, healthy).await;
    }
    set_ready(cluster, "web-1", false);
    fails("external Local without a local endpoint", &cells(1), &[Failure::Refused]).await;
    for url in &checks {
        let line = format!("curl -s -w %{{http_code}} {url}");
        let unhealthy = |text: &str| text.starts_with("No Service Endpoints Found") && text.ends_with("503");
        until("the health check", cluster, 2, &line, unhealthy).await;
    }
    set_ready(cluster, "web-1", true);
    reach("external Local again", &cells(1), &["web-1"]).await;
    cluster.api().delete(Resource::Services, Some("default"), "outer", None).unwrap();
    let closed = |text: &str| !text.contains(&format!(":{port} "));
    until("the health check port closes", cluster, 1, "ss -Hltn", closed).await;
}

async fn udp_flows_move_at_once(cluster: &Cluster) {
    let dns = service(cluster, "dns", "web", json!({}));
    set_ready(cluster, "web-2", false);
    let probe = in_pod(cluster, "c-1");
    for ip in cluster_ips(&dns) {
        let to = SocketAddr::new(ip, 53);
        reach("one endpoint", &[(probe.clone(), Protocol::Udp, to)], &["web-1"]).await;
    }
    let mut flows = Vec::new();
    for ip in cluster_ips(&dns) {
        let to = SocketAddr::new(ip, 53);
        let probe = probe.clone().patience(Duration::from_secs(3));
        flows.push(probe.talk(Protocol::Udp, to, Duration::from_millis(20)).await.unwrap());
    }
    set_ready(cluster, "web-2", true);
    let both: Vec<Cell> = cluster_ips(&dns)
        .into_iter()
        .map(|ip| (probe.clone(), Protocol::Udp, SocketAddr::new(ip, 53)))
        .collect();
    reach("two endpoints", &both, &["web-1", "web-2"]).await;
    set_ready(cluster, "web-1", false);
    reach("the other endpoint", &both, &["web-2"]).await;
    // The old endpoint is alive and would go on answering: only a forgotten flow can move. A datagram or two are lost: IPVS
    // drops the one that comes between the end of the real server and that of the flow's conntrack entry (`ip_vs_in`, old
    // conntrack), and the answer that is under way then has no way back.
    for flow in flows {
        let moved = || async {
            let answered = flow.so_far().answered;
            let both = ["web-1", "web-2"].iter().all(|name| answered.contains_key(*name));
            if both { Ok(()) } else { Err(format!("the flow is answered by both: {answered:?}")) }
        };
        eventually(SOON, moved).await.unwrap();
        let report = flow.stop().await;
        assert!(report.broke.is_none(), "{report:?}");
        eprintln!("{} datagrams of a flow that moved were lost", report.lost);
    }
    let left = tool(cluster, 1, "ipvsadm -Lnc");
    let old = pod_ips(cluster, "web-1")[0];
    let stuck = left.lines().find(|line| line.starts_with("UDP") && line.contains(&format!("{old}:5353")));
    assert_eq!(stuck, None, "no flow to the old endpoint is left");
    set_ready(cluster, "web-1", true);
    reach("and back", &both, &["web-1", "web-2"]).await;
}

/// Who sends before the Service is there has a flow past IPVS, which would see its packets but never the answers.
async fn udp_flows_that_came_too_early_are_forgotten(cluster: &Cluster) {
    let ips = cluster_ips(&service(cluster, "early", "web", json!({})));
    let take_away = || cluster.api().delete(Resource::Services, Some("default"), "early", None).unwrap();
    for ip in &ips {
        let there = |text: &str| text.contains(&format!("{ip}/"));
        until("its address comes", cluster, 1, "ip addr show dev kube-dummy-if", there).await;
    }
    take_away();
    let probe = in_pod(cluster, "c-1").patience(Duration::from_secs(1));
    let flows = |ip: &std::net::IpAddr| {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        format!("conntrack -L -p udp -f {family} --orig-dst {ip}")
    };
    // Answered, if anybody did, by the address itself.
    let too_early = |text: &str, ip: &std::net::IpAddr| text.contains(&format!(" src={ip} "));
    for ip in &ips {
        let gone = |text: &str| !text.contains(&format!("{ip}/"));
        until("its address goes", cluster, 1, "ip addr show dev kube-dummy-if", gone).await;
        assert!(probe.ask(Protocol::Udp, SocketAddr::new(*ip, 53)).await.is_err(), "nobody is there");
        let there = tool(cluster, 1, &flows(ip));
        assert!(too_early(&there, ip), "{there}");
    }
    let same = json!({ "spec": { "clusterIP": ips[0], "clusterIPs": ips } });
    service(cluster, "early", "web", same);
    for ip in &ips {
        reach("served", &[(probe.clone(), Protocol::Udp, SocketAddr::new(*ip, 53))], &["web-1", "web-2"])
            .await;
        until("the flow is forgotten", cluster, 1, &flows(ip), |text| !too_early(text, ip)).await;
    }
    take_away();
}

async fn endpoints_come_and_go(cluster: &Cluster) {
    let web = service(cluster, "web", "web", json!({}));
    let cells = tcp(cluster, "c-1", &web);
    reach("two ready endpoints", &cells, &["web-1", "web-2"]).await;
    set_ready(cluster, "web-2", false);
    reach("one unready", &cells, &["web-1"]).await;
    set_ready(cluster, "web-2", true);
    reach("ready again", &cells, &["web-1", "web-2"]).await;

    // A connection to each, whichever it gets.
    let open = two_of_each(&cells).await;
    let leaving = pod_ips(cluster, "web-2")[0];
    let delete = |name: &str| cluster.api().delete(Resource::Pods, Some("default"), name, Some(900)).unwrap();
    delete("web-2");
    reach("one terminating beside a ready one", &cells, &["web-1"]).await;
    let drains = format!("-r {leaving}:8080 -m -w 0\n");
    until("it keeps weight 0", cluster, 1, "ipvsadm -Sn", |text| text.contains(&drains)).await;
    let mut answered = std::collections::BTreeSet::new();
    for conversation in open {
        let report = conversation.stop().await;
        assert!(report.broke.is_none(), "no connection is cut: {report:?}");
        answered.extend(report.answered.into_keys());
    }
    assert_eq!(answered.len(), 2, "there were connections to both: {answered:?}");
    delete("web-1");
    reach("only terminating ones take it", &cells, &["web-1", "web-2"]).await;
    pod(cluster, "web-3", 1, "web");
    ready(cluster, &["web-3"]).await;
    reach("a new ready one takes over", &cells, &["web-3"]).await;
    cluster.api().delete(Resource::Pods, Some("default"), "web-2", Some(0)).unwrap();
    let gone = |text: &str| !text.contains(&format!("-r {leaving}:8080"));
    until("a pod that is gone is gone", cluster, 1, "ipvsadm -Sn", gone).await;
    one_is_torn_away(cluster, &cells).await;
}

/// Two open connections of each cell: with rr, one for each of two endpoints.
async fn two_of_each(cells: &[Cell]) -> Vec<Talking> {
    let mut open = Vec::new();
    for (probe, protocol, to) in cells.iter().chain(cells) {
        let probe = probe.clone().patience(ONCE);
        open.push(probe.talk(*protocol, *to, Duration::from_millis(50)).await.unwrap());
    }
    open
}

/// A pod that vanishes without notice, real server and all, takes nobody else's connections along.
async fn one_is_torn_away(cluster: &Cluster, cells: &[Cell]) {
    pod(cluster, "web-4", 2, "web");
    ready(cluster, &["web-4"]).await;
    reach("two ready ones again", cells, &["web-3", "web-4"]).await;
    let open = two_of_each(cells).await;
    let torn = pod_ips(cluster, "web-4");
    cluster.api().delete(Resource::Pods, Some("default"), "web-4", Some(0)).unwrap();
    for ip in torn {
        let server = format!("-r {}", SocketAddr::new(ip, 8080));
        until("its real server goes", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&server)).await;
    }
    reach("the other takes all", cells, &["web-3"]).await;
    let (all, mut stayed) = (open.len(), 0);
    for conversation in open {
        let report = conversation.stop().await;
        if report.answered.contains_key("web-3") {
            assert!(report.broke.is_none(), "a connection to the other is not cut: {report:?}");
            stayed += 1;
        }
    }
    assert!(0 < stayed && stayed < all, "there were connections to both: {stayed} of {all} stayed");
}
