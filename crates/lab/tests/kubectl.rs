//! The real kubectl against the API server: what it prints and what it leaves in the store is the verdict.
//!
//! kubectl is found on PATH, or named by KUBECTL (Debian 12's is 1.20; newer ones must work too). Without one
//! these tests fail. What 1.32 asks for the commands of every day is replayed besides, in `wire`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail by panicking, too"
)]

#[path = "kubectl/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use lab::api_server::{ApiServer, Config, Handle, Resource};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(60);

struct Cluster {
    _server: ApiServer,
    handle: Handle,
    address: SocketAddr,
}

impl Cluster {
    async fn start() -> Self {
        let config = Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
        let server = ApiServer::start(config).await.unwrap();
        let (handle, address) = (server.handle(), server.addresses()[0]);
        Self { _server: server, handle, address }
    }

    #[allow(clippy::disallowed_methods, reason = "the tool under test is a foreign program")]
    fn command(&self, args: &[&str]) -> Command {
        let kubectl = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let mut command = Command::new(kubectl);
        // Discovery is cached per address, and ports come back: no cache may outlive its test.
        let cache =
            std::env::temp_dir().join(format!("lab-kubectl-{}-{}", std::process::id(), self.address.port()));
        command.arg("--server").arg(format!("http://{}", self.address)).arg("--cache-dir").arg(cache);
        command.args(args).env("KUBECONFIG", "/dev/null").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child =
            self.command(args).spawn().expect("kubectl on PATH (apt-get install kubernetes-client)");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        timeout(BOUND, child.wait_with_output()).await.expect("kubectl hangs").unwrap()
    }

    /// What a kubectl call that must succeed prints.
    async fn ok(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {args:?}: {err}{out}");
        assert!(!err.contains("Warning") && !err.contains("error"), "kubectl {args:?} complains: {err}");
        out.into_owned()
    }

    /// What a kubectl call that must fail says.
    async fn refused(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input).await;
        assert!(!output.status.success(), "kubectl {args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn get(&self, resource: Resource, name: &str) -> Value {
        (*self.handle.get(resource, None, name).unwrap_or_else(|| panic!("no {resource:?} {name}"))).clone()
    }

    fn add_node(&self, name: &str) {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}],
                            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]});
        self.handle.create(Resource::Nodes, json!({"metadata": {"name": name}, "status": status})).unwrap();
    }

    /// Waits for a condition on the store.
    async fn until(&self, what: &str, condition: impl Fn(&Handle) -> bool) {
        let poll = async {
            while !condition(&self.handle) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BOUND, poll).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
    }
}

fn columns(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example/web:1
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: admin, port: 81, targetPort: 8081}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{ports: [{protocol: TCP, port: 8080}]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {a: b}
";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_applied_shown_changed_and_deleted() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1");
    let said = cluster.ok(&["apply", "-f", "-"], MANIFEST).await;
    assert_eq!(said.lines().filter(|line| line.ends_with(" created")).count(), 5, "{said}");
    let version = |handle: &Handle| {
        handle.get(Resource::NetworkPolicies, None, "web").unwrap()["metadata"]["resourceVersion"].clone()
    };
    let before = version(&cluster.handle);
    let again = cluster.ok(&["apply", "-f", "-"], MANIFEST).await;
    assert_eq!(again.lines().filter(|line| line.ends_with(" unchanged")).count(), 5, "{again}");
    assert_eq!(version(&cluster.handle), before);

    let service = cluster.get(Resource::Services, "web");
    let table = cluster.ok(&["get", "svc", "-o", "wide"], "").await;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(
        columns(lines[0]),
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    );
    let row = columns(lines[1]);
    assert_eq!(row[..4], ["web", "NodePort", service["spec"]["clusterIP"].as_str().unwrap(), "<none>"]);
    assert_eq!(row[6], "app=web");

    cluster
        .until("two pods on the node", |handle| {
            let pods = handle.list(Resource::Pods, Some("default"));
            pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["nodeName"] == "n1")
        })
        .await;
    let all = cluster.ok(&["get", "deploy,po,netpol,no,ns,cm", "-A"], "").await;
    for expected in [
        "deployment.apps/web",
        "pod/web-",
        "networkpolicy.networking.k8s.io/web",
        "node/n1",
        "namespace/shop",
        "configmap/settings",
    ] {
        assert!(all.contains(expected), "{expected} is missing in:\n{all}");
    }
    let yaml = cluster.ok(&["get", "netpol", "web", "-o", "jsonpath={.spec.policyTypes}"], "").await;
    assert_eq!(yaml, r#"["Ingress"]"#);

    cluster.ok(&["delete", "-f", "-", "--wait=false", "--ignore-not-found"], MANIFEST).await;
    cluster.until("the service to go", |handle| handle.get(Resource::Services, None, "web").is_none()).await;
    cluster
        .until("the namespace to go", |handle| handle.get(Resource::Namespaces, None, "shop").is_none())
        .await;
    assert!(cluster.handle.list(Resource::ConfigMaps, Some("shop")).is_empty());
}

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80, endPort: 90}, {port: dns, protocol: UDP}]
  egress: [{to: [{namespaceSelector: {}}]}]
";

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_completed_checked_and_changed() {
    let cluster = Cluster::start().await;
    cluster.ok(&["apply", "-f", "-"], POLICY).await;
    let spec = cluster.get(Resource::NetworkPolicies, "web")["spec"].clone();
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(spec["ingress"][0]["ports"][0], json!({ "port": 80, "endPort": 90, "protocol": "TCP" }));
    let table = cluster.ok(&["get", "netpol"], "").await;
    assert_eq!(columns(table.lines().nth(1).unwrap())[..2], ["web", "app=web"]);
    let told = cluster.ok(&["describe", "netpol", "web"], "").await;
    assert!(told.contains("CIDR: 10.0.0.0/8") && told.contains("Except: 10.1.0.0/16"), "{told}");

    for (good, bad, field) in [
        ("10.0.0.0/8", "10.0.0.0/40", "spec.ingress[0].from[0].ipBlock.cidr"),
        ("10.1.0.0/16", "11.1.0.0/16", "spec.ingress[0].from[0].ipBlock.except[0]"),
        ("endPort: 90", "endPort: 70", "spec.ingress[0].ports[0].endPort"),
    ] {
        let said = cluster.refused(&["apply", "-f", "-"], &POLICY.replace(good, bad)).await;
        assert!(said.contains(field), "{bad}: {said}");
    }
    assert_eq!(
        cluster.get(Resource::NetworkPolicies, "web")["spec"],
        spec,
        "a refused change changes nothing"
    );
    cluster.ok(&["apply", "-f", "-"], &POLICY.replace("app: web", "app: other")).await;
    let selector = cluster.get(Resource::NetworkPolicies, "web")["spec"]["podSelector"].clone();
    assert_eq!(selector, json!({ "matchLabels": { "app": "other" } }));
    cluster.ok(&["delete", "netpol", "web"], "").await;
    assert!(cluster.handle.get(Resource::NetworkPolicies, None, "web").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_ports_merge_by_port() {
    let cluster = Cluster::start().await;
    cluster.ok(&["apply", "-f", "-"], MANIFEST).await;
    let before = cluster.get(Resource::Services, "web");
    let changed = MANIFEST
        .replace("port: 81, targetPort: 8081", "port: 82, targetPort: 8082")
        .replace("targetPort: http", "targetPort: 9090");
    let said = cluster.ok(&["apply", "-f", "-"], &changed).await;
    assert!(said.contains("service/web configured"), "{said}");
    let after = cluster.get(Resource::Services, "web");
    let ports = after["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2, "{ports:?}");
    assert_eq!((&ports[0]["port"], &ports[0]["targetPort"]), (&json!(80), &json!(9090)));
    assert_eq!(
        ports[0]["nodePort"], before["spec"]["ports"][0]["nodePort"],
        "the merged port keeps its node port"
    );
    assert_eq!((&ports[1]["port"], &ports[1]["name"]), (&json!(82), &json!("admin")));
    assert_eq!(after["spec"]["clusterIP"], before["spec"]["clusterIP"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_labelled_annotated_patched_scaled_and_replaced() {
    let cluster = Cluster::start().await;
    cluster.ok(&["apply", "-f", "-"], MANIFEST).await;
    cluster.ok(&["annotate", "svc", "web", "kube-router.io/service.scheduler=dh"], "").await;
    cluster.ok(&["label", "svc", "web", "tier=front"], "").await;
    cluster
        .ok(&["patch", "svc", "web", "--type=merge", "-p", r#"{"spec":{"externalIPs":["1.1.1.1"]}}"#], "")
        .await;
    cluster
        .ok(
            &[
                "patch",
                "svc",
                "web",
                "--type=json",
                "-p",
                r#"[{"op":"add","path":"/metadata/labels/x","value":"y"}]"#,
            ],
            "",
        )
        .await;
    cluster
        .ok(&["patch", "svc", "web", "-p", r#"{"spec":{"ports":[{"port":80,"targetPort":7070}]}}"#], "")
        .await;
    let service = cluster.get(Resource::Services, "web");
    assert_eq!(service["metadata"]["annotations"]["kube-router.io/service.scheduler"], "dh");
    assert_eq!(service["metadata"]["labels"], json!({"app": "web", "tier": "front", "x": "y"}));
    assert_eq!(service["spec"]["externalIPs"], json!(["1.1.1.1"]));
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 7070);
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 2);
    cluster.ok(&["annotate", "svc", "web", "kube-router.io/service.scheduler-"], "").await;
    assert_eq!(
        cluster.get(Resource::Services, "web")["metadata"]["annotations"]
            .get("kube-router.io/service.scheduler"),
        None
    );

    cluster.ok(&["scale", "deploy", "web", "--replicas=3"], "").await;
    cluster.until("three pods", |handle| handle.list(Resource::Pods, None).len() == 3).await;
    let selected = cluster
        .ok(&["get", "po", "-l", "app=web", "--field-selector", "status.phase=Pending", "-o", "name"], "")
        .await;
    assert_eq!(selected.lines().count(), 3);
    cluster.ok(&["delete", "po", "--all", "--wait=false"], "").await;
    cluster.ok(&["delete", "deploy", "web"], "").await;
    cluster
        .until("the pods to go with their owner", |handle| handle.list(Resource::Pods, None).is_empty())
        .await;

    let dumped = cluster.ok(&["get", "svc", "web", "-o", "json"], "").await;
    cluster.ok(&["replace", "-f", "-"], &dumped).await;
    let made = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: made}, data: {a: b}}";
    cluster.ok(&["create", "-f", "-"], made).await;
    assert_eq!(cluster.get(Resource::ConfigMaps, "made")["data"], json!({"a": "b"}));
    cluster
        .ok(
            &["apply", "--server-side", "-f", "-"],
            "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: made}, data: {c: d}}",
        )
        .await;
    assert_eq!(cluster.get(Resource::ConfigMaps, "made")["data"], json!({"a": "b", "c": "d"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_pods_nodes_and_deployments_are_described() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1");
    cluster.ok(&["create", "-f", "-"], MANIFEST).await;
    cluster
        .until("a scheduled pod", |handle| {
            handle.list(Resource::Pods, None).iter().any(|pod| pod["spec"]["nodeName"] == "n1")
        })
        .await;
    let pod = cluster.handle.list(Resource::Pods, None)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let status = json!({"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}],
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "containerStatuses": [{"name": "web", "ready": true, "restartCount": 0, "image": "i", "imageID": "", "state": {"running": {}}}]});
    cluster.handle.patch_status(Resource::Pods, None, &pod, &status).unwrap();
    cluster
        .until("the endpoint", |handle| {
            handle
                .list(Resource::EndpointSlices, None)
                .iter()
                .any(|slice| slice["endpoints"][0]["conditions"]["ready"] == true)
                && handle
                    .get(Resource::Endpoints, None, "web")
                    .is_some_and(|e| e["subsets"][0]["addresses"][0]["ip"] == "10.244.0.5")
        })
        .await;
    let service = cluster.ok(&["describe", "svc", "web"], "").await;
    assert!(service.contains("10.244.0.5:8080") && service.contains("app=web"), "{service}");
    let table = cluster.ok(&["get", "po", &pod, "-o", "wide"], "").await;
    assert!(table.contains("1/1") && table.contains("Running") && table.contains("n1"), "{table}");
    for (kind, name, expected) in [
        ("po", pod.as_str(), "Running"),
        ("no", "n1", "10.244.0.0/24"),
        ("deploy", "web", "example/web:1"),
        ("netpol", "web", "app=web"),
    ] {
        let text = cluster.ok(&["describe", kind, name], "").await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_the_user() {
    let cluster = Cluster::start().await;
    let missing = cluster.refused(&["get", "svc", "nobody"], "").await;
    assert!(missing.contains(r#"services "nobody" not found"#), "{missing}");
    let unknown = cluster.refused(&["get", "widgets"], "").await;
    assert!(unknown.contains("the server doesn't have a resource type"), "{unknown}");
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}";
    cluster.ok(&["create", "-f", "-"], service).await;
    let twice = cluster.refused(&["create", "-f", "-"], service).await;
    assert!(twice.contains("AlreadyExists"), "{twice}");
    let taken = cluster.refused(&["create", "-f", "-"], &service.replace("name: a", "name: b")).await;
    assert!(taken.contains("already allocated"), "{taken}");
    let lost = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}";
    let nowhere = cluster.refused(&["-n", "nowhere", "create", "-f", "-"], lost).await;
    assert!(nowhere.contains(r#"namespaces "nowhere" not found"#), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_waits_for_the_grace_period_to_end() {
    let cluster = Cluster::start().await;
    cluster.add_node("n1");
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: n1, containers: [{name: a, image: a}]}}";
    cluster.ok(&["create", "-f", "-"], pod).await;
    let deletion = cluster.command(&["delete", "po", "a"]).spawn().unwrap();
    cluster
        .until("the deletion to begin", |handle| {
            handle
                .get(Resource::Pods, None, "a")
                .is_some_and(|pod| pod["metadata"]["deletionGracePeriodSeconds"] == 30)
        })
        .await;
    assert!(cluster.ok(&["get", "po", "a"], "").await.contains("Terminating"));
    cluster.handle.delete(Resource::Pods, None, "a", Some(0)).unwrap();
    let output = timeout(BOUND, deletion.wait_with_output())
        .await
        .expect("kubectl delete does not see the end")
        .unwrap();
    assert!(output.status.success());
}

async fn lines(child: &mut Child, count: usize) -> Vec<String> {
    let mut reader = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = Vec::new();
    while lines.len() < count {
        let line = timeout(BOUND, reader.next_line()).await.expect("a line in time").unwrap();
        lines.push(line.expect("kubectl ended its watch"));
    }
    child.stdout = Some(reader.into_inner().into_inner());
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_changes_as_they_happen() {
    let cluster = Cluster::start().await;
    cluster.handle.create(Resource::ConfigMaps, json!({"metadata": {"name": "a"}})).unwrap();
    let mut watch = cluster.command(&["get", "cm", "-w"]).spawn().unwrap();
    let first = lines(&mut watch, 2).await;
    assert_eq!((columns(&first[0])[0], columns(&first[1])[..2].to_vec()), ("NAME", vec!["a", "0"]));
    cluster.handle.patch(Resource::ConfigMaps, None, "a", &json!({"data": {"x": "y"}})).unwrap();
    cluster.handle.create(Resource::ConfigMaps, json!({"metadata": {"name": "b"}})).unwrap();
    let later = lines(&mut watch, 2).await;
    assert_eq!(
        (columns(&later[0])[..2].to_vec(), columns(&later[1])[..2].to_vec()),
        (vec!["a", "1"], vec!["b", "0"])
    );
    watch.start_kill().unwrap();
}
