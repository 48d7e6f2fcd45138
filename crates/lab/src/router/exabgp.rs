//! ExaBGP: announces what it is told and reports what it hears. It has no table and chooses nothing.
//!
//! It runs a helper: what the helper reads from a named pipe are commands, what ExaBGP tells the helper goes into a file
//! of events, one JSON document a line. Everything this module answers is a replay of that file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;
use serde_json::Value;

use super::place::Place;
use super::{Config, Daemon, Distance, Error, Neighbour, Network, Path, Peering};

#[derive(Debug)]
pub(super) struct ExaBgp;

const CONFIGURATION: &str = "/run/exabgp/exabgp.conf";
const COMMANDS: &str = "/run/exabgp/commands";
const EVENTS: &str = "/run/exabgp/events";
const HELPER: &str = "/run/exabgp/helper";
/// How many changes of a session's state are shown.
const SHOWN: usize = 4;

/// Both ends of the named pipe are held open, and the standard output that ExaBGP reads stays so as well: an end of file
/// would count as a death of the helper. The reader of the pipe goes with the helper.
const SCRIPT: &str = "exec 3<>/run/exabgp/commands
cat <&3 & commands=$!
exec 4>&1
cat >>/run/exabgp/events
kill $commands
";

impl Daemon for ExaBgp {
    fn start(&self, place: &Place, config: &Config, _again: bool) -> Result<Vec<Child>, Error> {
        place.write(CONFIGURATION, render(place, config)?)?;
        place.write(HELPER, SCRIPT.to_owned())?;
        place.write(EVENTS, String::new())?;
        place.remove(COMMANDS)?;
        place.ask("mkfifo", [COMMANDS])?;
        let listen: Vec<String> = place.addresses.iter().map(|net| net.addr().to_string()).collect();
        let listen = listen.join(" ");
        let mut environment = vec![
            ("exabgp.daemon.user", "root"),
            ("exabgp.log.destination", "stdout"),
            ("exabgp.api.cli", "false"),
            ("exabgp.tcp.port", "179"),
        ];
        if config.neighbours.iter().any(|neighbour| neighbour.passive) {
            environment.push(("exabgp.tcp.bind", &listen));
        }
        Ok(vec![place.start("exabgp", [CONFIGURATION], &environment)?])
    }

    fn ready(&self, place: &Place) -> Result<bool, Error> {
        // The helper has the pipe open.
        Ok(place.feed(COMMANDS, String::new()).is_ok())
    }

    fn peering(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<Peering, Error> {
        let events = events(place)?;
        let about: Vec<&Value> = events
            .iter()
            .filter(|event| peer(event) == Some(neighbour))
            .filter(|event| event["type"] == "state" || event["type"] == "notification")
            .collect();
        let last = about.iter().rev().find(|event| event["type"] == "state");
        let established = last.is_some_and(|event| event["neighbor"]["state"] == "up");
        // It may have tried again many times since it was told why.
        let states = about.iter().filter(|event| event["type"] == "state").count();
        let mut skipped = states.saturating_sub(SHOWN);
        let shown = about.iter().filter(|event| {
            let skip = event["type"] == "state" && skipped > 0;
            skipped -= usize::from(skip);
            !skip
        });
        let said = shown.map(ToString::to_string);
        Ok(Peering { established, said: said.collect::<Vec<_>>().join("\n"), heard: 0 })
    }

    fn paths(&self, place: &Place, _: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        let mut known: BTreeMap<IpAddr, Path> = BTreeMap::new();
        for event in events(place)? {
            let Some(peer) = peer(&event) else { continue };
            if event["neighbor"]["state"] == "down" {
                known.remove(&peer);
            }
            if event["type"] == "update" && event["neighbor"]["direction"] == "receive" {
                learn(&mut known, peer, prefix, &event["neighbor"]["message"]["update"]);
            }
        }
        Ok(known.into_values().collect())
    }

    fn announce(&self, place: &Place, _: &Config, network: &Network) -> Result<(), Error> {
        place.feed(COMMANDS, format!("announce {}\n", route(place, network)?))
    }

    fn withdraw(&self, place: &Place, _: &Config, network: &Network) -> Result<(), Error> {
        place.feed(COMMANDS, format!("withdraw {}\n", route(place, network)?))
    }

    fn shut(&self, _: &Place, _: &Config, _: IpAddr, _: &str) -> Result<(), Error> {
        // Its command `teardown` finds no neighbour in 4.2.21.
        Err(Error::Cannot { software: super::Software::ExaBgp, what: "shut a session down" })
    }

    fn refresh(&self, _: &Place, _: &Config, _: IpAddr) -> Result<(), Error> {
        Err(Error::Cannot { software: super::Software::ExaBgp, what: "ask for everything again" })
    }
}

fn events(place: &Place) -> Result<Vec<Value>, Error> {
    // The answers `done` to commands are in between, and the last line may be half written.
    Ok(place.read(EVENTS)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn peer(event: &Value) -> Option<IpAddr> {
    event["neighbor"]["address"]["peer"].as_str()?.parse().ok()
}

fn family(prefix: &IpNet) -> &'static str {
    if prefix.addr().is_ipv4() { "ipv4 unicast" } else { "ipv6 unicast" }
}

/// Takes in what one UPDATE says of `prefix`.
fn learn(known: &mut BTreeMap<IpAddr, Path>, peer: IpAddr, prefix: &IpNet, update: &Value) {
    let name = prefix.to_string();
    let names = |list: &Value| list.as_array().into_iter().flatten().any(|one| one["nlri"] == name.as_str());
    if names(&update["withdraw"][family(prefix)]) {
        known.remove(&peer);
    }
    let announced = update["announce"][family(prefix)].as_object().into_iter().flatten();
    for (hop, _) in announced.filter(|(_, list)| names(list)) {
        if let Ok(hop) = hop.parse() {
            known.insert(peer, read(*prefix, peer, hop, &update["attribute"]));
        }
    }
}

fn read(prefix: IpNet, peer: IpAddr, hop: IpAddr, attributes: &Value) -> Path {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let list = |key: &str| attributes[key].as_array().cloned().unwrap_or_default();
    // [[65001, 1], …]; well-known communities are words.
    let joined = |one: &Value| match one.as_array() {
        Some(parts) => parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(":"),
        None => one.as_str().unwrap_or_default().to_owned(),
    };
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    Path {
        from: Some(peer),
        best: true,
        as_path: list("as-path").iter().filter_map(number).collect(),
        med: number(&attributes["med"]),
        local_pref: number(&attributes["local-preference"]),
        communities: list("community").iter().map(joined).collect(),
        large_communities: list("large-community").iter().map(joined).collect(),
        originator: address(&attributes["originator-id"]),
        clusters: list("cluster-list").iter().filter_map(address).collect(),
        ..Path::bare(prefix, hop)
    }
}

/// A route in the words of both its file and its commands.
fn route(place: &Place, network: &Network) -> Result<String, Error> {
    let hop = network.next_hop.map_or_else(|| place.address(network.prefix.addr()), Ok)?;
    let mut words = format!("route {} next-hop {hop}", network.prefix);
    let mut list = |name: &str, these: &std::collections::BTreeSet<String>| {
        if !these.is_empty() {
            words += &format!(" {name} [ {} ]", these.iter().cloned().collect::<Vec<_>>().join(" "));
        }
    };
    list("community", &network.communities);
    list("large-community", &network.large_communities);
    if let Some(med) = network.med {
        words += &format!(" med {med}");
    }
    Ok(words)
}

fn render(place: &Place, config: &Config) -> Result<String, Error> {
    let mut text = format!("process lab {{ run /bin/sh {HELPER}; encoder json; }}\n");
    for neighbour in &config.neighbours {
        session(&mut text, place, config, neighbour)?;
    }
    Ok(text)
}

fn session(text: &mut String, place: &Place, config: &Config, neighbour: &Neighbour) -> Result<(), Error> {
    let mut say = |what: &str| *text += &format!("{what}\n");
    say(&format!("neighbor {} {{", neighbour.address));
    say(&format!("  local-address {}; router-id {};", place.address(neighbour.address)?, config.router_id));
    say(&format!("  local-as {}; peer-as {}; hold-time {};", config.asn, neighbour.asn, config.hold_seconds));
    if let Some(password) = &neighbour.password {
        say(&format!("  md5-password '{password}';"));
    }
    match neighbour.distance {
        Distance::Direct => {}
        Distance::Multihop(ttl) => say(&format!("  outgoing-ttl {ttl};")),
        Distance::Secured => say("  outgoing-ttl 255; incoming-ttl 255;"),
    }
    if neighbour.passive {
        say("  passive true;");
    }
    let (v4, v6) = (neighbour.families.v4(), neighbour.families.v6());
    let families = [(v4, "ipv4 unicast;"), (v6, "ipv6 unicast;")];
    let families = families.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect::<Vec<_>>().join(" ");
    say(&format!("  family {{ {families} }}"));
    let restart =
        config.graceful_restart.map_or(String::new(), |seconds| format!("graceful-restart {seconds};"));
    let nexthop = if neighbour.extended_next_hop { "nexthop enable;" } else { "" };
    say(&format!("  capability {{ asn4 enable; route-refresh enable; {restart} {nexthop} }}"));
    if neighbour.extended_next_hop {
        say("  nexthop { ipv4 unicast ipv6; }");
    }
    say(
        "  api { processes [ lab ]; neighbor-changes; receive { parsed; update; notification; open; } send { parsed; notification; } }",
    );
    say("  static {");
    for network in &config.networks {
        let carried = if network.prefix.addr().is_ipv4() { v4 } else { v6 };
        if carried {
            say(&format!("    {};", route(place, network)?));
        }
    }
    say("  }\n}");
    Ok(())
}
