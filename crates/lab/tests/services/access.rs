//! Ways to the API server: TLS by a kubeconfig with a client certificate, and a pod's own token and variables, and
//! through a proxy. Needs no IPVS: the agents enforce policies, and packets tell whether they have heard of one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use lab::api_server::{Resource, Tls};
use lab::cluster::{Authority, Cluster, Pair, eventually, kubeconfig_text};
use lab::probe::{Failure, ONCE, Protocol, matrix};
use lab::process;
use serde_json::json;

use crate::setup::{Cell, SOON, fails, in_pod, log, pod, pod_ips, programmed, reach, ready};

/// Policies alone.
const FLAGS: [&str; 5] = [
    "--run-service-proxy=false",
    "--run-router=false",
    "--run-firewall=true",
    "--enable-ipv6",
    "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
];

/// Where the agent looks when no flag names anything; the node's own folder.
const OWN: &str = "/var/lib/kube-router";
/// Where the kubelet puts what belongs to a pod's account; the node's own folder, too.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Writes files of a node, each at once and as a whole, as the kubelet does.
fn write(cluster: &Cluster, node: usize, folder: &'static str, files: Vec<(&'static str, String)>) {
    let work = move || {
        std::fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            let new = Path::new(folder).join("new");
            std::fs::write(&new, content).unwrap();
            std::fs::rename(new, Path::new(folder).join(name)).unwrap();
        }
    };
    cluster.node(node).unwrap().namespace().run(work).unwrap();
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A kubeconfig for this server, with the files beside it.
fn kubeconfig(server: SocketAddr) -> String {
    let cluster =
        json!({ "server": format!("https://{server}"), "certificate-authority": format!("{OWN}/ca.crt") });
    let user = json!({
        "client-certificate": format!("{OWN}/agent.crt"), "client-key": format!("{OWN}/agent.key"),
    });
    kubeconfig_text(&cluster, &user)
}

/// Gives a node a kubeconfig and what it names.
fn give_kubeconfig(cluster: &Cluster, node: usize, server: SocketAddr, ca: &Path, own: &Pair) {
    let files = vec![
        ("ca.crt", text(ca)),
        ("agent.crt", text(&own.certificate)),
        ("agent.key", text(&own.key)),
        ("kubeconfig", kubeconfig(server)),
    ];
    write(cluster, node, OWN, files);
}

/// Waits until the agent of a node has said all of this.
async fn says(about: &str, cluster: &Cluster, node: usize, wanted: &[&str]) {
    let look = || async {
        let said = log(cluster, node);
        match said.lines().any(|line| wanted.iter().all(|word| line.contains(word))) {
            true => Ok(()),
            false => Err(format!("no line says {wanted:?}: {said}")),
        }
    };
    eventually(SOON, look).await.unwrap_or_else(|error| panic!("{about}: {error}"));
}

/// Status that curl, on a node, gets for the list of nodes; 000 when the handshake fails.
fn curl(cluster: &Cluster, server: SocketAddr, more: &str) -> String {
    let fixed = "curl -s -m 60 -o /dev/null -w %{http_code}";
    let line = format!("{fixed} --cacert {OWN}/ca.crt {more} https://{server}/api/v1/nodes");
    // curl ends with a status of its own when it gets no answer.
    cluster.on_node(1, &line).unwrap_or_else(|_| "000".to_owned())
}

/// The server's addresses, by its name in certificates of this authority.
fn serve(cluster: &Cluster, authority: &Authority) -> Vec<SocketAddr> {
    let api = authority.server("api-server", &cluster.fabric().gateway(0)).unwrap();
    let clients = authority.certificate().to_owned();
    cluster.serve_tls(&Tls { certificate: api.certificate, key: api.key, clients }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_prove_who_they_are_and_want_proof() {
    let mut cluster = Cluster::builder().nodes(2).dual_stack().start().await.unwrap();
    let folder = cluster.fabric().folder().to_owned();
    let authority = Authority::new(&folder.join("pki"), "lab-ca").unwrap();
    let stranger = Authority::new(&folder.join("stranger"), "stranger-ca").unwrap();
    let servers = serve(&cluster, &authority);
    let own = authority.client("agent").unwrap();
    for node in [1, 2] {
        cluster.set_agent_flags(node, FLAGS).unwrap();
        cluster.set_agent_without_master(node, servers[node - 1]).unwrap();
    }

    a_wrong_authority_is_named(&mut cluster, servers[0], &stranger, &own).await;
    give_kubeconfig(&cluster, 1, servers[0], authority.certificate(), &own);
    only_the_known_are_let_in(&cluster, servers[0], &stranger);
    cluster.start_agent(1).unwrap();

    let account = vec![("ca.crt", text(authority.certificate())), ("namespace", "kube-system".to_owned())];
    write(&cluster, 2, ACCOUNT, account);
    write(&cluster, 2, ACCOUNT, vec![("token", "first".to_owned())]);
    cluster.faults().set_tokens(["first"]);
    cluster.start_agent(2).unwrap();
    for node in [1, 2] {
        programmed(&cluster, node).await;
    }
    policies_arrive(&cluster).await;
    a_token_is_replaced(&mut cluster).await;
}

/// An agent that is told to trust somebody else does not talk to the server, and says why.
async fn a_wrong_authority_is_named(
    cluster: &mut Cluster,
    server: SocketAddr,
    stranger: &Authority,
    own: &Pair,
) {
    give_kubeconfig(cluster, 1, server, stranger.certificate(), own);
    cluster.start_agent(1).unwrap();
    says("an unknown authority", cluster, 1, &["WARN", "certificate", "UnknownIssuer"]).await;
    let ready =
        cluster.on_node(1, "curl -s -m 60 -o /dev/null -w %{http_code} http://127.0.0.1:20244/readyz");
    assert_ne!(ready.unwrap(), "200", "nothing is known yet");
    let mut agent = cluster.take_agent(1).unwrap();
    assert_eq!(agent.ended(), None, "it goes on trying");
    agent.kill();
}

/// The server, judged by curl: neither without a name nor with one that its authority does not know.
fn only_the_known_are_let_in(cluster: &Cluster, server: SocketAddr, stranger: &Authority) {
    let certificate = format!("--cert {OWN}/agent.crt --key {OWN}/agent.key");
    assert_eq!(curl(cluster, server, &certificate), "200", "with a certificate");
    assert_eq!(curl(cluster, server, ""), "401", "with nothing");
    assert_eq!(curl(cluster, server, "--oauth2-bearer first"), "401", "with a token nobody knows");
    let other = stranger.client("other").unwrap();
    write(cluster, 1, OWN, vec![("other.crt", text(&other.certificate)), ("other.key", text(&other.key))]);
    let certificate = format!("--cert {OWN}/other.crt --key {OWN}/other.key");
    assert_eq!(curl(cluster, server, &certificate), "000", "with a stranger's certificate");
}

/// From the pod of each node to that of the other, both families.
fn across(cluster: &Cluster, client: &str, server: &str) -> Vec<Cell> {
    let probe = in_pod(cluster, client);
    let ips = pod_ips(cluster, server).into_iter();
    ips.map(|ip| (probe.clone(), Protocol::Tcp, SocketAddr::new(ip, 8080))).collect()
}

/// A policy that lets nobody into these pods.
fn forbid(cluster: &Cluster, app: &str) {
    let policy = json!({
        "metadata": { "name": app, "namespace": "default" },
        "spec": { "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Ingress"] },
    });
    cluster.api().create(Resource::NetworkPolicies, policy).unwrap();
}

const NO: [Failure; 3] = [Failure::Refused, Failure::Unreachable, Failure::Timeout];

async fn policies_arrive(cluster: &Cluster) {
    pod(cluster, "one", 1, "one");
    pod(cluster, "two", 2, "two");
    ready(cluster, &["one", "two"]).await;
    reach("to node-1", &across(cluster, "two", "one"), &["one"]).await;
    reach("to node-2", &across(cluster, "one", "two"), &["two"]).await;
    forbid(cluster, "one");
    fails("heard of over TLS by a client certificate", &across(cluster, "two", "one"), &NO).await;
    forbid(cluster, "two");
    fails("heard of over TLS by a pod's token", &across(cluster, "one", "two"), &NO).await;
}

/// The kubelet renews tokens while the pod runs. What was read is used for a minute at most; meanwhile the agent says
/// that it is refused and leaves the kernel as it is.
async fn a_token_is_replaced(cluster: &mut Cluster) {
    let before = cluster.agent(2).unwrap().pid();
    cluster.faults().set_tokens(["second"]);
    cluster.faults().disconnect_watches();
    says("the old token", cluster, 2, &["WARN", "401", "Unauthorized"]).await;
    fails("what is known stays in force", &across(cluster, "one", "two"), &NO).await;
    write(cluster, 2, ACCOUNT, vec![("token", "second".to_owned())]);
    cluster.api().delete(Resource::NetworkPolicies, Some("default"), "two", None).unwrap();
    let cells = across(cluster, "one", "two");
    let answered = || async {
        let failed = matrix(&cells).await.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |failure| Err(format!("one reaches two: {failure}")))
    };
    // A minute until the file is read again, and the pause between two attempts: half a minute at most.
    eventually(3 * SOON, answered).await.unwrap_or_else(|error| panic!("{error}: {}", log(cluster, 2)));
    let agent = cluster.agent(2).unwrap();
    assert_eq!((agent.ended(), agent.pid()), (None, before), "without a restart");
}

/// tinyproxy beside the API server, and where its log is. It ends with the test.
fn proxy(cluster: &Cluster, at: SocketAddr) -> (Child, PathBuf) {
    let folder = cluster.fabric().folder();
    let (config, log) = (folder.join("tinyproxy.conf"), folder.join("tinyproxy.log"));
    let (ip, port) = (at.ip(), at.port());
    let lines =
        format!("Listen {ip}\nPort {port}\nTimeout 600\nLogLevel Connect\nLogFile \"{}\"\n", log.display());
    std::fs::write(&config, lines).unwrap();
    let start = move || {
        let mut proxy = process::tied("tinyproxy");
        process::spawn(proxy.args(["-d", "-c"]).arg(config).stdout(Stdio::null()).stderr(Stdio::null()))
            .unwrap()
    };
    (cluster.fabric().namespace().run(start).unwrap(), log)
}

/// Nodes behind a proxy have its variables in the environment of every program, and Go's programs go by them.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_where_the_environment_says_so() {
    let mut cluster = Cluster::builder().nodes(1).dual_stack().start().await.unwrap();
    let authority = Authority::new(&cluster.fabric().folder().join("pki"), "lab-ca").unwrap();
    let server = serve(&cluster, &authority)[0];
    give_kubeconfig(&cluster, 1, server, authority.certificate(), &authority.client("agent").unwrap());
    let at = SocketAddr::new(server.ip(), 3128);
    let (mut proxy, log) = proxy(&cluster, at);
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let asked = || told().matches(&format!("CONNECT {server} ")).count();
    let listens = || async {
        let said = cluster.on_node(1, &format!("curl -s -m 60 -o /dev/null -w %{{http_code}} http://{at}/"));
        said.map(drop).map_err(|error| error.to_string())
    };
    eventually(ONCE, listens).await.unwrap();

    cluster.set_agent_flags(1, FLAGS).unwrap();
    cluster.set_agent_without_master(1, server).unwrap();
    cluster.add_to_agent_environment(1, &[("HTTPS_PROXY", &format!("http://{at}"))]).unwrap();
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    assert!(asked() > 0, "through the proxy: {}", told());

    let network = format!("192.0.2.0/24,{}/32", server.ip());
    cluster.add_to_agent_environment(1, &[("NO_PROXY", &network)]).unwrap();
    cluster.take_agent(1).unwrap().kill();
    let before = asked();
    cluster.start_agent(1).unwrap();
    programmed(&cluster, 1).await;
    assert_eq!(asked(), before, "past the proxy: {}", told());
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}
