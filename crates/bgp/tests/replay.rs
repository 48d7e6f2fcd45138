//! What foreign speakers said, octet by octet, and what a session of ours makes of it.
//!
//! A case in `tests/replay` is a text: lines `# …` say where it comes from, lines `in HEX` are octets as they came, the other
//! lines are what came out. Recordings are of whole sessions with speakers of Debian 12, from their OPEN to the end of their
//! table. After a change that is meant: `UPDATE_REPLAY=1 cargo test -p bgp --test replay`, and read the difference.

#![allow(clippy::unwrap_used, clippy::panic)] // a panic is how a test fails

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bgp::config::RemoteAsn;
use bgp::session::{Ends, Event, Output, Session, Terms};
use bgp::wire::{Framer, RestartCapability};
use bgp::{Asn, Attributes, Families, Update};

fn terms() -> Terms {
    Terms {
        asn: Asn::new(65_001).unwrap(),
        router_id: [10, 0, 0, 1].into(),
        hold_time: 90,
        remote_asn: RemoteAsn::Any,
        families: Families::all(),
        extended_next_hop: true,
        graceful_restart: Some(RestartCapability {
            notification: true,
            restart_time: 120,
            families: Families::all(),
            ..RestartCapability::default()
        }),
    }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit)).collect()
}

fn attributes(attributes: &Attributes) -> String {
    let mut text = format!("path [{}] next hop {}", attributes.as_path, attributes.next_hop.global);
    if let Some(address) = attributes.next_hop.link_local {
        write!(text, " {address}").unwrap();
    }
    write!(text, " origin {:?}", attributes.origin).unwrap();
    for (name, value) in [("med", attributes.med), ("local-pref", attributes.local_pref)] {
        if let Some(value) = value {
            write!(text, " {name} {value}").unwrap();
        }
    }
    for community in &attributes.communities {
        write!(text, " community {community}").unwrap();
    }
    for community in &attributes.large_communities {
        write!(text, " large {community}").unwrap();
    }
    for unknown in &attributes.unknown {
        write!(text, " attribute {} {:02x?}", unknown.code, unknown.value).unwrap();
    }
    text
}

fn describe(output: &Output) -> Vec<String> {
    match output {
        Output::Send(octets) => {
            let mut framer = Framer::default();
            framer.push(octets);
            vec![format!("send {:?}", framer.next_frame().unwrap().unwrap().kind)]
        }
        Output::Opened(terms) => vec![
            format!(
                "opened AS {} router id {} hold {:?}",
                terms.peer_asn, terms.peer_router_id, terms.hold_time
            ),
            format!("       families {:?} over IPv6 {:?}", terms.families, terms.extended_next_hop),
            format!(
                "       four octets {} refresh {} enhanced {}",
                terms.four_octet_asn, terms.route_refresh, terms.enhanced_route_refresh
            ),
            format!("       restart {:?}", terms.graceful_restart),
        ],
        Output::Up(_) => vec!["up".to_owned()],
        Output::Update(received) => {
            let faults = received.faults.iter().map(|fault| format!("{fault:?}"));
            let updates = received.updates.iter().map(|update| match update {
                Update::Reach { attributes: of, prefixes, .. } => {
                    format!("reach {} {}", list(prefixes), attributes(of))
                }
                Update::Unreach { prefixes, .. } => format!("unreach {}", list(prefixes)),
                Update::EndOfRib(family) => format!("end of {family}"),
            });
            faults.chain(updates).collect()
        }
        other => vec![format!("{other:?}")],
    }
}

fn list(prefixes: &[ipnet::IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The case again, with what comes out now.
fn replay(case: &str) -> String {
    let now = Instant::now();
    let ends = Ends { local: [10, 9, 0, 1].into(), remote: [10, 9, 0, 2].into() };
    let mut session = Session::new(terms(), Duration::from_secs(15), 1);
    session.event(Event::StartPassive, now, &mut Vec::new());
    session.event(Event::Connected(ends), now, &mut Vec::new());
    let mut text = String::new();
    for line in case.lines() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(text, "{line}").unwrap();
        } else if let Some(hex) = line.strip_prefix("in ") {
            writeln!(text, "{line}").unwrap();
            session.received(&octets(hex));
            let mut out = Vec::new();
            while session.next_message(now, &mut out) {}
            for line in out.iter().flat_map(describe) {
                writeln!(text, "{line}").unwrap();
            }
        }
    }
    text
}

#[test]
fn recorded_sessions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replay");
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case = std::fs::read_to_string(&path).unwrap();
        let now = replay(&case);
        if std::env::var_os("UPDATE_REPLAY").is_some() {
            std::fs::write(&path, now).unwrap();
        } else {
            assert_eq!(now, case, "{}", path.display());
        }
        cases += 1;
    }
    assert!(cases >= 3, "only {cases} cases");
}
