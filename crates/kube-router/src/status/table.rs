//! A [`Status`] as a person reads it.

use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::section::Section;
use super::{PeerState, ServiceState, Status};

/// Adds a part of a status to a text.
type Part = fn(&mut String, &Status);

/// The text of the parts asked for, of all if none is. O(what is told).
pub fn text(status: &Status, asked: &[Section]) -> String {
    let mut text = String::new();
    head(&mut text, status);
    let parts: [(Section, Part); 7] = [
        (Section::Controllers, controllers),
        (Section::Tables, tables),
        (Section::Services, |text, status| services(text, &status.services)),
        (Section::Policies, policies),
        (Section::Peers, |text, status| peers(text, &status.peers)),
        (Section::Routes, routes),
        (Section::Problems, trouble),
    ];
    for (_, part) in parts.iter().filter(|(section, _)| section.shown(asked)) {
        part(&mut text, status);
    }
    text
}

fn head(text: &mut String, status: &Status) {
    let up = std::time::Duration::from_secs(status.uptime_seconds);
    let _ = writeln!(text, "node {}, kube-router {}, up {}", status.node, status.version, span(up));
    if let Some(firewall) = &status.firewall {
        let _ = writeln!(text, "packet filter: {firewall}");
    }
    let state = if status.settled { "everything is programmed" } else { "programming" };
    let waiting = status.controllers.iter().filter(|controller| !controller.planning);
    let waiting: Vec<&str> = waiting.map(|controller| controller.name.as_str()).collect();
    match waiting.as_slice() {
        [] => _ = writeln!(text, "{state}"),
        names => _ = writeln!(text, "not planning yet, for want of input: {}", names.join(", ")),
    }
}

/// Controllers by name; watches only if there is something to say of them.
fn controllers(text: &mut String, status: &Status) {
    let names: Vec<&str> = status.controllers.iter().map(|controller| controller.name.as_str()).collect();
    if !names.is_empty() {
        let _ = writeln!(text, "runs: {}", names.join(", "));
    }
    for watch in status.watches.iter().filter(|watch| watch.broken.is_some() || !watch.synced) {
        let why = watch.broken.as_deref().unwrap_or("the first list is not complete");
        let _ = writeln!(text, "watch of {}s: {why}", watch.kind);
    }
}

fn tables(text: &mut String, status: &Status) {
    let mut table = new(["TABLE", "DESIRED", "ACTUAL", "REFUSED", "HEALED"]);
    for row in &status.tables {
        let numbers = [row.desired.to_string(), row.actual.to_string(), row.refused.to_string()];
        table.add_row([row.table.clone()].into_iter().chain(numbers).chain([row.healed.to_string()]));
    }
    section(text, &table);
}

fn services(text: &mut String, services: &[ServiceState]) {
    let mut table = new(["SERVICE", "AT", "KIND", "SCHEDULER", "BACKENDS"]);
    for service in services {
        let backends = service.backends.iter().map(|backend| match backend.weight {
            1 => backend.at.clone(),
            weight => format!("{} (weight {weight})", backend.at),
        });
        let mut backends = backends.collect::<Vec<_>>().join("\n");
        if !service.programmed {
            backends = "not in the kernel".to_owned();
        } else if backends.is_empty() {
            backends = "none".to_owned();
        }
        table.add_row([&service.service, &service.at, &service.kind, &service.scheduler, &backends]);
    }
    section(text, &table);
}

fn policies(text: &mut String, status: &Status) {
    let mut table = new(["POD", "ADDRESSES", "MAY RECEIVE", "MAY SEND", "RULES"]);
    let by = |policies: &[String]| match policies {
        [] => "everything".to_owned(),
        policies => format!("what is permitted by {}", policies.join(", ")),
    };
    for pod in &status.policies {
        let rules = if pod.programmed { "in the kernel" } else { "not in the kernel" };
        let (ingress, egress) = (by(&pod.ingress), by(&pod.egress));
        table.add_row([pod.pod.clone(), pod.addresses.join("\n"), ingress, egress, rules.to_owned()]);
    }
    section(text, &table);
    let mut table = new(["WIRED POD", "ADDRESSES", "SANDBOX", "API SERVER"]);
    for pod in &status.announced {
        let api = if pod.known { "shows no address yet" } else { "does not show it yet" };
        table.add_row([&*pod.pod, &*pod.addresses.join("\n"), &*pod.container, api]);
    }
    section(text, &table);
}

fn peers(text: &mut String, peers: &[PeerState]) {
    let mut table = new(["BGP PEER", "WHO", "STATE", "PREFIXES", "LAST ERROR"]);
    for peer in peers {
        let asn = peer.asn.map(|asn| format!(" (AS {asn})")).unwrap_or_default();
        let who = peer.node.as_ref().map_or("outside".to_owned(), |node| format!("node {node}"));
        let up = peer.up_seconds.map(std::time::Duration::from_secs);
        let mut state = up.map_or(peer.state.clone(), |up| format!("{} for {}", peer.state, span(up)));
        if let Some(seconds) = peer.retry_seconds {
            let pause = span(std::time::Duration::from_secs(seconds));
            let _ = write!(state, ", again in {pause}");
        }
        let mut prefixes = vec![format!("{} received, {} told", peer.received, peer.told)];
        prefixes.extend(peer.refused.iter().map(|(reason, count)| format!("{count} refused: {reason}")));
        let mut errors: Vec<String> = peer.last_error.iter().cloned().collect();
        errors.extend(peer.faults.iter().map(|(reason, count)| format!("{reason}: {count}")));
        table.add_row([peer.address.clone(), who + &asn, state, prefixes.join("\n"), errors.join("\n")]);
    }
    section(text, &table);
}

fn routes(text: &mut String, status: &Status) {
    let state = |programmed| if programmed { "in the kernel" } else { "not in the kernel" };
    let mut table = new(["PREFIX", "NEXT HOP", "NODE", "LINK", "ROUTE"]);
    for route in &status.routes {
        let node = route.node.clone().unwrap_or_else(|| "outside".to_owned());
        let (link, programmed) = match &route.link {
            Some(link) => (link.clone(), state(route.programmed)),
            None => (String::new(), "left to the network around the nodes"),
        };
        table.add_row([route.prefix.clone(), route.next_hop.clone(), node, link, programmed.to_owned()]);
    }
    section(text, &table);
    let mut table = new(["TUNNEL", "TO", "NODE", "KIND", "STATE"]);
    for tunnel in &status.tunnels {
        let node = tunnel.node.clone().unwrap_or_default();
        let programmed = state(tunnel.programmed).to_owned();
        table.add_row([
            tunnel.link.clone(),
            tunnel.remote.clone(),
            node,
            tunnel.encapsulation.clone(),
            programmed,
        ]);
    }
    section(text, &table);
}

/// Last, where it is seen.
fn trouble(text: &mut String, status: &Status) {
    for row in &status.refused {
        let _ = writeln!(text, "\nrefused: {} (tried {} times)", row.row, row.attempts);
        let _ = writeln!(text, "  why: {}", row.reason);
        if !row.wanted_by.is_empty() {
            let _ = writeln!(text, "  wanted by: {}", row.wanted_by.join(", "));
        }
    }
    for objection in &status.objections {
        let _ = writeln!(text, "\nnot used: {} {} {:?}", objection.object, objection.field, objection.value);
        let _ = writeln!(text, "  why: {}", objection.reason);
        let _ = writeln!(text, "  remedy: {}", objection.remedy);
    }
}

fn new<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    table
}

fn section(text: &mut String, table: &Table) {
    if table.row_count() > 0 {
        text.push('\n');
        // Without the spaces around the columns at the edges.
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.strip_prefix(' ').unwrap_or(&line).trim_end());
        }
    }
}

/// The two largest units: `3d 4h`, `2m 1s`.
pub(crate) fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    let units =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown = units.iter().skip_while(|(count, unit)| *count == 0 && *unit != "s").take(2);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{
        AnnouncedState, BackendState, ControllerState, ObjectionState, PodState, RefusedRow, RouteState,
        TableState, TunnelState, WatchState,
    };
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_newcomer_can_read_it() {
        let backend = |at: &str, weight| BackendState { at: at.into(), weight };
        let status = Status {
            node: "n1".into(),
            version: "v1".into(),
            uptime_seconds: 61,
            firewall: Some("nftables".into()),
            controllers: vec![ControllerState { name: "service proxy".into(), planning: true }],
            watches: vec![WatchState { kind: "Pod".into(), synced: true, broken: Some("gone".into()) }],
            tables: vec![TableState {
                table: "links".into(),
                desired: 1,
                actual: 1,
                ..TableState::default()
            }],
            refused: vec![RefusedRow {
                row: "link kube-dummy-if".into(),
                wanted_by: vec!["service proxy".into()],
                reason: "no such kind; modprobe dummy".into(),
                attempts: 3,
            }],
            services: vec![
                ServiceState {
                    service: "default/web".into(),
                    at: "10.96.0.1:80/tcp".into(),
                    kind: "ClusterIP".into(),
                    scheduler: "rr".into(),
                    programmed: true,
                    backends: vec![backend("10.244.0.2:80", 1), backend("10.244.1.2:80", 0)],
                },
                ServiceState { service: "default/none".into(), programmed: true, ..ServiceState::default() },
            ],
            policies: vec![PodState {
                pod: "default/web-1".into(),
                addresses: vec!["10.244.0.2".into(), "fd00::2".into()],
                ingress: vec!["default/only-from-front".into()],
                programmed: true,
                ..PodState::default()
            }],
            announced: vec![AnnouncedState {
                pod: "default/web-2".into(),
                container: "0123456789ab".into(),
                addresses: vec!["10.244.0.3".into()],
                known: true,
            }],
            peers: vec![
                PeerState {
                    address: "10.0.0.2".into(),
                    node: Some("n2".into()),
                    asn: Some(64512),
                    state: "established".into(),
                    up_seconds: Some(3600),
                    received: 3,
                    told: 2,
                    ..PeerState::default()
                },
                PeerState {
                    address: "192.0.2.1".into(),
                    state: "active".into(),
                    last_error: Some("from it: Bad Peer AS (2/2)".into()),
                    refused: [("own_as".into(), 2)].into(),
                    faults: [("too_many_prefixes".into(), 1)].into(),
                    ..PeerState::default()
                },
            ],
            routes: vec![RouteState {
                prefix: "10.244.1.0/24".into(),
                next_hop: "10.0.0.2".into(),
                node: Some("n2".into()),
                link: Some("tun-1".into()),
                programmed: true,
            }],
            tunnels: vec![TunnelState {
                link: "tun-1".into(),
                remote: "10.0.0.2".into(),
                node: Some("n2".into()),
                encapsulation: "ipip".into(),
                programmed: true,
                ..TunnelState::default()
            }],
            objections: vec![ObjectionState {
                object: "Service default/web".into(),
                ..ObjectionState::default()
            }],
            ..Status::default()
        };
        insta::assert_snapshot!(text(&status, &[]));
    }
}
