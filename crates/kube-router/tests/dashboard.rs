//! The dashboard of `docs/grafana-dashboard.json` asks for metrics that this agent exports, with labels they have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

use std::collections::BTreeSet;

use kube_router::metrics::Metrics;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

/// Every text of the dashboard that is a query.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if ["expr", "query"].contains(&name.as_str()) => {
                        found.push(text.clone())
                    }
                    field => queries(field, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

/// Names of metrics in a query: words of ours, of kube-proxy's and of the process.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        ["kube_router_", "kubeproxy_", "process_"].iter().any(|prefix| word.starts_with(prefix))
    })
}

#[test]
fn every_metric_of_the_dashboard_is_exported() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    let exported = Metrics::new().unwrap();
    let text = String::from_utf8(exported.text().unwrap()).unwrap();
    let known: BTreeSet<String> = exported.names().collect();
    let mut asked = 0;
    for name in found.iter().flat_map(|query| metrics(query)) {
        let bare =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let of_the_process = name.starts_with("process_") && text.contains(&format!("\n{name} "));
        assert!(known.contains(bare) || of_the_process, "{name} is in the dashboard but not exported");
        asked += 1;
    }
    assert!(asked >= 15, "{asked} metrics found in {} queries", found.len());
}

#[test]
fn panels_have_a_title_a_query_and_a_place_of_their_own() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
        assert!(places.insert(panel["gridPos"].to_string()), "two panels at {}", panel["gridPos"]);
    }
}
