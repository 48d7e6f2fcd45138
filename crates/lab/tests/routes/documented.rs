//! `docs/bgp.md`: it covers every flag and annotation, and its examples do what they say.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;
use lab::api_server::Resource;
use lab::router::Software;

use crate::above::{NODES_ASN, above, peers_with_all, spreads, web};
use crate::setup::{established, metric, metrics, routed, until};

fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code block behind `<!-- example: NAME -->`.
fn example(name: &str) -> String {
    let page = repository("docs/bgp.md");
    let mark = format!("<!-- example: {name} -->\n```");
    let (_, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("no example {name}"));
    let (_, code) = rest.split_once('\n').unwrap();
    code.split("```").next().unwrap().to_owned()
}

/// Merges an example into an object, by kubectl as a reader would.
fn patch(cluster: &lab::cluster::Cluster, what: &[&str], name: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), example(name)).unwrap();
    let file = file.path().to_string_lossy().into_owned();
    let words = what.iter().copied().chain(["--type=merge", "--patch-file", &file]);
    cluster.kubectl(["patch"].into_iter().chain(words)).unwrap();
}

#[test]
fn every_flag_and_annotation_is_there() {
    let page = repository("docs/bgp.md");
    let flags = repository("crates/kube-router/src/options/bgp.rs");
    // `    cluster_asn: Uint<u64>,` below `#[arg(long…`
    let mut lines = flags.lines().skip_while(|line| !line.contains("struct BgpFlags"));
    let mut seen = BTreeSet::new();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[arg(long") {
            if line == "}" {
                break;
            }
            continue;
        }
        let field = lines.next().unwrap().trim().trim_start_matches("pub(super) ");
        seen.insert(format!("--{}", field.split(':').next().unwrap().replace('_', "-")));
    }
    let annotations = repository("crates/kube-router/src/annotations.rs");
    let of_bgp = |name: &&str| !name.contains("service.") || name.contains("advertise");
    let names = annotations.split("\"kube-router.io/").skip(1).filter_map(|rest| rest.split('"').next());
    let names = names.filter(|name| !name.contains("hairpin")).filter(of_bgp);
    seen.extend(names.map(|name| format!("kube-router.io/{name}")));
    assert!(seen.len() > 45, "{seen:?}");
    let missing: Vec<&String> = seen.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/bgp.md: {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_flags_work() {
    let line = example("flags").replace("\\\n", " ");
    let flags: Vec<&str> = line.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() > 5, "{flags:?}");
    let cluster = routed(2, 1, &flags).await;
    let (cluster_ips, balancer) = web(&cluster).await;
    let router = above(&cluster, 1, Software::Frr);
    for vip in cluster_ips.iter().chain(&balancer).filter(|vip| vip.addr().is_ipv4()) {
        spreads(&cluster, &router, vip, &[1, 2]).await;
    }
    patch(&cluster, &["service", "web"], "service");
    for vip in cluster_ips.iter().filter(|vip| vip.addr().is_ipv4()) {
        spreads(&cluster, &router, vip, &[]).await;
    }
    let external: IpNet = "203.0.113.10/32".parse().unwrap();
    spreads(&cluster, &router, &external, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_annotations_work() {
    let cluster = routed(2, 1, &[]).await;
    let mut router = above(&cluster, 1, Software::Frr);
    let mut config = peers_with_all(&cluster, 1);
    config.neighbours.iter_mut().for_each(|neighbour| neighbour.password = Some("hunter2".to_owned()));
    let refused: IpNet = "192.0.2.0/25".parse().unwrap();
    config.networks = vec![lab::router::Network::new(refused)];
    config.networks.push(lab::router::Network::new("198.18.0.0/24".parse().unwrap()));
    router.start(config).unwrap();
    patch(&cluster, &["node", "node-1"], "node");
    patch(&cluster, &["node", "node-2"], "node lists");
    for node in [1, 2] {
        established(&cluster, node, 2).await;
    }
    let own = cluster.node(1).unwrap().pod_ranges()[0];
    until("communities and a longer path", || {
        let paths = router.paths(&own).map_err(|error| error.to_string())?;
        let good = |path: &lab::router::Path| {
            path.as_path == [NODES_ASN; 3] && path.communities.contains("64512:100")
        };
        if paths.iter().any(good) { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
    // Node 2 takes both prefixes, node 1 one of them.
    for (node, count) in [(2, 4), (1, 3)] {
        until(&format!("{count} routes of node {node}"), || {
            let there = crate::setup::learned(&cluster, node);
            if there.len() == count { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }
    assert!(!crate::setup::learned(&cluster, 1).contains(&refused.to_string()));
    for node in [1, 2] {
        assert_eq!(metric(&metrics(&cluster, node), "kube_router_rejected_objects", &[]), 0.0);
    }
    cluster.api().delete(Resource::Nodes, None, "node-2", None).unwrap();
    until("node 2 is gone", || {
        let there = crate::setup::learned(&cluster, 1);
        if there == ["198.18.0.0/24"] { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}
