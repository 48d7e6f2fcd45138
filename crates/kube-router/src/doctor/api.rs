//! Asking the API server what the agent would ask: one object of each list, this node's object, the time.

use std::time::Duration;

use ::kube::Client;
use ::kube::client::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use linux::row::Name;
use serde_json::Value;

use super::{Api, Listed, NodeSeen};
use crate::causes::with_causes;
use crate::core::{enabled_controllers, needs};
use crate::kube::convert::Wire;
use crate::kube::model::Kind;
use crate::kube::{client, connection, wire};
use crate::options::Options;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the server says; a list that is not reached ends the questions, the others would wait as long.
pub(super) async fn ask(options: &Options) -> Api {
    let node_name = client::node_name(&options.api).unwrap_or_default();
    let mut api = Api { node_name, ..Api::default() };
    let config = match client::config(&options.api).await {
        Ok(config) => config,
        Err(error) => {
            api.server = Some(Err(with_causes(&error)));
            return api;
        }
    };
    let url = config.cluster_url.clone();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    api.server = Some(Ok(format!("{}{port}", url.host().unwrap_or_default())));
    let client = match connection::client(&config) {
        Ok(client) => client,
        Err(error) => {
            api.server = Some(Err(error.to_string()));
            return api;
        }
    };
    let name = Name::from(api.node_name.as_str());
    let wanted = needs(&enabled_controllers(options), &name, options).watches;
    for kind in Kind::ALL.into_iter().filter(|kind| wanted.iter().any(|watch| watch.kind == *kind)) {
        let (listed, body) = list(&client, kind, &mut api).await;
        let unreached = matches!(listed, Listed::Unreached(_));
        if kind == Kind::Node {
            api.node = body.as_ref().and_then(node);
        }
        api.lists.push((kind.as_str(), listed));
        if unreached {
            break;
        }
    }
    api
}

fn path(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => wire::Service::PATH,
        Kind::EndpointSlice => wire::EndpointSlice::PATH,
        Kind::Node => wire::Node::PATH,
        Kind::Pod => wire::Pod::PATH,
        Kind::Namespace => wire::Namespace::PATH,
        Kind::NetworkPolicy => wire::NetworkPolicy::PATH,
    }
}

async fn list(client: &Client, kind: Kind, api: &mut Api) -> (Listed, Option<Value>) {
    let mut target = format!("{}?limit=1", path(kind));
    if kind == Kind::Node {
        target.push_str(&format!("&fieldSelector=metadata.name%3D{}", api.node_name));
    }
    let request = match Request::get(target).body(Body::empty()) {
        Ok(request) => request,
        Err(error) => return (Listed::Unreached(error.to_string()), None),
    };
    let answer = async {
        let answer = client.send(request).await.map_err(|error| cause(&error))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((head, body.to_bytes()))
    };
    let (head, body) = match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return (Listed::Unreached(error), None),
        Err(_) => return (Listed::Unreached(format!("no answer within {} s", PATIENCE.as_secs())), None),
    };
    let date = head.headers.get("date").and_then(|date| date.to_str().ok());
    api.clock_ahead = api.clock_ahead.or_else(|| ahead(date?));
    let body: Option<Value> = serde_json::from_slice(&body).ok();
    if head.status.is_success() {
        return (Listed::Yes, body);
    }
    let reason = body.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
    (Listed::No(head.status.as_u16(), reason.unwrap_or_default().to_owned()), None)
}

/// What is at the bottom of an error of the client: the layers above say what a user knows, some of them twice.
fn cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Seconds by which a `Date` header (RFC 9110) is ahead of this node's clock.
fn ahead(date: &str) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(theirs.as_second() - jiff::Timestamp::now().as_second())
}

fn node(list: &Value) -> Option<NodeSeen> {
    let node = list.get("items")?.get(0)?;
    let texts = |values: &Value, key: Option<&str>| -> Vec<String> {
        let of = |value: &Value| match key {
            Some(key) => value.get(key).and_then(Value::as_str).map(str::to_owned),
            None => value.as_str().map(str::to_owned),
        };
        values.as_array().into_iter().flatten().filter_map(of).collect()
    };
    let null = Value::Null;
    let addresses = texts(node.pointer("/status/addresses").unwrap_or(&null), Some("address"));
    let mut pod_cidrs = texts(node.pointer("/spec/podCIDRs").unwrap_or(&null), None);
    let single = node.pointer("/spec/podCIDR").and_then(Value::as_str).map(str::to_owned);
    let annotations = node.pointer("/metadata/annotations");
    for name in ["kube-router.io/pod-cidr", "kube-router.io/pod-cidrs"] {
        let given = annotations.and_then(|annotations| annotations.get(name)).and_then(Value::as_str);
        pod_cidrs.extend(given.map(str::to_owned));
    }
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(single);
    }
    let is_ip = |address: &String| address.parse::<std::net::IpAddr>().is_ok();
    Some(NodeSeen { addresses: addresses.into_iter().filter(is_ip).collect(), pod_cidrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_servers_write_them() {
        assert!(ahead("Fri, 27 Nov 2026 16:22:07 GMT").is_some());
        assert_eq!(ahead("yesterday"), None);
    }

    #[test]
    fn a_node_is_known_by_addresses_and_pod_prefixes() {
        let list = serde_json::json!({ "items": [{
            "metadata": { "annotations": { "kube-router.io/pod-cidr": "10.1.0.0/24" } },
            "spec": { "podCIDR": "10.2.0.0/24" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": "n1" }] },
        }] });
        let seen = node(&list).unwrap();
        assert_eq!(
            (seen.addresses, seen.pod_cidrs),
            (vec!["192.0.2.1".to_owned()], vec!["10.1.0.0/24".to_owned()])
        );
        assert_eq!(node(&serde_json::json!({ "items": [] })), None);
    }
}
