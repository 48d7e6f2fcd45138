//! What kubectl 1.32 asks for `apply`, `get`, `annotate` and `delete`, request by request, whichever kubectl this machine
//! has. Paths, queries and headers are those it prints with `-v=9`; what it needs of an answer is asserted.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{BOUND, Cluster};

/// Of `/api` and `/apis`: the aggregated form if there is one, the old one else.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                         application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                     application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const ANY: &str = "application/json, */*";
const JSON: &str = "application/json";

const ALL: &str = "/api/v1/namespaces/default/services";
const ONE: &str = "/api/v1/namespaces/default/services/web";

/// An answer: status, content type, body.
struct Answer {
    status: u16,
    content_type: String,
    body: Value,
}

/// One request on a connection of its own.
async fn ask(
    cluster: &Cluster,
    verb: &str,
    path: &str,
    accept: &str,
    body: Option<(&str, &Value)>,
) -> Answer {
    let (content_type, body) = match body {
        Some((content_type, body)) => (format!("Content-Type: {content_type}\r\n"), body.to_string()),
        None => (String::new(), String::new()),
    };
    let request = format!(
        "{verb} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: {accept}\r\nUser-Agent: kubectl/v1.32.0\r\n\
         {content_type}Content-Length: {}\r\n\r\n{body}",
        cluster.address,
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(cluster.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(BOUND, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        content_type: head.lines().find_map(field).unwrap_or_default(),
        body: serde_json::from_str(body).unwrap_or_else(|error| panic!("{verb} {path}: {error}: {answer}")),
    }
}

async fn get(cluster: &Cluster, path: &str, accept: &str) -> Value {
    let answer = ask(cluster, "GET", path, accept, None).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, JSON), "{path}");
    answer.body
}

async fn send(cluster: &Cluster, verb: &str, path: &str, content_type: &str, body: &Value) -> Answer {
    ask(cluster, verb, path, JSON, Some((content_type, body))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kubectl_1_32_asks_is_answered() {
    let cluster = Cluster::start().await;
    writes_take_field_validation(&cluster).await;
    kinds_are_discovered(&cluster).await;
    an_object_is_applied_shown_annotated_and_deleted(&cluster).await;
}

/// `/openapi/v3` leads to a document for each group, with the operations that take `fieldValidation`; the same path
/// without its hash, too.
async fn writes_take_field_validation(cluster: &Cluster) {
    let index = get(cluster, "/openapi/v3?timeout=32s", ANY).await;
    for (group, version, kind, path) in [
        ("", "v1", "Service", "api/v1"),
        ("apps", "v1", "Deployment", "apis/apps/v1"),
        ("networking.k8s.io", "v1", "NetworkPolicy", "apis/networking.k8s.io/v1"),
    ] {
        let url =
            index["paths"][path]["serverRelativeURL"].as_str().unwrap_or_else(|| panic!("{path}: {index}"));
        let document = get(cluster, &format!("{url}&timeout=32s"), ANY).await;
        assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{path}");
        let wanted = json!({ "group": group, "version": version, "kind": kind });
        let mut operations =
            document["paths"].as_object().unwrap().values().filter_map(|path| path.get("patch"));
        let patch = operations
            .find(|patch| patch["x-kubernetes-group-version-kind"] == wanted)
            .unwrap_or_else(|| panic!("no patch of {kind}"));
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"), "{kind}: {patch}");
    }
}

/// The server has no aggregated form and says so by its content type; then every group's own document is asked for.
async fn kinds_are_discovered(cluster: &Cluster) {
    let core = get(cluster, "/api?timeout=32s", DISCOVERY).await;
    assert_eq!((&core["kind"], &core["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let groups = get(cluster, "/apis?timeout=32s", DISCOVERY).await;
    assert_eq!(groups["kind"], "APIGroupList");
    let named = groups["groups"].as_array().unwrap().iter();
    let named = named.map(|group| group["preferredVersion"]["groupVersion"].as_str().unwrap());
    let paths = named.map(|version| format!("/apis/{version}")).chain(["/api/v1".to_owned()]);
    let mut kinds = Vec::new();
    for path in paths.collect::<Vec<_>>() {
        let list = get(cluster, &format!("{path}?timeout=32s"), ANY).await;
        assert_eq!(list["kind"], "APIResourceList", "{path}");
        let resources = list["resources"].as_array().unwrap().iter();
        kinds.extend(resources.map(|resource| resource["kind"].as_str().unwrap().to_owned()));
    }
    for kind in ["Service", "Deployment", "EndpointSlice", "NetworkPolicy"] {
        assert!(kinds.iter().any(|found| found == kind), "{kind} is missing in {kinds:?}");
    }
}

/// `kubectl apply` keeps what it applied in an annotation.
fn applied(port: u16) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default", "annotations": {} },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": port }] },
    });
    let last = format!("{object}\n");
    object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!(last);
    object
}

async fn an_object_is_applied_shown_annotated_and_deleted(cluster: &Cluster) {
    const APPLY: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";
    let missing = ask(cluster, "GET", ONE, JSON, None).await;
    assert_eq!((missing.status, &missing.body["reason"]), (404, &json!("NotFound")));
    let created = send(cluster, "POST", &format!("{ALL}?{APPLY}"), JSON, &applied(80)).await;
    assert_eq!((created.status, &created.body["metadata"]["name"]), (201, &json!("web")));

    let before = get(cluster, ONE, JSON).await;
    let new = applied(81);
    let patch = json!({
        "metadata": { "annotations": new["metadata"]["annotations"] },
        "spec": { "$setElementOrder/ports": [{ "port": 81 }], "ports": [
            { "name": "http", "port": 81 }, { "$patch": "delete", "port": 80 },
        ] },
    });
    let strategic = "application/strategic-merge-patch+json";
    let patched = send(cluster, "PATCH", &format!("{ONE}?{APPLY}"), strategic, &patch).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    let ports = patched.body["spec"]["ports"].as_array().unwrap();
    assert!(ports.len() == 1 && ports[0]["port"] == 81, "{ports:?}");
    assert_eq!(patched.body["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert_eq!(patched.body["metadata"]["annotations"], new["metadata"]["annotations"]);

    let table = get(cluster, &format!("{ALL}?limit=500"), TABLE).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let cells: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|row| &row["cells"][0]).collect();
    assert!(cells.contains(&&json!("web")), "{cells:?}");

    let merge = json!({ "metadata": { "annotations": { "kube-router.io/service.scheduler": "lc" } } });
    let path = format!("{ONE}?fieldManager=kubectl-annotate");
    let annotated = send(cluster, "PATCH", &path, "application/merge-patch+json", &merge).await;
    assert_eq!(annotated.status, 200, "{}", annotated.body);
    assert_eq!(annotated.body["metadata"]["annotations"]["kube-router.io/service.scheduler"], "lc");

    let deleted = send(cluster, "DELETE", ONE, JSON, &json!({ "propagationPolicy": "Background" })).await;
    assert_eq!((deleted.status, &deleted.body["status"]), (200, &json!("Success")));
    // By this kubectl knows that what it waits for is not another object of the name.
    assert_eq!(deleted.body["details"]["uid"], before["metadata"]["uid"]);
    assert_eq!(ask(cluster, "GET", ONE, JSON, None).await.status, 404, "gone");
}
