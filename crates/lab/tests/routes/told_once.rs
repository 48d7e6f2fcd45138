//! What is told of Services: a change of one never withdraws or repeats what others tell (upstream's W3 and W19).
//!
//! FRR counts the UPDATE messages of each session, so that a path that went and came back is noticed.

use std::net::IpAddr;

use ipnet::IpNet;
use lab::api_server::Resource;
use lab::cluster::Cluster;
use lab::router::{Router, Software};
use serde_json::{Value, json};

use crate::above::{above, spreads};
use crate::setup::{PORT, established, routed, until};

const FLAGS: [&str; 4] = [
    "--peer-router-ips=172.31.0.101",
    "--peer-router-asns=65000",
    "--advertise-external-ip=true",
    "--service-external-ip-range=203.0.113.0/24",
];
const SHARED: &str = "203.0.113.10";

/// Creates a Service with an external IP, in front of the pods; a `bare` one is in front of nothing and has no
/// EndpointSlice. Waits until the router spreads the address over both nodes.
async fn service(cluster: &Cluster, router: &Router, name: &str, external: &str, bare: bool) {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
        "spec": { "externalIPs": [external], "ports": [{ "port": 80, "targetPort": PORT }] },
    });
    if !bare {
        service["spec"]["selector"] = json!({ "app": "web" });
    }
    cluster.api().create(Resource::Services, service).unwrap();
    let address: IpAddr = external.parse().unwrap();
    spreads(cluster, router, &IpNet::from(address), &[1, 2]).await;
}

/// UPDATE messages the router has had from each node.
fn updates(cluster: &Cluster, router: &Router) -> Vec<u64> {
    let of = |node: &std::sync::Arc<lab::node::Node>| {
        let said = router.peering(node.addresses()[0]).unwrap().said;
        let said: Value = serde_json::from_str(&said).unwrap();
        said["messageStats"]["updatesRecv"].as_u64().unwrap_or_else(|| panic!("{said:#}"))
    };
    cluster.nodes().iter().map(of).collect()
}

/// Waits until the Service `b` has so many endpoints.
async fn endpoints_of_b(cluster: &Cluster, wanted: usize) {
    until(&format!("{wanted} endpoints"), || {
        let line = ["get", "endpointslices", "-l", "kubernetes.io/service-name=b", "-o", "json"];
        let text = cluster.kubectl(line).map_err(|error| error.to_string())?;
        let list: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let slices = list["items"].as_array().into_iter().flatten();
        let count: usize = slices.map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum();
        if count == wanted { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_two_services_stays_while_one_of_them_wants_it() {
    let cluster = routed(2, 1, &FLAGS).await;
    let router = above(&cluster, 1, Software::Frr);
    for node in [1, 2] {
        established(&cluster, node, 2).await;
    }
    service(&cluster, &router, "a", SHARED, false).await;
    service(&cluster, &router, "b", SHARED, false).await;
    endpoints_of_b(&cluster, 2).await;
    // Whatever was said before has arrived with this.
    service(&cluster, &router, "first-mark", "203.0.113.20", false).await;
    let before = updates(&cluster, &router);

    // One of the two loses its endpoints, then goes. Another comes that has no EndpointSlice at all.
    let nobody = json!({ "spec": { "selector": { "app": "nobody" } } });
    cluster.api().patch(Resource::Services, Some("default"), "b", &nobody).unwrap();
    endpoints_of_b(&cluster, 0).await;
    cluster.api().delete(Resource::Services, Some("default"), "b", None).unwrap();
    service(&cluster, &router, "bare", "203.0.113.30", true).await;
    service(&cluster, &router, "last-mark", "203.0.113.40", false).await;
    let after: Vec<u64> = before.iter().map(|count| count + 2).collect();
    assert_eq!(updates(&cluster, &router), after, "two addresses came, and nothing else was said");

    // With the last that wants it, it goes.
    let shared: IpAddr = SHARED.parse().unwrap();
    spreads(&cluster, &router, &IpNet::from(shared), &[1, 2]).await;
    cluster.api().delete(Resource::Services, Some("default"), "a", None).unwrap();
    spreads(&cluster, &router, &IpNet::from(shared), &[]).await;
    let bare: IpNet = "203.0.113.30/32".parse().unwrap();
    spreads(&cluster, &router, &bare, &[1, 2]).await;
}
