//! BIRD 2, asked through birdc, which speaks to people: its tables are read line by line.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;

use super::place::Place;
use super::{Config, Daemon, Distance, Error, Neighbour, Network, Path, Peering};

#[derive(Debug)]
pub(super) struct Bird;

const CONFIGURATION: &str = "/run/bird/bird.conf";
const SOCKET: &str = "/run/bird/bird.ctl";

impl Daemon for Bird {
    fn start(&self, place: &Place, config: &Config, again: bool) -> Result<Vec<Child>, Error> {
        place.write(CONFIGURATION, render(place, config)?)?;
        place.remove(SOCKET)?;
        let arguments = ["-f", "-c", CONFIGURATION, "-s", SOCKET, "-P", "/run/bird/bird.pid"];
        // -R: the routes of the life before are still in the kernel.
        let restarting = (again && config.graceful_restart.is_some()).then_some("-R");
        Ok(vec![place.start("bird", arguments.into_iter().chain(restarting), &[])?])
    }

    fn ready(&self, place: &Place) -> Result<bool, Error> {
        Ok(place.has(SOCKET)? && ask(place, "show status").is_ok())
    }

    fn peering(&self, place: &Place, config: &Config, neighbour: IpAddr) -> Result<Peering, Error> {
        let said = ask(place, &format!("show protocols all {}", protocol(config, neighbour)))?;
        let state = said.lines().find_map(|line| line.trim().strip_prefix("BGP state:"));
        let updates = said.lines().filter_map(|line| line.trim().strip_prefix("Import updates:"));
        let received = updates.filter_map(|counts| counts.split_whitespace().next()?.parse::<u64>().ok());
        let heard = received.sum();
        Ok(Peering { established: state.is_some_and(|state| state.trim() == "Established"), said, heard })
    }

    fn paths(&self, place: &Place, config: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        // A network that is not there is an answer, too, and a failure to birdc.
        let text = ask(place, &format!("show route {prefix} all")).or_else(|error| match &error {
            Error::Process(crate::process::Error::Failed { stderr, .. }) if stderr.contains("not found") => {
                Ok(String::new())
            }
            _ => Err(error),
        })?;
        Ok(read(&text, config, *prefix))
    }

    fn announce(&self, place: &Place, config: &Config, _: &Network) -> Result<(), Error> {
        configure(place, config)
    }

    fn withdraw(&self, place: &Place, config: &Config, _: &Network) -> Result<(), Error> {
        configure(place, config)
    }

    fn shut(&self, place: &Place, config: &Config, neighbour: IpAddr, text: &str) -> Result<(), Error> {
        ask(place, &format!("disable {} \"{text}\"", protocol(config, neighbour))).map(drop)
    }

    fn refresh(&self, place: &Place, config: &Config, neighbour: IpAddr) -> Result<(), Error> {
        ask(place, &format!("reload in {}", protocol(config, neighbour))).map(drop)
    }
}

fn ask(place: &Place, line: &str) -> Result<String, Error> {
    place.ask("birdc", ["-s", SOCKET, line])
}

/// Static routes cannot be added by command: the file is written anew and read again.
fn configure(place: &Place, config: &Config) -> Result<(), Error> {
    place.write(CONFIGURATION, render(place, config)?)?;
    let answer = ask(place, "configure")?;
    let taken = answer.contains("Reconfigured") || answer.contains("Reconfiguration in progress");
    if taken { Ok(()) } else { Err(Error::answer("birdc configure", &answer)) }
}

fn protocol(config: &Config, neighbour: IpAddr) -> String {
    let at = config.neighbours.iter().position(|one| one.address == neighbour);
    at.map_or("unknown".to_owned(), |at| format!("n{at}"))
}

fn render(place: &Place, config: &Config) -> Result<String, Error> {
    let mut text =
        format!("log stderr all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n", config.router_id);
    if let Some(seconds) = config.graceful_restart {
        let _ = writeln!(text, "graceful restart wait {seconds};");
    }
    let families = [("ipv4", true), ("ipv6", false)];
    let has = |v4: bool| place.addresses.iter().any(|net| net.addr().is_ipv4() == v4);
    for (name, v4) in families.into_iter().filter(|(_, v4)| has(*v4)) {
        // Connected networks are where next hops of internal sessions are looked up; a pod bridge's would shadow the range
        // that is announced.
        let _ = writeln!(text, "protocol direct direct_{name} {{ {name}; interface \"eth0\"; }}");
        // Else the routes of the life before would be removed before the neighbours have announced them again.
        let restart = if config.graceful_restart.is_some() { "graceful restart; " } else { "" };
        let merge = match config.maximum_paths {
            0 | 1 => String::new(),
            many => format!("merge paths on limit {many}; "),
        };
        if !config.bulk {
            let _ = writeln!(
                text,
                "protocol kernel kernel_{name} {{ {merge}{restart}persist; scan time 1; \
                 {name} {{ import none; export where source = RTS_BGP; }}; }}"
            );
        }
        let _ = writeln!(text, "protocol static static_{name} {{ {name};");
        for network in config.networks.iter().filter(|network| network.prefix.addr().is_ipv4() == v4) {
            let _ = writeln!(text, "  route {} blackhole {{ {} }};", network.prefix, attributes(network));
        }
        text += "}\n";
    }
    for neighbour in &config.neighbours {
        session(&mut text, place, config, neighbour)?;
    }
    Ok(text)
}

fn attributes(network: &Network) -> String {
    let pair = |community: &String| community.replace(':', ",");
    let mut text = String::new();
    for community in &network.communities {
        let _ = write!(text, "bgp_community.add(({})); ", pair(community));
    }
    for community in &network.large_communities {
        let _ = write!(text, "bgp_large_community.add(({})); ", pair(community));
    }
    if let Some(hop) = network.next_hop {
        let _ = write!(text, "bgp_next_hop = {hop}; ");
    }
    text
}

fn session(text: &mut String, place: &Place, config: &Config, neighbour: &Neighbour) -> Result<(), Error> {
    let local = place.address(neighbour.address)?;
    let hold = config.hold_seconds;
    let _ = writeln!(
        text,
        "protocol bgp {} {{ local {local} as {}; neighbor {} as {}; hold time {hold}; keepalive time {};\n  \
         connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 2;",
        protocol(config, neighbour.address),
        config.asn,
        neighbour.address,
        neighbour.asn,
        (hold / 3).max(1),
    );
    let mut say = |what: &str| *text += &format!("  {what};\n");
    match config.graceful_restart {
        Some(seconds) => say(&format!("graceful restart on; graceful restart time {seconds}")),
        None => say("graceful restart off"),
    }
    if let Some(password) = &neighbour.password {
        say(&format!("password \"{password}\""));
    }
    match neighbour.distance {
        Distance::Direct => {}
        Distance::Multihop(hops) => say(&format!("multihop {hops}")),
        Distance::Secured => say("ttl security on"),
    }
    if neighbour.passive {
        say("passive on");
    }
    if neighbour.reflector_client {
        say("rr client");
    }
    if let Some(cluster) = config.cluster_id.filter(|_| config.asn == neighbour.asn) {
        say(&format!("rr cluster id {cluster}"));
    }
    let channels = [("ipv4", neighbour.families.v4(), true), ("ipv6", neighbour.families.v6(), false)];
    for (name, _, v4) in channels.into_iter().filter(|(_, on, _)| *on) {
        let extended = v4 && neighbour.extended_next_hop;
        let own = place.addresses.iter().map(IpNet::addr).find(|own| own.is_ipv4() == (v4 && !extended));
        let mut channel = format!("import all; export filter {{ {} }};", export(config, neighbour, v4));
        if let Some(own) = own {
            let _ = write!(channel, " next hop address {own};");
        }
        if neighbour.next_hop_self {
            channel += " next hop self;";
        }
        if extended {
            channel += " extended next hop on;";
        }
        if let Some(limit) = neighbour.max_prefixes {
            let _ = write!(channel, " import limit {limit} action disable;");
        }
        say(&format!("{name} {{ {channel} }}"));
    }
    *text += "}\n";
    Ok(())
}

/// BIRD clears a MED that a route was born with on its way to another autonomous system, but not what the filter sets.
fn export(config: &Config, neighbour: &Neighbour, v4: bool) -> String {
    let sources = if neighbour.own_only { "RTS_STATIC" } else { "RTS_STATIC, RTS_BGP" };
    let mut text = format!("if source !~ [ {sources} ] then reject; ");
    for network in config.networks.iter().filter(|network| network.prefix.addr().is_ipv4() == v4) {
        if let Some(med) = network.med {
            let _ = write!(text, "if net = {} then bgp_med = {med}; ", network.prefix);
        }
    }
    text + "accept;"
}

/// Reads `show route … all`: a line for each path with its protocol in brackets, indented lines of attributes below it.
fn read(text: &str, config: &Config, prefix: IpNet) -> Vec<Path> {
    let mut paths: Vec<Path> = Vec::new();
    for line in text.lines() {
        match (line.starts_with('\t'), line.split_once('[')) {
            (false, Some((_, rest))) => {
                let name = rest.split([' ', ']']).next().unwrap_or_default();
                let neighbour = name.strip_prefix('n').and_then(|at| at.parse::<usize>().ok());
                let from = neighbour.and_then(|at| config.neighbours.get(at)).map(|one| one.address);
                let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
                let best = rest.contains("] *");
                paths.push(Path { from, best, ..Path::bare(prefix, unspecified) });
            }
            (true, _) => {
                if let (Some(path), Some((key, value))) = (paths.last_mut(), line.trim().split_once(": ")) {
                    attribute(path, key, value);
                }
            }
            _ => {}
        }
    }
    paths
}

fn attribute(path: &mut Path, key: &str, value: &str) {
    // `(65001,1) (65001,2)`, large ones with spaces behind the commas.
    let communities = || {
        value
            .split(')')
            .filter_map(|one| one.trim().strip_prefix('('))
            .map(|one| one.replace(", ", ":").replace(',', ":"))
    };
    match key {
        "BGP.as_path" => path.as_path = value.split_whitespace().filter_map(|asn| asn.parse().ok()).collect(),
        "BGP.next_hop" => {
            // The link-local address follows the global one.
            if let Some(hop) = value.split_whitespace().next().and_then(|hop| hop.parse().ok()) {
                path.next_hop = hop;
            }
        }
        "BGP.med" => path.med = value.parse().ok(),
        "BGP.local_pref" => path.local_pref = value.parse().ok(),
        "BGP.community" => path.communities = communities().collect(),
        "BGP.large_community" => path.large_communities = communities().collect(),
        "BGP.originator_id" => path.originator = value.parse().ok(),
        "BGP.cluster_list" => {
            path.clusters = value.split_whitespace().filter_map(|cluster| cluster.parse().ok()).collect();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As BIRD 2.0.12 prints it.
    const SHOWN: &str = "BIRD 2.0.12 ready.
Table master4:
10.1.0.0/24          unicast [n0 02:04:35.016] * (100) [AS65001i]
	via 172.31.0.101 on eth0
	Type: BGP univ
	BGP.origin: IGP
	BGP.as_path: 65001 65009
	BGP.next_hop: 172.31.0.101
	BGP.med: 7
	BGP.local_pref: 100
	BGP.community: (65001,1) (65001,2)
	BGP.large_community: (65001, 1, 2)
	BGP.originator_id: 10.0.0.9
	BGP.cluster_list: 10.0.0.1 10.0.0.2
                     blackhole [static_ipv4 02:04:29.923] (200)
	Type: static univ
";

    #[test]
    fn every_attribute_is_read() {
        let neighbour = Neighbour::new("172.31.0.101".parse().expect("address"), 65001);
        let config = Config::new(65002, "10.0.0.2".parse().expect("id")).neighbour(neighbour);
        let paths = read(SHOWN, &config, "10.1.0.0/24".parse().expect("prefix"));
        let [learned, own] = paths.as_slice() else { panic!("two paths: {paths:?}") };
        assert_eq!(learned.from, "172.31.0.101".parse().ok());
        assert!(learned.best && !own.best && own.from.is_none());
        assert_eq!((learned.as_path.as_slice(), learned.med), ([65001, 65009].as_slice(), Some(7)));
        let words =
            |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&learned.communities), "65001:1 65001:2");
        assert_eq!(words(&learned.large_communities), "65001:1:2");
        assert_eq!(learned.originator, "10.0.0.9".parse().ok());
        assert_eq!(learned.clusters.len(), 2);
    }
}
