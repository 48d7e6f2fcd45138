//! GoBGP: gobgpd, configured in JSON and asked through `gobgp -j`.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Child;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::place::Place;
use super::{Config, Daemon, Distance, Error, Neighbour, Network, Path, Peering};

#[derive(Debug)]
pub(super) struct GoBgp;

const CONFIGURATION: &str = "/run/gobgp/gobgpd.json";
/// `BGP_FSM_ESTABLISHED` in its API.
const ESTABLISHED: u64 = 6;

impl Daemon for GoBgp {
    fn start(&self, place: &Place, config: &Config, again: bool) -> Result<Vec<Child>, Error> {
        place.write(CONFIGURATION, format!("{:#}\n", render(place, config)?))?;
        let arguments = ["-t", "json", "-f", CONFIGURATION, "--pprof-disable", "--log-plain"];
        let api = ["--api-hosts=127.0.0.1:50051"];
        let restarting = (again && config.graceful_restart.is_some()).then_some("-r");
        let all = arguments.into_iter().chain(api).chain(restarting);
        Ok(vec![place.start("gobgpd", all, &[])?])
    }

    fn ready(&self, place: &Place) -> Result<bool, Error> {
        Ok(place.ask("gobgp", ["global"]).is_ok())
    }

    fn settle(&self, place: &Place, config: &Config) -> Result<(), Error> {
        config.networks.iter().try_for_each(|network| add(place, network))
    }

    fn peering(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<Peering, Error> {
        let all = place.ask_json("gobgp", ["-j", "neighbor"])?;
        let is = |session: &&Value| session["conf"]["neighbor_address"] == neighbour.to_string();
        let session = all.as_array().into_iter().flatten().find(is).cloned().unwrap_or_default();
        let established = session["state"]["session_state"].as_u64() == Some(ESTABLISHED);
        let heard = session["state"]["messages"]["received"]["update"].as_u64().unwrap_or(0);
        Ok(Peering { established, said: session.to_string(), heard })
    }

    fn paths(&self, place: &Place, _: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        let table = place.ask_json("gobgp", ["-j", "global", "rib", "-a", family(prefix)])?;
        let shown = table.get(prefix.to_string()).and_then(Value::as_array).into_iter().flatten();
        Ok(shown.filter_map(|path| read(*prefix, path)).collect())
    }

    fn announce(&self, place: &Place, _: &Config, network: &Network) -> Result<(), Error> {
        add(place, network)
    }

    fn withdraw(&self, place: &Place, _: &Config, network: &Network) -> Result<(), Error> {
        let prefix = network.prefix;
        place.ask("gobgp", ["global", "rib", "del", "-a", family(&prefix), &prefix.to_string()]).map(drop)
    }

    fn shut(&self, place: &Place, _: &Config, neighbour: IpAddr, text: &str) -> Result<(), Error> {
        place.ask("gobgp", ["neighbor", &neighbour.to_string(), "disable", "--reason", text]).map(drop)
    }

    fn refresh(&self, _: &Place, _: &Config, _: IpAddr) -> Result<(), Error> {
        Err(Error::Cannot { software: super::Software::GoBgp, what: "ask for everything again" })
    }
}

fn family(prefix: &IpNet) -> &'static str {
    if prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" }
}

fn add(place: &Place, network: &Network) -> Result<(), Error> {
    let hop = network.next_hop.map_or_else(|| place.address(network.prefix.addr()), Ok)?;
    let words =
        format!("global rib add -a {} {} origin igp nexthop {hop}", family(&network.prefix), network.prefix);
    let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let mut list = |name: &str, these: &std::collections::BTreeSet<String>| {
        if !these.is_empty() {
            words.extend([name.to_owned(), these.iter().cloned().collect::<Vec<_>>().join(",")]);
        }
    };
    list("community", &network.communities);
    list("large-community", &network.large_communities);
    words.extend(network.med.iter().flat_map(|med| ["med".to_owned(), med.to_string()]));
    place.ask("gobgp", words).map(drop)
}

fn render(place: &Place, config: &Config) -> Result<Value, Error> {
    let sessions = config.neighbours.iter().map(|one| session(place, config, one));
    let addresses: Vec<String> = place.addresses.iter().map(|net| net.addr().to_string()).collect();
    Ok(json!({
        "global": {
            "config": {
                "as": config.asn, "router-id": config.router_id, "port": 179, "local-address-list": addresses,
            },
            "use-multiple-paths": { "config": { "enabled": config.maximum_paths > 1 } },
        },
        "neighbors": sessions.collect::<Result<Vec<_>, _>>()?,
    }))
}

fn session(place: &Place, config: &Config, neighbour: &Neighbour) -> Result<Value, Error> {
    let restarts = config.graceful_restart.is_some();
    let exchange = |on: bool, name: &str| {
        let limit = neighbour.max_prefixes.map(|limit| json!({ "config": { "max-prefixes": limit } }));
        let mut family = json!({
            "config": { "afi-safi-name": name },
            "mp-graceful-restart": { "config": { "enabled": restarts } },
        });
        if let Some(limit) = limit {
            family["prefix-limit"] = limit;
        }
        on.then_some(family)
    };
    let families = [
        exchange(neighbour.families.v4(), "ipv4-unicast"),
        exchange(neighbour.families.v6(), "ipv6-unicast"),
    ];
    let mut session = json!({
        "config": { "neighbor-address": neighbour.address, "peer-as": neighbour.asn },
        "timers": { "config": {
            "hold-time": config.hold_seconds, "keepalive-interval": (config.hold_seconds / 3).max(1),
            "connect-retry": 1, "idle-hold-time-after-reset": 1,
        } },
        "transport": { "config": {
            "local-address": place.address(neighbour.address)?, "passive-mode": neighbour.passive,
        } },
        "afi-safis": families.into_iter().flatten().collect::<Vec<_>>(),
        "graceful-restart": { "config": {
            "enabled": restarts, "restart-time": config.graceful_restart.unwrap_or_default(), "deferral-time": 3,
            // N-bit (RFC 8538) off: then the end of a session by NOTIFICATION is no restart.
            "notification-enabled": false,
        } },
    });
    if let Some(password) = &neighbour.password {
        session["config"]["auth-password"] = json!(password);
    }
    match neighbour.distance {
        Distance::Direct => {}
        Distance::Multihop(ttl) => {
            session["ebgp-multihop"] = json!({ "config": { "enabled": true, "multihop-ttl": ttl } });
        }
        Distance::Secured => {
            session["ttl-security"] = json!({ "config": { "enabled": true, "ttl-min": 255 } });
        }
    }
    if neighbour.reflector_client {
        let cluster = config.cluster_id.unwrap_or(config.router_id);
        session["route-reflector"] =
            json!({ "config": { "route-reflector-client": true, "route-reflector-cluster-id": cluster } });
    }
    Ok(session)
}

/// Attributes are `{type: CODE, …}` by their number on the wire.
fn read(prefix: IpNet, shown: &Value) -> Option<Path> {
    let mut path = Path::bare(prefix, prefix.addr());
    path.best = shown["best"] == true;
    path.from = shown["neighbor-ip"].as_str().and_then(|address| address.parse().ok());
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let mut hop: Option<IpAddr> = None;
    for attribute in shown["attrs"].as_array()? {
        let list = |key: &str| attribute[key].as_array().cloned().unwrap_or_default();
        match attribute["type"].as_u64()? {
            2 => {
                let segments = list("as_paths");
                let asns = segments.iter().flat_map(|one| one["asns"].as_array().into_iter().flatten());
                path.as_path = asns.filter_map(number).collect();
            }
            3 | 14 => hop = attribute["nexthop"].as_str().and_then(|hop| hop.parse().ok()),
            4 => path.med = number(&attribute["metric"]),
            5 => path.local_pref = number(&attribute["value"]),
            8 => {
                let pair = |community: u32| format!("{}:{}", community >> 16, community & 0xffff);
                path.communities = list("communities").iter().filter_map(number).map(pair).collect();
            }
            9 => path.originator = address(&attribute["value"]),
            10 => path.clusters = list("value").iter().filter_map(address).collect(),
            32 => {
                let triple =
                    |one: &Value| format!("{}:{}:{}", one["ASN"], one["LocalData1"], one["LocalData2"]);
                path.large_communities = list("value").iter().map(triple).collect();
            }
            _ => {}
        }
    }
    path.next_hop = hop?;
    Some(path)
}

fn address(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}
