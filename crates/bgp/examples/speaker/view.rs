//! Peers, paths and news as JSON.

use bgp::driver::{Event, PeerReport};
use bgp::graceful_restart::End;
use bgp::rib::{Refusal, Standing};
use bgp::speaker::{self, Counters, PathView};
use bgp::wire::Notification;
use bgp::{Attributes, Origin};
use serde_json::{Value, json};

pub(crate) fn peer(report: &PeerReport) -> Value {
    let status = &report.status;
    let history = &status.history;
    let negotiated = status.negotiated.as_ref();
    let counts = |counts: &[(bgp::Family, usize)]| {
        let named = counts.iter().map(|(family, count)| (family.to_string(), json!(count)));
        Value::Object(named.collect())
    };
    json!({
        "address": report.peer,
        "state": status.state.to_string(),
        "stopped": status.stopped,
        "asn": negotiated.map(|session| session.peer_asn.get()),
        "router_id": negotiated.map(|session| session.peer_router_id),
        "received": counts(&report.received),
        "told": counts(&report.told),
        "announced": report.counters.announced,
        "established_count": history.established,
        "last_sent": history.last_sent.as_ref().map(notification),
        "last_received": history.last_received.as_ref().map(notification),
        "too_many_prefixes": history.too_many_prefixes,
        "treated_as_withdraw": history.treated_as_withdraw,
        "attributes_discarded": history.attributes_discarded,
        "duplicate_router_id": report.counters.duplicate_router_id,
        "refused": refused(&report.counters),
    })
}

/// How many announcements could not be used, by reason; reasons that did not occur are left out.
fn refused(counters: &Counters) -> Value {
    let each = Refusal::ALL.into_iter().map(|why| (format!("{why:?}"), counters.refused(why)));
    Value::Object(each.filter(|(_, count)| *count > 0).map(|(why, count)| (why, json!(count))).collect())
}

fn notification(notification: &Notification) -> Value {
    json!({
        "code": notification.code,
        "subcode": notification.subcode,
        "name": notification.name(),
        "text": notification.text(),
    })
}

pub(crate) fn path(view: &PathView) -> Value {
    let mut path = attributes(&view.learned);
    let more = json!({
        "prefix": view.prefix,
        "peer": view.peer,
        "best": view.standing == Standing::Best,
        "standing": format!("{:?}", view.standing),
        "stale": view.stale,
    });
    if let (Value::Object(path), Value::Object(more)) = (&mut path, more) {
        path.extend(more);
    }
    path
}

fn attributes(attributes: &Attributes) -> Value {
    json!({
        "next_hop": attributes.next_hop.global,
        "as_path": attributes.as_path.to_string(),
        "origin": match attributes.origin {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        },
        "med": attributes.med,
        "local_pref": attributes.local_pref,
        "communities": attributes.communities.iter().map(|one| format!("{}:{}", one.0 >> 16, one.0 & 0xffff)).collect::<Vec<_>>(),
        "large_communities": attributes.large_communities.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "originator_id": attributes.originator_id,
        "cluster_list": attributes.cluster_list,
    })
}

pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::Routes(speaker::Event::Selected { prefix, paths }) => {
            let paths = paths
                .iter()
                .map(|path| json!({ "peer": path.peer, "next_hop": path.attributes.next_hop.global }));
            json!({ "event": "selected", "prefix": prefix, "paths": paths.collect::<Vec<_>>() })
        }
        Event::Routes(speaker::Event::SelectionBegan(family)) => {
            json!({ "event": "selection-began", "family": family.to_string() })
        }
        Event::Routes(speaker::Event::DuplicateRouterId { router_id, peers }) => {
            json!({ "event": "duplicate-router-id", "router_id": router_id, "peers": peers })
        }
        Event::Objection(objection) => json!({ "event": "objection", "text": objection.to_string() }),
        Event::Up { peer, negotiated } => {
            json!({ "event": "up", "peer": peer, "asn": negotiated.peer_asn.get(), "terms": format!("{negotiated:?}") })
        }
        Event::Down { peer, graceful, end } => {
            json!({ "event": "down", "peer": peer, "graceful": graceful, "end": self::end(end) })
        }
        Event::Notice { peer, notice } => {
            json!({ "event": "notice", "peer": peer, "text": format!("{notice:?}") })
        }
        Event::NotTold { peer, error, prefixes } => {
            json!({ "event": "not-told", "peer": peer, "error": error.to_string(), "prefixes": prefixes })
        }
        Event::Trouble(text) => json!({ "event": "trouble", "text": text }),
        Event::Listening(address) => json!({ "event": "listening", "address": address }),
    }
}

fn end(end: &End) -> Value {
    match end {
        End::Lost => json!("connection lost"),
        End::Sent(why) => json!({ "sent": why.to_string() }),
        End::Received(why) => json!({ "received": why.to_string() }),
    }
}
