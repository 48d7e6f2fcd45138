//! FRR: zebra and bgpd, asked through vtysh.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;
use serde::Deserialize;

use super::place::Place;
use super::{Config, Daemon, Distance, Error, Neighbour, Network, Path, Peering};

#[derive(Debug)]
pub(super) struct Frr;

const FOLDER: &str = "/run/frr";
const CONFIGURATION: &str = "/run/frr/bgpd.conf";
/// As root: a process that changes its user outlives the thread it is tied to.
const AS: [&str; 6] = ["-u", "root", "-g", "root", "--log", "stdout"];

impl Daemon for Frr {
    fn start(&self, place: &Place, config: &Config, again: bool) -> Result<Vec<Child>, Error> {
        let mut daemons = Vec::new();
        place.write(CONFIGURATION, render(config))?;
        if !again {
            enlist_root(place)?;
            place.remove("/run/frr/zserv.api")?;
            // -K: routes of a bgpd that has gone stay that long, for one that comes back to take over.
            let keep = config.graceful_restart.map_or(String::new(), |seconds| format!("-K{seconds}"));
            let zebra = ["-f", "/dev/null", "-A", "127.0.0.1"].into_iter().chain(AS);
            let zebra = zebra.chain((!keep.is_empty()).then_some(keep.as_str()));
            daemons.push(place.start("/usr/lib/frr/zebra", zebra, &[])?);
            await_file(place, "/run/frr/zserv.api")?;
        }
        place.remove(&format!("{FOLDER}/bgpd.vty"))?;
        let bgpd = ["-f", CONFIGURATION, "-A", "127.0.0.1"].into_iter().chain(AS);
        let bgpd = bgpd.chain(config.bulk.then_some("--no_kernel"));
        daemons.push(place.start("/usr/lib/frr/bgpd", bgpd, &[])?);
        Ok(daemons)
    }

    fn ready(&self, place: &Place) -> Result<bool, Error> {
        place.has(&format!("{FOLDER}/bgpd.vty"))
    }

    fn peering(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<Peering, Error> {
        let answer =
            place.ask_json("vtysh", ["-d", "bgpd", "-c", &format!("show bgp neighbors {neighbour} json")])?;
        let session = answer.get(neighbour.to_string()).cloned().unwrap_or_default();
        let established = session.get("bgpState").is_some_and(|state| state == "Established");
        let heard = session["messageStats"]["updatesRecv"].as_u64().unwrap_or(0);
        Ok(Peering { established, said: session.to_string(), heard })
    }

    fn paths(&self, place: &Place, _: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        let line = format!("show bgp {} unicast {prefix} json", family(prefix));
        let answer = place.ask_json("vtysh", ["-d", "bgpd", "-c", &line])?;
        let text = answer.to_string();
        let table: Table = serde_json::from_value(answer).map_err(|_| Error::answer("vtysh", &text))?;
        Ok(table.paths.into_iter().filter_map(|shown| shown.path(*prefix)).collect())
    }

    fn announce(&self, place: &Place, config: &Config, network: &Network) -> Result<(), Error> {
        let mut lines = String::new();
        attributes(&mut lines, network);
        lines += &format!("router bgp {}\naddress-family {} unicast\n", config.asn, family(&network.prefix));
        lines += &format!("network {} route-map {}\n", network.prefix, route_map(network));
        configure(place, &lines)
    }

    fn withdraw(&self, place: &Place, config: &Config, network: &Network) -> Result<(), Error> {
        let (asn, prefix) = (config.asn, network.prefix);
        let lines =
            format!("router bgp {asn}\naddress-family {} unicast\nno network {prefix}\n", family(&prefix));
        configure(place, &lines)
    }

    fn shut(&self, place: &Place, config: &Config, neighbour: IpAddr, text: &str) -> Result<(), Error> {
        configure(
            place,
            &format!("router bgp {}\nneighbor {neighbour} shutdown message {text}\n", config.asn),
        )
    }

    fn refresh(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<(), Error> {
        for family in ["ipv4", "ipv6"] {
            let line = format!("clear bgp {family} unicast {neighbour} soft in");
            place.ask("vtysh", ["-d", "bgpd", "-c", &line])?;
        }
        Ok(())
    }
}

/// Both daemons insist that their user is in the group `frrvty`. In this mount namespace, root is.
fn enlist_root(place: &Place) -> Result<(), Error> {
    let enlisted = |line: &str| match line.strip_prefix("frrvty:") {
        Some(rest) if rest.ends_with(':') => format!("{line}root\n"),
        Some(_) => format!("{line},root\n"),
        None => format!("{line}\n"),
    };
    let groups: String = place.read("/etc/group")?.lines().map(enlisted).collect();
    place.write("/run/frr/group", groups)?;
    place.ask("mount", ["--bind", "/run/frr/group", "/etc/group"]).map(drop)
}

fn configure(place: &Place, lines: &str) -> Result<(), Error> {
    let commands = std::iter::once("configure terminal").chain(lines.lines());
    let arguments = commands.flat_map(|line| ["-c", line.trim()]);
    place.ask("vtysh", ["-d", "bgpd"].into_iter().chain(arguments)).map(drop)
}

fn await_file(place: &Place, path: &str) -> Result<(), Error> {
    let end = std::time::Instant::now() + super::START;
    while !place.has(path)? {
        if std::time::Instant::now() > end {
            let what = format!("no {path}");
            let log = super::place::tail(&place.log);
            return Err(Error::NotUp { router: place.name.clone(), what, log });
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

fn family(prefix: &IpNet) -> &'static str {
    if prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

fn route_map(network: &Network) -> String {
    format!("of-{}", network.prefix).replace(['/', ':', '.'], "-")
}

/// The route map that gives a network its attributes.
fn attributes(lines: &mut String, network: &Network) {
    let mut set = |what: String| *lines += &format!("{what}\n");
    set(format!("route-map {} permit 10", route_map(network)));
    let words = |these: &std::collections::BTreeSet<String>| {
        these.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    if !network.communities.is_empty() {
        set(format!("set community {}", words(&network.communities)));
    }
    if !network.large_communities.is_empty() {
        set(format!("set large-community {}", words(&network.large_communities)));
    }
    if let Some(med) = network.med {
        set(format!("set metric {med}"));
    }
    match network.next_hop {
        Some(IpAddr::V4(hop)) => set(format!("set ip next-hop {hop}")),
        Some(IpAddr::V6(hop)) => set(format!("set ipv6 next-hop global {hop}")),
        None => {}
    }
    set("exit".to_owned());
}

fn render(config: &Config) -> String {
    let mut text = "frr defaults traditional\nbgp route-map delay-timer 0\n".to_owned();
    config.networks.iter().for_each(|network| attributes(&mut text, network));
    let Config { asn, router_id, hold_seconds, .. } = config;
    // `let _`: writing into a String cannot fail.
    let _ = writeln!(text, "router bgp {asn}\n bgp router-id {router_id}\n no bgp ebgp-requires-policy");
    // What it tells when asked is how the last attempt ended; the log has every NOTIFICATION.
    text += " bgp log-neighbor-changes\n";
    let _ =
        writeln!(text, " no bgp default ipv4-unicast\n no bgp network import-check\n bgp fast-convergence");
    let _ = writeln!(text, " timers bgp {} {hold_seconds}", (hold_seconds / 3).max(1));
    if let Some(cluster) = config.cluster_id {
        let _ = writeln!(text, " bgp cluster-id {cluster}");
    }
    match config.graceful_restart {
        Some(seconds) => {
            let _ = writeln!(text, " bgp graceful-restart\n bgp graceful-restart preserve-fw-state");
            let _ = writeln!(text, " bgp graceful-restart restart-time {seconds}");
            let _ = writeln!(text, " bgp graceful-restart stalepath-time {seconds}");
        }
        None => text += " bgp graceful-restart-disable\n",
    }
    config.neighbours.iter().for_each(|neighbour| session(&mut text, neighbour));
    for (v4, name) in [(true, "ipv4"), (false, "ipv6")] {
        let _ = writeln!(text, " address-family {name} unicast");
        let (paths, of) = (config.maximum_paths, |prefix: &IpNet| prefix.addr().is_ipv4() == v4);
        let _ = writeln!(text, "  maximum-paths {paths}\n  maximum-paths ibgp {paths}");
        for network in config.networks.iter().filter(|network| of(&network.prefix)) {
            let _ = writeln!(text, "  network {} route-map {}", network.prefix, route_map(network));
        }
        let carries = |one: &&Neighbour| if v4 { one.families.v4() } else { one.families.v6() };
        config.neighbours.iter().filter(carries).for_each(|neighbour| exchange(&mut text, neighbour));
        text += " exit-address-family\n";
    }
    text
}

fn session(text: &mut String, neighbour: &Neighbour) {
    let mut say = |what: String| *text += &format!(" neighbor {} {what}\n", neighbour.address);
    say(format!("remote-as {}", neighbour.asn));
    say("timers connect 1".to_owned());
    say("advertisement-interval 0".to_owned());
    if let Some(password) = &neighbour.password {
        say(format!("password {password}"));
    }
    match neighbour.distance {
        Distance::Direct => {}
        Distance::Multihop(ttl) => say(format!("ebgp-multihop {ttl}")),
        Distance::Secured => say("ttl-security hops 1".to_owned()),
    }
    if neighbour.passive {
        say("passive".to_owned());
    }
    if neighbour.extended_next_hop {
        say("capability extended-nexthop".to_owned());
    }
}

fn exchange(text: &mut String, neighbour: &Neighbour) {
    let mut say = |what: &str| *text += &format!("  neighbor {} {what}\n", neighbour.address);
    say("activate");
    if neighbour.reflector_client {
        say("route-reflector-client");
    }
    if neighbour.next_hop_self {
        say("next-hop-self");
    }
    if let Some(limit) = neighbour.max_prefixes {
        say(&format!("maximum-prefix {limit}"));
    }
}

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    paths: Vec<Shown>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    aspath: AsPath,
    #[serde(default)]
    nexthops: Vec<Hop>,
    peer: Peer,
    metric: Option<u32>,
    loc_prf: Option<u32>,
    bestpath: Option<Best>,
    community: Option<List>,
    large_community: Option<List>,
    originator_id: Option<std::net::Ipv4Addr>,
    cluster_list: Option<Clusters>,
}

#[derive(Deserialize)]
struct AsPath {
    #[serde(default)]
    segments: Vec<Segment>,
}

#[derive(Deserialize)]
struct Segment {
    list: Vec<u32>,
}

#[derive(Deserialize)]
struct Hop {
    ip: IpAddr,
    scope: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    peer_id: String,
}

#[derive(Deserialize)]
struct Best {
    #[serde(default)]
    overall: bool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    list: Vec<String>,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    list: Vec<std::net::Ipv4Addr>,
}

impl Shown {
    fn path(self, prefix: IpNet) -> Option<Path> {
        let global = |hop: &&Hop| hop.scope.as_deref() != Some("link-local");
        let hop = self.nexthops.iter().find(global).or(self.nexthops.first())?;
        let listed =
            |list: Option<List>| list.map(|list| list.list.into_iter().collect()).unwrap_or_default();
        // bgpd's own paths have the unspecified address as their peer.
        let from: Option<IpAddr> = self.peer.peer_id.parse().ok();
        Some(Path {
            from: from.filter(|peer| !peer.is_unspecified()),
            best: self.bestpath.is_some_and(|best| best.overall),
            as_path: self.aspath.segments.into_iter().flat_map(|segment| segment.list).collect(),
            med: self.metric,
            local_pref: self.loc_prf,
            communities: listed(self.community),
            large_communities: listed(self.large_community),
            originator: self.originator_id,
            clusters: self.cluster_list.map(|clusters| clusters.list).unwrap_or_default(),
            ..Path::bare(prefix, hop.ip)
        })
    }
}
