//! An [`Explanation`] as a person reads it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{
    End, EndKind, Explanation, Outcome, PathHop, PlannedRoute, PolicyHop, RouteHop, ServiceHop, Verdict,
};
use crate::terminal::Paint;

/// The whole text. O(paths).
pub fn of(explanation: &Explanation, paint: Paint) -> String {
    let mut text = String::new();
    let here = explanation.node.as_str();
    let _ = writeln!(text, "from  {}", end(&explanation.from, here));
    let _ = writeln!(text, "to    {}", end(&explanation.to, here));
    for service in &explanation.services {
        virtual_server(&mut text, service, explanation);
    }
    for path in &explanation.paths {
        one_path(&mut text, path, here, paint);
    }
    let _ = writeln!(text, "\n{}: {}", paint_verdict(explanation.verdict, paint), reason(explanation));
    for note in &explanation.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn end(end: &End, here: &str) -> String {
    let addresses = end.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (end.kind, &end.node) {
        (EndKind::Pod, Some(node)) => {
            let on = if node == here { "this node".to_owned() } else { format!("node {node}") };
            format!("pod {} ({addresses}), on {on}", end.name)
        }
        (EndKind::Pod, None) => format!("pod {} ({addresses})", end.name),
        (EndKind::Node, _) => format!("node {} ({addresses})", end.name),
        (EndKind::Service, _) => format!("Service {} ({addresses})", end.name),
        (EndKind::Address, _) => format!("address {}", end.name),
    }
}

fn virtual_server(text: &mut String, service: &ServiceHop, explanation: &Explanation) {
    let ServiceHop { service: name, at, kind, scheduler, .. } = service;
    let _ = write!(text, "\nservice  {at} is the {kind} of {name}, scheduler {scheduler}");
    if let Some(seconds) = service.affinity_seconds {
        let _ = write!(text, "; a client stays with its backend for {seconds} s");
    }
    if service.local_only {
        let _ = write!(text, "; traffic policy Local: backends of this node only");
    }
    text.push('\n');
    if !service.programmed {
        let _ = writeln!(text, "         not in the kernel: see kube-router status problems");
    } else if service.backends.is_empty() {
        let _ = writeln!(text, "         no backend: connections are refused");
    }
    for backend in &service.backends {
        let pod = explanation.paths.iter().find(|path| at_of(path) == backend.at);
        let pod = pod.map(receiver).unwrap_or_default();
        let weight = match backend.weight {
            0 => "weight 0: finishes what it has".to_owned(),
            weight => format!("weight {weight}"),
        };
        let _ = writeln!(text, "         {} {weight}{pod}", backend.at);
    }
}

fn at_of(path: &PathHop) -> String {
    match path.port {
        Some(port) => SocketAddr::new(path.destination, port).to_string(),
        None => path.destination.to_string(),
    }
}

fn receiver(path: &PathHop) -> String {
    let pod = path.destination_pod.as_ref().map(|pod| format!(" (pod {pod}"));
    let node = path.destination_node.as_ref().map(|node| format!(", node {node}")).unwrap_or_default();
    pod.map(|pod| format!("{pod}{node})")).unwrap_or_default()
}

fn one_path(text: &mut String, path: &PathHop, here: &str, paint: Paint) {
    let protocol = path.protocol.as_ref().filter(|_| path.port.is_some());
    let protocol = protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
    let _ = writeln!(text, "\n{} to {}{protocol}{}", path.source, at_of(path), receiver(path));
    if let Some(address) = path.masqueraded_as {
        let _ = writeln!(text, "  source     becomes {address}: this node stands in for the sender");
    }
    let source = path.source_pod.as_deref().unwrap_or("the sender");
    let destination = path.destination_pod.as_deref().unwrap_or("the receiver");
    for (label, hop, pod, verb) in
        [("sending", &path.egress, source, "sends"), ("receiving", &path.ingress, destination, "receives")]
    {
        if let Some(hop) = hop {
            let _ = writeln!(text, "  {label:<10} {}", policies(hop, pod, verb, here, paint));
        }
    }
    if let Some(route) = &path.route {
        let _ = writeln!(text, "  route      {}", kernel_route(route, paint));
    }
    if let Some(planned) = &path.planned {
        let _ = writeln!(text, "  planned    {}", plan(planned));
    }
}

fn policies(hop: &PolicyHop, pod: &str, verb: &str, here: &str, paint: Paint) -> String {
    let names = hop.policies.join(", ");
    let (allowed, denied) = (paint.good("allowed"), paint.bad("denied"));
    let said = match hop.outcome {
        Outcome::NoPod => return "no pod at this end: no policy asked".to_owned(),
        Outcome::NotIsolated => format!("{allowed}: no policy restricts what {pod} {verb}"),
        Outcome::Exempt => format!("{allowed}: a pod's own node, and the pod itself, are not restricted"),
        Outcome::Permitted => format!("{allowed} by {names}"),
        Outcome::Refused => {
            format!("{denied}: {names} restrict{} what {pod} {verb}, none permits this", s(hop))
        }
    };
    match &hop.node {
        _ if hop.enforced_here => said,
        Some(node) if node != here => format!("{said} (enforced by node {node}, not here)"),
        _ => format!("{said} (not enforced here)"),
    }
}

/// Singular verbs for one policy.
fn s(hop: &PolicyHop) -> &'static str {
    if hop.policies.len() == 1 { "s" } else { "" }
}

fn kernel_route(route: &RouteHop, paint: Paint) -> String {
    if let Some(why) = &route.refused {
        return paint.bad(why);
    }
    let link = route.link.as_deref().unwrap_or("an unknown link");
    let way = match (route.local, route.via) {
        (true, _) => "delivered on this node".to_owned(),
        (false, Some(via)) => format!("via {via}, link {link}"),
        (false, None) => format!("directly on link {link}"),
    };
    let table = match route.table {
        None | Some(254 | 255) => String::new(),
        Some(table) => format!(", table {table}"),
    };
    let as_own = if route.as_own { " (as this node's own packets would go)" } else { "" };
    format!("{way}{table}{as_own}")
}

fn plan(planned: &PlannedRoute) -> String {
    let PlannedRoute { prefix, next_hop, node, link, tunnel, programmed } = planned;
    let node = node.as_ref().map_or("a router outside".to_owned(), |node| format!("node {node}"));
    let Some(link) = link else {
        return format!("{prefix} is behind {next_hop} ({node}), left to the network around the nodes");
    };
    let kind = if *tunnel { "tunnel" } else { "link" };
    let state = if *programmed { "in the kernel" } else { "not in the kernel" };
    format!("{prefix} via {next_hop} ({node}), {kind} {link}, {state}")
}

fn paint_verdict(verdict: Verdict, paint: Paint) -> String {
    match verdict {
        Verdict::Allowed => paint.good("allowed"),
        Verdict::Denied => paint.bad("denied"),
        Verdict::Depends => paint.doubtful("depends on the backend"),
        Verdict::Unserved => paint.bad("not served"),
        Verdict::Unreachable => paint.bad("unreachable"),
        Verdict::Unknown => paint.doubtful("unknown"),
    }
}

fn reason(explanation: &Explanation) -> String {
    let (all, passing) =
        (explanation.paths.len(), explanation.paths.iter().filter(|path| path.passes()).count());
    match explanation.verdict {
        Verdict::Allowed => "nothing this node knows of stands in the way".to_owned(),
        Verdict::Denied => "a policy refuses it".to_owned(),
        Verdict::Depends => format!("{passing} of {all} paths are open"),
        Verdict::Unserved => "the Service has no backend for it here".to_owned(),
        Verdict::Unreachable => "the kernel would not send it".to_owned(),
        Verdict::Unknown => "nothing here decides it".to_owned(),
    }
}
