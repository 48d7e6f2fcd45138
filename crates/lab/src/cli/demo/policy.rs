//! A network policy is applied and removed: which pairs of pods change, by connections to the port it is about.
//!
//! What is right follows from the objects: a pair passes if the pod asked serves the port and the reference allows it.

use std::collections::BTreeMap;
use std::path::Path;

use lab::api_server::Resource;
use lab::cluster::{Cluster, attempts};
use lab::policy::{Member, Objects, Port, Truth, ask};
use lab::probe::Protocol;
use serde_json::Value;

use super::ask::SILENCE;
use super::progress::Progress;
use super::state::State;
use super::{Failure, PROGRAMMING};

/// The folder below that of the examples.
pub(super) const FOLDER: &str = "policy";
/// The port every HTTP example serves.
const PORT: Port = Port { number: 8080, protocol: Protocol::Tcp };

/// Shows it, and returns what did not hold.
pub(super) fn show(
    cluster: &Cluster,
    state: &State,
    examples: &Path,
    progress: &Progress,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<String>, Failure> {
    let folder = examples.join(FOLDER);
    let members = members(cluster, state);
    let name = folder.display().to_string();
    let serving: Vec<bool> = members.iter().map(|member| serves(cluster, state, &member.name)).collect();
    let open = Truth::new(&members, &[PORT], |question| serving.get(question.to) == Some(&true));
    let mut wrong = Vec::new();
    progress.step(&format!("every pod to every pod on port {PORT}"), |_| {
        wrong.extend(runtime.block_on(becomes(&members, &open)).err());
        let (all, passing) = open.count();
        Ok(((), format!("{passing} of {all} connections pass: those to pods that serve it")))
    })?;
    let closed = progress.step(&format!("kubectl apply -f {name}"), |_| {
        cluster.kubectl(["apply".as_ref(), "-f".as_ref(), folder.as_os_str()])?;
        let allowed = Truth::expected(&members, &[PORT], &Objects::of(&cluster.api()));
        let expected = open.and(&allowed);
        wrong.extend(runtime.block_on(becomes(&members, &expected)).err());
        let refused = open.changes(&expected).count();
        Ok((expected, format!("{refused} connections are refused")))
    })?;
    println!("{}", told(&open, &closed));
    progress.step(&format!("kubectl delete -f {name}"), |_| {
        cluster.kubectl(["delete".as_ref(), "-f".as_ref(), folder.as_os_str()])?;
        wrong.extend(runtime.block_on(becomes(&members, &open)).err());
        Ok(((), "as before".to_owned()))
    })?;
    Ok(wrong)
}

fn members(cluster: &Cluster, state: &State) -> Vec<Member> {
    let member = |pod: &super::state::Pod| {
        let probe = cluster.pod_probe(&pod.namespace, &pod.name)?;
        Some(Member { name: pod.name.clone(), addresses: pod.addresses.clone(), probe: Some(probe) })
    };
    state.pods.iter().filter_map(member).collect()
}

/// Whether one of the pod's containers declares the port.
fn serves(cluster: &Cluster, state: &State, name: &str) -> bool {
    let Some(pod) = state.pods.iter().find(|pod| pod.name == name) else { return false };
    let Some(object) = cluster.api().get(Resource::Pods, Some(&pod.namespace), name) else { return false };
    let array =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let containers = array(object.get("spec").unwrap_or(&Value::Null), "containers");
    containers.iter().flat_map(|container| array(container, "ports")).any(|port| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        port.get("containerPort").and_then(Value::as_u64) == Some(PORT.number.into()) && protocol == "TCP"
    })
}

async fn becomes(members: &[Member], expected: &Truth) -> Result<(), String> {
    // Longer with each attempt, for machines that do much else.
    let look = |attempt: u32| async move {
        let seen = ask(members, &[PORT], SILENCE * (attempt + 1).min(8)).await;
        seen.difference(expected).map_or(Ok(()), Err)
    };
    attempts(PROGRAMMING, look).await.map_err(|error| error.to_string())
}

/// Who is refused by whom, a line for each pod that refuses.
fn told(before: &Truth, after: &Truth) -> String {
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (cell, _) in before.changes(after) {
        let Some((from, to)) = cell.split_once(" > ") else { continue };
        let (to, how) = to.split_once(' ').unwrap_or((to, ""));
        let family = how.rsplit(' ').next().unwrap_or_default();
        refused.entry(format!("{to} {family}")).or_default().push(from.to_owned());
    }
    let line = |(to, from): (&String, &Vec<String>)| format!("           {to} refuses {}", from.join(", "));
    refused.iter().map(line).collect::<Vec<_>>().join("\n")
}
