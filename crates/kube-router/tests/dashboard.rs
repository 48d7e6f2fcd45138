//! The dashboard of `docs/grafana-dashboard.json` asks for metrics that this agent exports, with labels they have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, helpers too"
)]

use std::collections::BTreeSet;

use kube_router::metrics::Metrics;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

/// Labels that Prometheus adds to everything it scrapes.
const OF_THE_SCRAPE: [&str; 2] = ["instance", "job"];

/// A query, and what names its results in the picture.
struct Query {
    text: String,
    legend: String,
}

/// Every query of the dashboard: of panels, and of variables, which have no legend.
fn queries() -> Vec<Query> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<Query>) {
    match value {
        Value::Object(fields) => {
            let legend = fields.get("legendFormat").and_then(Value::as_str).unwrap_or_default();
            for (name, field) in fields {
                match field {
                    Value::String(text) if ["expr", "query"].contains(&name.as_str()) => {
                        found.push(Query { text: text.clone(), legend: legend.to_owned() });
                    }
                    field => collect(field, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// Names of metrics in a query, each with what follows it: words of ours, of kube-proxy's and of the process.
fn metrics(query: &str) -> Vec<(&str, &str)> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_of_word) {
        let word = &rest[start..];
        let (name, after) = word.split_at(word.find(|c: char| !is_of_word(c)).unwrap_or(word.len()));
        if ["kube_router_", "kubeproxy_", "process_"].iter().any(|prefix| name.starts_with(prefix)) {
            found.push((name, after));
        }
        rest = after;
    }
    found
}

/// The name a histogram was defined with.
fn bare(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Labels of a selector `{a="b", c=~"d"}` at the beginning of a text.
fn selected(after: &str) -> Vec<&str> {
    let Some((selector, _)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
        return Vec::new();
    };
    selector.split(',').map(|part| part.split(['=', '!']).next().unwrap().trim()).collect()
}

/// Labels of `by (a, b)`, if a query has it.
fn grouped(query: &str) -> Option<Vec<&str>> {
    let (labels, _) = query.split_once("by (")?.1.split_once(')')?;
    Some(labels.split(',').map(str::trim).collect())
}

/// Labels of `{{a}} {{b}}`.
fn named(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim())).collect()
}

#[test]
fn every_metric_of_the_dashboard_is_exported() {
    let exported = Metrics::new().unwrap();
    let text = String::from_utf8(exported.text().unwrap()).unwrap();
    let known: BTreeSet<String> = exported.names().collect();
    let queries = queries();
    let mut asked = 0;
    for (name, _) in queries.iter().flat_map(|query| metrics(&query.text)) {
        let of_the_process = name.starts_with("process_") && text.contains(&format!("\n{name} "));
        assert!(known.contains(bare(name)) || of_the_process, "{name} is in the dashboard but not exported");
        asked += 1;
    }
    assert!(asked >= 20, "{asked} metrics found in {} queries", queries.len());
}

#[test]
fn every_label_of_the_dashboard_is_one_its_metric_has() {
    let exported = Metrics::new().unwrap().labels();
    let mut asked = 0;
    for Query { text, legend } in queries() {
        // What any metric of the query has; a query is about one, or compares two of the same labels.
        let mut all: BTreeSet<&str> = OF_THE_SCRAPE.into();
        for (name, after) in metrics(&text) {
            let mut labels: BTreeSet<&str> = OF_THE_SCRAPE.into();
            labels.extend(exported.get(bare(name)).into_iter().flatten().map(String::as_str));
            if name.ends_with("_bucket") {
                labels.insert("le");
            }
            for label in selected(after) {
                assert!(labels.contains(label), "{name} has no label {label}: {text}");
                asked += 1;
            }
            all.extend(labels);
        }
        let groups = grouped(&text);
        for label in groups.iter().flatten() {
            assert!(all.contains(label), "no label {label} to group by: {text}");
            asked += 1;
        }
        for label in named(&legend) {
            let left = groups.as_ref().map_or(all.contains(label), |groups| groups.contains(&label));
            assert!(left, "no label {label} for {legend}: {text}");
            asked += 1;
        }
    }
    assert!(asked >= 50, "only {asked} labels");
}

#[test]
fn labels_are_read_out_of_queries() {
    let query = r#"topk(10, sum by (a, le) (rate(kube_router_x_bucket{b=~"$i", c!="d"}[5m]))) > process_y"#;
    let found = metrics(query);
    assert_eq!(
        found.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["kube_router_x_bucket", "process_y"]
    );
    assert_eq!((selected(found[0].1), selected(found[1].1)), (vec!["b", "c"], vec![]));
    assert_eq!((grouped(query), grouped("up")), (Some(vec!["a", "le"]), None));
    assert_eq!(named("{{a}} of {{ le }}"), ["a", "le"]);
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
