//! Our own speaker: the example `speaker` of the bgp crate, asked in JSON over its unix socket.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Child;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::Place;
use super::{Config, Daemon, Distance, Error, Neighbour, Network, Path, Peering};

#[derive(Debug)]
pub(super) struct Speaker;

const CONFIGURATION: &str = "/run/speaker/speaker.json";
const SOCKET: &str = "/run/speaker/socket";
/// Seconds a restarting speaker waits for the table of its neighbours before it chooses.
const DEFERRAL: u16 = 10;

impl Daemon for Speaker {
    fn start(&self, place: &Place, config: &Config, again: bool) -> Result<Vec<Child>, Error> {
        place.write(CONFIGURATION, render(place, config, again).to_string())?;
        place.remove(SOCKET)?;
        let program = program().map_err(|source| Error::File { path: "speaker".into(), source })?;
        let arguments = ["--config", CONFIGURATION, "--socket", SOCKET];
        let quiet = config.bulk.then_some("--quiet");
        Ok(vec![place.start(program, arguments.into_iter().chain(quiet), &[])?])
    }

    fn ready(&self, place: &Place) -> Result<bool, Error> {
        Ok(ask(place, &json!({ "do": "peers" })).is_ok())
    }

    fn peering(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<Peering, Error> {
        let answer = ask(place, &json!({ "do": "peers" }))?;
        let is = |peer: &&Value| peer["address"] == neighbour.to_string();
        let peer = answer["peers"].as_array().into_iter().flatten().find(is).cloned().unwrap_or_default();
        let heard = peer["announced"].as_u64().unwrap_or(0);
        Ok(Peering { established: peer["state"] == "established", said: peer.to_string(), heard })
    }

    fn paths(&self, place: &Place, _: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        let answer = ask(place, &json!({ "do": "paths" }))?;
        let text = answer.to_string();
        let shown: Table = serde_json::from_value(answer).map_err(|_| Error::answer("speaker", &text))?;
        Ok(shown.paths.into_iter().filter(|path| path.prefix == *prefix).map(Shown::path).collect())
    }

    fn announce(&self, place: &Place, _: &Config, one: &Network) -> Result<(), Error> {
        ask(place, &json!({ "do": "announce", "networks": [network(one)] })).map(drop)
    }

    fn withdraw(&self, place: &Place, _: &Config, one: &Network) -> Result<(), Error> {
        ask(place, &json!({ "do": "withdraw", "prefixes": [one.prefix] })).map(drop)
    }

    fn shut(&self, place: &Place, _: &Config, neighbour: IpAddr, text: &str) -> Result<(), Error> {
        ask(place, &json!({ "do": "shutdown", "peer": neighbour, "text": text })).map(drop)
    }

    fn refresh(&self, place: &Place, _: &Config, neighbour: IpAddr) -> Result<(), Error> {
        ask(place, &json!({ "do": "refresh", "peer": neighbour })).map(drop)
    }
}

/// cargo puts examples beside `deps`, where test executables are.
fn program() -> std::io::Result<PathBuf> {
    if let Some(program) = std::env::var_os("KUBE_ROUTER_SPEAKER_BIN") {
        return Ok(program.into());
    }
    let here = std::env::current_exe()?;
    let folder = here.parent().unwrap_or(std::path::Path::new("/"));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = folder.join("examples/speaker");
    match program.is_file() {
        true => Ok(program),
        false => Err(std::io::Error::other(format!(
            "no {}: `cargo build -p bgp --example speaker`",
            program.display()
        ))),
    }
}

fn ask(place: &Place, request: &Value) -> Result<Value, Error> {
    let text = place.ask_socket(SOCKET, request.to_string())?;
    let answer: Value = serde_json::from_str(&text).map_err(|_| Error::answer("speaker", &text))?;
    if answer.get("error").is_some() { Err(Error::answer("speaker", &text)) } else { Ok(answer) }
}

fn network(network: &Network) -> Value {
    json!({
        "prefix": network.prefix, "next_hop": network.next_hop, "med": network.med, "local_pref": null,
        "communities": network.communities, "large_communities": network.large_communities,
    })
}

fn render(place: &Place, config: &Config, again: bool) -> Value {
    let restart = config.graceful_restart.map(
        |seconds| json!({ "restart_seconds": seconds, "deferral_seconds": DEFERRAL, "forwarding_kept": true }),
    );
    let listen: Vec<IpAddr> = place.addresses.iter().map(IpNet::addr).collect();
    json!({
        "asn": config.asn, "router_id": config.router_id, "cluster_id": config.cluster_id,
        "listen": listen, "port": 179, "maximum_paths": config.maximum_paths,
        "restarting": again && config.graceful_restart.is_some(), "graceful_restart": restart,
        "peers": config.neighbours.iter().map(|one| peer(place, config, one)).collect::<Vec<_>>(),
        "networks": config.networks.iter().map(network).collect::<Vec<_>>(),
    })
}

fn peer(place: &Place, config: &Config, neighbour: &Neighbour) -> Value {
    let ttl = match neighbour.distance {
        Distance::Direct => Value::Null,
        Distance::Multihop(hops) => json!({ "multihop": hops }),
        Distance::Secured => json!({ "gtsm": 1 }),
    };
    let families = [(neighbour.families.v4(), "ipv4-unicast"), (neighbour.families.v6(), "ipv6-unicast")];
    let families: Vec<&str> = families.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    let limit = neighbour.max_prefixes.map(|limit| json!({ "limit": limit, "restart_seconds": null }));
    json!({
        "address": neighbour.address, "asn": neighbour.asn, "port": 179,
        "local_address": place.address(neighbour.address).ok(), "passive": neighbour.passive,
        "password": neighbour.password, "ttl": ttl, "hold_seconds": config.hold_seconds, "families": families,
        "reflector_client": neighbour.reflector_client, "next_hop_self": neighbour.next_hop_self,
        "max_prefix": limit,
    })
}

#[derive(Deserialize)]
struct Table {
    paths: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    prefix: IpNet,
    peer: Option<IpAddr>,
    best: bool,
    next_hop: IpAddr,
    as_path: String,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<String>,
    large_communities: Vec<String>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: Vec<Ipv4Addr>,
}

impl Shown {
    fn path(self) -> Path {
        Path {
            from: self.peer,
            best: self.best,
            as_path: self.as_path.split_whitespace().filter_map(|asn| asn.parse().ok()).collect(),
            med: self.med,
            local_pref: self.local_pref,
            communities: self.communities.into_iter().collect(),
            large_communities: self.large_communities.into_iter().collect(),
            originator: self.originator_id,
            clusters: self.cluster_list,
            ..Path::bare(self.prefix, self.next_hop)
        }
    }
}
