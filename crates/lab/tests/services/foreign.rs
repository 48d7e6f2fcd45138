//! Other programs on the node: what they take away comes back, what they have is left alone, also by the clean-up.

use std::net::SocketAddr;
use std::time::Duration;

use lab::api_server::{Availability, Resource};
use lab::cluster::Cluster;
use lab::probe::{ONCE, Protocol};
use lab::process;
use serde_json::json;

use crate::setup::{
    SOON, agent_program, cluster_ips, in_pod, metric, pod, pod_ips, programmed, reach, ready, service,
    set_ready, snapshot, tool, try_snapshot, until,
};

const FLAGS: [&str; 5] = [
    "--excluded-cidrs=198.18.0.0/15",
    "--ipvs-graceful-termination",
    "--service-tcp-timeout=20m",
    "--service-tcpfin-timeout=2s",
    "--service-udp-timeout=45s",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "vm: needs IPVS"]
async fn what_is_ours_comes_back_and_what_is_theirs_stays() {
    let mut cluster = Cluster::builder().nodes(1).dual_stack().start().await.unwrap();
    for (name, app) in [("web-1", "web"), ("web-2", "web"), ("c-1", "client")] {
        pod(&cluster, name, 1, app);
    }
    ready(&cluster, &["web-1", "web-2", "c-1"]).await;
    theirs(&cluster);
    let before = snapshot(&cluster, 1);
    let web = service(&cluster, "web", "web", json!({ "spec": { "type": "NodePort" } }));
    set_flags(&mut cluster, "--ipvs-sync-period=1h");
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    let vip = SocketAddr::new(cluster_ips(&web)[0], 80);
    let cell = [(in_pod(&cluster, "c-1"), Protocol::Tcp, vip)];
    reach("in the beginning", &cell, &["web-1", "web-2"]).await;
    let timeouts = tool(&cluster, 1, "ipvsadm -L --timeout");
    assert!(timeouts.contains("1200 2 45"), "{timeouts}");

    status_tells_what_is_programmed(&cluster, vip);
    explain_tells_the_backends(&cluster, vip);

    addresses_come_back_at_once(&cluster, vip).await;
    reach("with addresses put back", &cell, &["web-1", "web-2"]).await;
    audit_often(&mut cluster).await;
    rows_come_back_at_the_audit(&cluster, vip).await;
    reach("with rows put back", &cell, &["web-1", "web-2"]).await;
    whose_is_a_virtual_server(&mut cluster).await;
    drains(&cluster, vip).await;

    let agent = cluster.take_agent(1).expect("it runs");
    assert_eq!(agent.stop(SOON), Some(0));
    cluster.faults().set_availability(Availability::Refusing);
    leave_what_upstream_leaves(&cluster);
    let said = clean_up(&cluster);
    assert_eq!(snapshot(&cluster, 1), before, "the clean-up removes all of ours and nothing else: {said}");
    let legacy = tool(&cluster, 1, "iptables-legacy-save");
    assert!(!legacy.contains("KUBE-ROUTER-") && legacy.contains("-s 192.0.2.7/32"), "{legacy}");
    for line in [
        "removed link kube-dummy-if",
        &format!("removed virtual server {vip}/tcp"),
        "removed virtual server mark 13766 (IPv4)",
        "removed rule fwmark 13766 lookup 78 (IPv4)",
        "removed half-filled set TMP-PRBJ7ASFQM5DJR3Q",
        "link kube-bridge stays",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let again = clean_up(&cluster);
    assert!(!again.contains("removed"), "there is nothing left: {again}");
    assert_eq!(snapshot(&cluster, 1), before, "{again}");
}

/// Runs it on the node, and returns what it says.
fn clean_up(cluster: &Cluster) -> String {
    let script = format!("exec {} --cleanup-config 2>&1", agent_program().display());
    let clean = move || process::run(process::command("sh").args(["-c", &script]));
    let said = cluster.node(1).unwrap().namespace().run(clean).unwrap().expect("--cleanup-config exits 0");
    assert!(!said.contains("clean-up is not complete"), "{said}");
    said
}

/// What no controller here writes: direct server return (13766 is upstream's mark of 10.0.0.1:80/tcp), a set that was being
/// filled, rules of the flavour of iptables that is not used any more.
fn leave_what_upstream_leaves(cluster: &Cluster) {
    for line in [
        "iptables -t mangle -A PREROUTING -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j MARK --set-mark 13766",
        "iptables -t mangle -A OUTPUT -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j MARK --set-mark 13766",
        "iptables -t mangle -A PREROUTING -s 10.0.0.1/32 -i kube-bridge -p tcp -m tcp --sport 80 \
         --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1440",
        "ipvsadm -A -f 13766 -s rr",
        "ipvsadm -a -f 13766 -r 172.31.0.1:80 -i -w 1",
        "ip rule add priority 32764 fwmark 13766 lookup 78",
        "ip route add local default dev lo table 78",
        "ip -6 route add local default dev lo table 78",
        "ip rule add priority 32765 from all lookup 79",
        "ip -6 rule add priority 32765 from all lookup 79",
        "ipset create TMP-PRBJ7ASFQM5DJR3Q hash:ip timeout 0",
        "iptables-legacy -N KUBE-ROUTER-SERVICES",
        "iptables-legacy -A INPUT -j KUBE-ROUTER-SERVICES",
        "iptables-legacy -A INPUT -s 192.0.2.7/32 -j ACCEPT",
    ] {
        tool(cluster, 1, line);
    }
}

/// The agent's own account agrees with the kernel's: asked over its socket, which nobody but root may open.
fn status_tells_what_is_programmed(cluster: &Cluster, vip: SocketAddr) {
    let ask = |arguments: &'static [&'static str]| {
        let program = agent_program();
        let ask = move || process::run(process::command(program).arg("status").args(arguments));
        cluster.node(1).unwrap().namespace().run(ask).unwrap().expect("status exits 0")
    };
    let status: serde_json::Value = serde_json::from_str(&ask(&["-o", "json"])).expect("JSON");
    assert_eq!(status["settled"], true, "{status:#}");
    let services = status["services"].as_array().expect("services");
    let at = format!("{vip}/tcp");
    let service = services.iter().find(|service| service["at"] == *at).expect("the cluster IP");
    assert_eq!((&service["service"], &service["kind"]), (&json!("default/web"), &json!("ClusterIP")));
    assert_eq!(service["backends"].as_array().map(Vec::len), Some(2), "{service}");
    let rows = status["tables"]
        .as_array()
        .and_then(|tables| tables.iter().find(|row| row["table"] == "virtual_servers"));
    assert!(rows.is_some_and(|row| row["desired"] == row["actual"]), "{status:#}");
    let text = ask(&[]);
    assert!(text.contains("everything is programmed") && text.contains("default/web"), "{text}");
    let mode = tool(cluster, 1, "stat -c %a /run/kube-router/kube-router.sock");
    assert_eq!(mode.trim(), "600");
}

/// The backends it names are those `ipvsadm` lists; both answered above.
fn explain_tells_the_backends(cluster: &Cluster, vip: SocketAddr) {
    let ask = |line: &str| {
        let (program, line) = (agent_program(), line.to_owned());
        let ask = move || process::run(process::command(program).args(line.split(' ')));
        let text = cluster.node(1).unwrap().namespace().run(ask).unwrap().expect("explain exits 0");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")
    };
    let kernel = tool(cluster, 1, &format!("ipvsadm -ln -t {vip}"));
    let by_name = ask("explain --from default/c-1 --to service/web --port 80 -o json");
    let by_address =
        ask(&format!("explain --from default/c-1 --to {} --port {} -o json", vip.ip(), vip.port()));
    for told in [by_name, by_address] {
        let services = told["services"].as_array().expect("services");
        let service =
            services.iter().find(|service| service["at"] == format!("{vip}/tcp")).expect("the cluster IP");
        assert_eq!(
            (&service["service"], &service["kind"]),
            (&json!("default/web"), &json!("ClusterIP")),
            "{told:#}"
        );
        let backends = service["backends"].as_array().expect("backends");
        assert_eq!(backends.len(), 2, "{service:#}");
        assert!(
            backends.iter().all(|backend| kernel.contains(backend["at"].as_str().unwrap())),
            "{kernel}{service:#}"
        );
        let paths = told["paths"].as_array().expect("paths").iter();
        let pods: std::collections::BTreeSet<&str> =
            paths.filter_map(|path| path["destination_pod"].as_str()).collect();
        assert_eq!(pods.into_iter().collect::<Vec<_>>(), ["default/web-1", "default/web-2"], "{told:#}");
        assert_eq!(told["verdict"], "allowed", "{told:#}");
    }
    let refused = ask(&format!("explain --from default/c-1 --to {} --port 81 -o json", vip.ip()));
    assert_eq!(refused["verdict"], "unserved", "{refused:#}");
}

/// What other programs have on the node before the agent comes.
fn theirs(cluster: &Cluster) {
    for line in [
        "ipvsadm -A -t 192.0.2.77:80 -s wrr",
        "ipvsadm -a -t 192.0.2.77:80 -r 172.31.0.1:80 -m -w 3",
        "ipset create theirs hash:ip",
        "ipset add theirs 192.0.2.1",
        "ipset create inet6:theirs hash:net family inet6",
        "iptables -A INPUT -s 192.0.2.0/24 -j ACCEPT",
        "iptables -N THEIRS",
        "iptables -A THEIRS -m set --match-set theirs src -j DROP",
        "iptables -t nat -A POSTROUTING -s 192.0.2.9/32 -j MASQUERADE",
        "ip6tables -A FORWARD -d fd99::/64 -j ACCEPT",
        "ip link add theirs0 type dummy",
        "ip addr add 192.0.2.99/32 dev theirs0",
        "ip link set theirs0 up",
        "ip route add 192.0.2.128/25 dev theirs0",
        "ip route add 198.51.100.128/25 dev theirs0 table 100 proto 17",
        "ip rule add fwmark 0x9 lookup 78 priority 30001",
        "iptables -t mangle -A PREROUTING -d 192.0.2.9/32 -p tcp -m tcp --dport 80 -j MARK --set-mark 7",
        "ipvsadm -A -f 7 -s rr",
        "ipset create TMP-mine hash:ip",
        "iptables -t nat -N DOCKER",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "iptables -t nat -N CNI-HOSTPORT-DNAT",
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    ] {
        tool(cluster, 1, line);
    }
}

/// The kernel tells of these, so nobody waits for an audit: with the period that is set here it would be too late.
async fn addresses_come_back_at_once(cluster: &Cluster, vip: SocketAddr) {
    let ip = vip.ip();
    let address = |text: &str| text.contains(&format!("inet {ip}/32"));
    tool(cluster, 1, &format!("ip addr del {ip}/32 dev kube-dummy-if"));
    until("a service address", cluster, 1, "ip addr show dev kube-dummy-if", address).await;
    let route = |text: &str| text.contains(&format!("local {ip} "));
    until("its local route", cluster, 1, "ip route show table local dev kube-dummy-if", route).await;
    tool(cluster, 1, "ip link del kube-dummy-if");
    until("kube-dummy-if", cluster, 1, "ip -o addr", |text| text.contains(&format!("{ip}/32"))).await;
    until("its local route", cluster, 1, "ip route show table local dev kube-dummy-if", route).await;
    tool(cluster, 1, "ip link set kube-dummy-if down");
    until("up again", cluster, 1, "ip -o link show up", |text| text.contains("kube-dummy-if")).await;
}

/// Sets the agent's flags, with this one more.
fn set_flags(cluster: &mut Cluster, period: &str) {
    let all: Vec<&str> = FLAGS.into_iter().chain([period]).collect();
    cluster.set_agent_flags(1, crate::setup::flags(&all)).unwrap();
}

/// Another agent, which looks after the kernel every two seconds.
async fn audit_often(cluster: &mut Cluster) {
    cluster.take_agent(1).expect("it runs").kill();
    set_flags(cluster, "--ipvs-sync-period=2s");
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
}

/// IPVS, sets and rules tell nothing: found at an audit.
async fn rows_come_back_at_the_audit(cluster: &Cluster, vip: SocketAddr) {
    // Each before the next: an audit that runs in between would otherwise see half of them.
    let settled = snapshot(cluster, 1);
    let backend = SocketAddr::new(pod_ips(cluster, "web-1")[0], 8080);
    for damage in [
        format!("ipvsadm -D -t {vip}"),
        format!("ipvsadm -d -t {vip} -r {backend}"),
        format!("ipvsadm -e -t {vip} -r {backend} -m -w 7"),
        format!("ipvsadm -E -t {vip} -s lc"),
        "iptables -F KUBE-ROUTER-SERVICES".to_owned(),
        "iptables -D INPUT 1".to_owned(),
        format!("ipset del kube-router-svip-prt {},tcp:80", vip.ip()),
        "iptables -t nat -F POSTROUTING".to_owned(),
    ] {
        tool(cluster, 1, &damage);
        let theirs = "-A POSTROUTING -s 192.0.2.9/32 -j MASQUERADE";
        let about = format!("after {damage}");
        let start = std::time::Instant::now();
        let restored = || async {
            let mut now = try_snapshot(cluster, 1)?;
            if damage.contains("-F POSTROUTING") {
                now = with_line_of(&settled, now, theirs);
            }
            if now == settled { Ok(()) } else { Err(format!("{about}: {now}")) }
        };
        lab::cluster::eventually(SOON, restored).await.unwrap();
        println!("{about}: back within {:?}", start.elapsed());
    }
    tool(cluster, 1, "iptables -t nat -I POSTROUTING -s 192.0.2.9/32 -j MASQUERADE");
    let drift = metric(cluster, 1, "kube_router_drift_healed_total{table=\"virtual_servers\"}");
    assert!(drift >= 1.0, "drift is counted");
}

/// `now` with `line` where `settled` has it: what the damage took from others does not come back by itself.
fn with_line_of(settled: &str, now: String, line: &str) -> String {
    let mut lines: Vec<&str> = now.lines().collect();
    if let Some(at) = settled.lines().position(|other| other == line) {
        lines.insert(at.min(lines.len()), line);
    }
    lines.join("\n") + "\n"
}

/// In our ledger and not in `--excluded-cidrs` is ours, left by a predecessor that was killed; all else is theirs.
async fn whose_is_a_virtual_server(cluster: &mut Cluster) {
    cluster.take_agent(1).expect("it runs").kill();
    for ip in ["198.18.0.1", "203.0.113.78"] {
        tool(cluster, 1, &format!("ipvsadm -A -t {ip}:80 -s rr"));
        tool(cluster, 1, &format!("ipset add kube-router-svip-prt {ip},tcp:80"));
    }
    cluster.start_agent(1).unwrap();
    programmed(cluster, 1).await;
    until("a leftover goes", cluster, 1, "ipvsadm -Sn", |text| !text.contains("203.0.113.78:80")).await;
    let all = tool(cluster, 1, "ipvsadm -Sn");
    assert!(all.contains("-A -t 198.18.0.1:80"), "--excluded-cidrs: {all}");
    assert!(all.contains("-A -t 192.0.2.77:80 -s wrr"), "somebody else's: {all}");
    tool(cluster, 1, "ipvsadm -D -t 198.18.0.1:80");
}

async fn drains(cluster: &Cluster, vip: SocketAddr) {
    let probe = in_pod(cluster, "c-1").patience(ONCE);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(probe.talk(Protocol::Tcp, vip, Duration::from_millis(50)).await.unwrap());
    }
    // The pod's own period counts where the pod is known, not the flag's: longer than all that is seen here.
    set_ready(cluster, "web-2", false);
    let leaving = pod_ips(cluster, "web-2")[0];
    let drains = format!("-a -t {vip} -r {leaving}:8080 -m -w 0\n");
    until("a removed endpoint drains", cluster, 1, "ipvsadm -Sn", |text| text.contains(&drains)).await;
    let cell = [(probe, Protocol::Tcp, vip)];
    reach("new connections go elsewhere", &cell, &["web-1"]).await;
    let idle = |text: &str| {
        let unused = ["5353", "9132"].map(|port| format!("-r {leaving}:{port}"));
        text.contains(&drains) && !unused.iter().any(|server| text.contains(server))
    };
    until("UDP and what is idle go before it is due", cluster, 1, "ipvsadm -Sn", idle).await;
    for conversation in open {
        let report = conversation.stop().await;
        assert!(report.broke.is_none(), "a draining connection is not cut: {report:?}");
    }
    // The next time it is due soon: before it is idle, for closed connections linger in IPVS for two minutes (TIME_WAIT).
    let grace = json!({ "spec": { "terminationGracePeriodSeconds": 20 } });
    cluster.api().patch(Resource::Pods, Some("default"), "web-2", &grace).unwrap();
    set_ready(cluster, "web-2", true);
    reach("and comes back", &cell, &["web-1", "web-2"]).await;
    set_ready(cluster, "web-2", false);
    let tcp = format!("-a -t {vip} -r {leaving}:8080");
    until("when it is due it goes", cluster, 1, "ipvsadm -Sn", |text| !text.contains(&tcp)).await;
    set_ready(cluster, "web-2", true);
    reach("and comes back again", &cell, &["web-1", "web-2"]).await;
}
