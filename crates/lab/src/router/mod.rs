//! BGP routers in namespaces of their own: the foreign judges of our speaker, and the speaker itself as one of them.
//!
//! A [`Router`] is plugged into a [`Fabric`] like a node, with its own network and mount namespace, and runs one of the
//! [`Software`]s from one [`Config`]. Decided here: the life of its processes. How a configuration is written and how
//! answers are read is each implementation's file; nothing here knows BGP.

mod bird;
mod config;
mod exabgp;
mod frr;
mod gobgp;
mod place;
mod speaker;
mod view;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;

pub use config::{Config, Distance, Neighbour, Network};
pub use view::{KernelRoute, Path, Peering};

use crate::node::{self, Fabric, Namespace, Node};
use crate::process;
use place::Place;

/// From starting a daemon to its first answer; machines that do much else are slow.
const START: Duration = Duration::from_secs(120);

/// Step that failed while a router was made or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace or link.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// A daemon or tool.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file inside the router or its log.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tool's answer that is not what it is known to say.
    #[error("not understood from {tool}: {text}")]
    Answer {
        /// Who said it.
        tool: String,
        /// What.
        text: String,
    },
    /// An address of a family the router does not have.
    #[error("{router} has no address like {like}")]
    NoAddress {
        /// Which router.
        router: String,
        /// The address.
        like: IpAddr,
    },
    /// Something an implementation cannot be asked.
    #[error("{software} cannot {what}")]
    Cannot {
        /// Which.
        software: Software,
        /// What.
        what: &'static str,
    },
    /// A daemon that does not answer, or has ended.
    #[error("{router} is not up: {what}\n{log}")]
    NotUp {
        /// Which router.
        router: String,
        /// What is missing.
        what: String,
        /// Its last words.
        log: String,
    },
}

impl Error {
    fn answer(tool: &str, text: &str) -> Self {
        Self::Answer { tool: tool.to_owned(), text: text.to_owned() }
    }
}

/// Which program a router runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Software {
    /// FRR: bgpd, with zebra for the kernel's routes.
    Frr,
    /// BIRD 2.
    Bird,
    /// GoBGP, which upstream's agent has built in. No routes in the kernel.
    GoBgp,
    /// ExaBGP: announces and reports, chooses no paths. No routes in the kernel.
    ExaBgp,
    /// Our own: the example `speaker` of the bgp crate. No routes in the kernel.
    Speaker,
}

impl Software {
    /// Those that are not ours.
    pub const FOREIGN: [Software; 4] = [Self::Frr, Self::Bird, Self::GoBgp, Self::ExaBgp];

    fn daemon(self) -> &'static dyn Daemon {
        match self {
            Self::Frr => &frr::Frr,
            Self::Bird => &bird::Bird,
            Self::GoBgp => &gobgp::GoBgp,
            Self::ExaBgp => &exabgp::ExaBgp,
            Self::Speaker => &speaker::Speaker,
        }
    }
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::GoBgp => "gobgp",
            Self::ExaBgp => "exabgp",
            Self::Speaker => "speaker",
        })
    }
}

/// What each implementation can be asked. All of it blocks.
trait Daemon: Sync {
    /// Writes the configuration and starts what is not running. `again`: after [`Router::kill`], as one that restarts
    /// gracefully where that is configured. The BGP daemon is the last of the processes.
    fn start(&self, place: &Place, config: &Config, again: bool) -> Result<Vec<Child>, Error>;
    /// Whether it answers.
    fn ready(&self, place: &Place) -> Result<bool, Error>;
    /// What the configuration's file had no place for, once it answers.
    fn settle(&self, _place: &Place, _config: &Config) -> Result<(), Error> {
        Ok(())
    }
    /// The session with this neighbour.
    fn peering(&self, place: &Place, config: &Config, neighbour: IpAddr) -> Result<Peering, Error>;
    /// Every path to exactly this prefix.
    fn paths(&self, place: &Place, config: &Config, prefix: &IpNet) -> Result<Vec<Path>, Error>;
    /// Announces one more; `config` has it already.
    fn announce(&self, place: &Place, config: &Config, network: &Network) -> Result<(), Error>;
    /// Withdraws one; `config` has it no more.
    fn withdraw(&self, place: &Place, config: &Config, network: &Network) -> Result<(), Error>;
    /// Closes a session administratively with a text for the other side (RFC 8203; GoBGP sends none).
    fn shut(&self, place: &Place, config: &Config, neighbour: IpAddr, text: &str) -> Result<(), Error>;
    /// Asks the neighbour to tell everything again (RFC 2918).
    fn refresh(&self, place: &Place, config: &Config, neighbour: IpAddr) -> Result<(), Error>;
}

/// A machine that runs a BGP speaker; dropping it removes it.
#[derive(Debug)]
pub struct Router {
    software: Software,
    place: Place,
    config: Option<Config>,
    processes: Vec<Child>,
    /// None where the machine is somebody else's.
    plugged: Option<(String, Arc<Fabric>)>,
}

impl Router {
    /// The `index`th router (from 1), `SOFTWARE-INDEX`, plugged into `segment`; nothing runs yet.
    pub fn new(fabric: &Arc<Fabric>, segment: u8, index: u8, software: Software) -> Result<Self, Error> {
        let name = format!("{software}-{index}");
        let namespace = Namespace::machine(&name)?;
        namespace.sysctls(node::FORWARDING)?;
        let addresses = fabric.families().router(segment, index);
        let port = fabric.plug(&namespace, segment, &addresses)?;
        fabric.publish(&namespace)?;
        let log = fabric.folder().join(format!("{name}.log"));
        let place = Place { name, namespace: Arc::new(namespace), log, addresses };
        let plugged = Some((port, Arc::clone(fabric)));
        Ok(Self { software, place, config: None, processes: Vec::new(), plugged })
    }

    /// On a cluster's node, in the place of an agent that routes: `SOFTWARE-on-NODE`.
    pub fn on(node: &Node, software: Software) -> Self {
        let name = format!("{software}-on-{}", node.name());
        let log = node.fabric().folder().join(format!("{name}.log"));
        let (namespace, addresses) = (Arc::clone(node.namespace()), node.networks().to_vec());
        let place = Place { name, namespace, log, addresses };
        Self { software, place, config: None, processes: Vec::new(), plugged: None }
    }

    /// `SOFTWARE-INDEX`.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// What it runs.
    pub fn software(&self) -> Software {
        self.software
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        node::addresses(&self.place.addresses)
    }

    /// To run things inside.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.place.namespace
    }

    /// What it was last started with, and what was announced and withdrawn since.
    pub fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    /// The same to change, for the next start.
    pub fn config_mut(&mut self) -> Option<&mut Config> {
        self.config.as_mut()
    }

    /// The last lines its daemons printed.
    pub fn log(&self) -> String {
        place::tail(&self.place.log)
    }

    /// Everything its daemons have printed: where they try again and again, the last lines are about that alone.
    pub fn whole_log(&self) -> String {
        place::text(&self.place.log)
    }

    /// Process number of the BGP daemon, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.processes.last().map(Child::id)
    }

    /// Starts it with this configuration, after ending what runs, and waits until it answers.
    pub fn start(&mut self, config: Config) -> Result<(), Error> {
        // Only BIRD's filters are written for it; silence would announce too much.
        let narrow = config.neighbours.iter().any(|neighbour| neighbour.own_only);
        if narrow && self.software != Software::Bird {
            return Err(Error::Cannot { software: self.software, what: "announce its own alone" });
        }
        self.stop();
        self.config = Some(config);
        self.launch(false)
    }

    /// Kills the BGP daemon (kill -9); FRR's zebra stays, as it does when bgpd crashes.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.processes.pop() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Kills all of its daemons.
    pub fn stop(&mut self) {
        while !self.processes.is_empty() {
            self.kill();
        }
    }

    /// Starts the daemon again after [`Router::kill`], as one that restarts gracefully where that is configured.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.launch(true)
    }

    /// The session with this neighbour.
    pub fn peering(&self, neighbour: IpAddr) -> Result<Peering, Error> {
        let Some(config) = self.config.as_ref() else { return Ok(Peering::default()) };
        self.software.daemon().peering(&self.place, config, neighbour)
    }

    /// Every path to exactly this prefix.
    pub fn paths(&self, prefix: &IpNet) -> Result<Vec<Path>, Error> {
        let Some(config) = self.config.as_ref() else { return Ok(Vec::new()) };
        self.software.daemon().paths(&self.place, config, prefix)
    }

    /// Announces one more.
    pub fn announce(&mut self, network: Network) -> Result<(), Error> {
        let Some(config) = self.config.as_mut() else { return Ok(()) };
        config.networks.push(network.clone());
        self.software.daemon().announce(&self.place, config, &network)
    }

    /// Withdraws what it announces as `prefix`.
    pub fn withdraw(&mut self, prefix: &IpNet) -> Result<(), Error> {
        let Some(config) = self.config.as_mut() else { return Ok(()) };
        let Some(at) = config.networks.iter().position(|network| network.prefix == *prefix) else {
            return Ok(());
        };
        let network = config.networks.remove(at);
        self.software.daemon().withdraw(&self.place, config, &network)
    }

    /// Closes a session administratively with a text for the other side (RFC 8203).
    pub fn shut(&self, neighbour: IpAddr, text: &str) -> Result<(), Error> {
        let Some(config) = self.config.as_ref() else { return Ok(()) };
        self.software.daemon().shut(&self.place, config, neighbour, text)
    }

    /// Asks a neighbour to tell everything again (RFC 2918). GoBGP and ExaBGP cannot: one keeps what it was told, the other
    /// keeps nothing.
    pub fn refresh(&self, neighbour: IpAddr) -> Result<(), Error> {
        let Some(config) = self.config.as_ref() else { return Ok(()) };
        self.software.daemon().refresh(&self.place, config, neighbour)
    }

    /// The kernel's routes to exactly `prefix`, whoever made them.
    pub fn kernel_routes(&self, prefix: &IpNet) -> Result<Vec<KernelRoute>, Error> {
        kernel_routes(&self.place.namespace, prefix)
    }

    fn launch(&mut self, again: bool) -> Result<(), Error> {
        let Some(config) = &self.config else { return Ok(()) };
        let daemon = self.software.daemon();
        self.processes.extend(daemon.start(&self.place, config, again)?);
        let end = Instant::now() + START;
        loop {
            let ended = self.processes.iter_mut().find_map(|child| child.try_wait().ok().flatten());
            let what = match ended {
                Some(status) => format!("a daemon has ended with {status}"),
                None if daemon.ready(&self.place)? => return daemon.settle(&self.place, config),
                None => format!("no answer within {} s", START.as_secs()),
            };
            if ended.is_some() || Instant::now() > end {
                return Err(Error::NotUp { router: self.name().to_owned(), what, log: self.log() });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop();
        if let Some((port, fabric)) = &self.plugged {
            fabric.unplug(port);
            fabric.withdraw(&self.place.namespace);
        }
    }
}

/// The main table's routes to exactly `prefix` in a namespace, as `ip -j` shows them; blackholes and the like not.
pub fn kernel_routes(namespace: &Namespace, prefix: &IpNet) -> Result<Vec<KernelRoute>, Error> {
    let family = if prefix.addr().is_ipv4() { "-4" } else { "-6" };
    let mut tool = process::command("ip");
    tool.args(["-j", family, "route", "show", "exact", &prefix.to_string()]);
    let text = namespace.run(move || process::run(&mut tool))??;
    let routes: Vec<Value> = match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).map_err(|_| Error::answer("ip", text))?,
    };
    let unicast = |route: &&Value| route.get("type").is_none_or(|kind| kind == "unicast");
    Ok(routes.iter().filter(unicast).map(|route| kernel_route(*prefix, route)).collect())
}

fn kernel_route(prefix: IpNet, route: &Value) -> KernelRoute {
    let gateway = |hop: &Value| -> Option<IpAddr> {
        let via = || hop.get("via").and_then(|via| via.get("host"));
        hop.get("gateway").or_else(via)?.as_str()?.parse().ok()
    };
    let several = route.get("nexthops").and_then(Value::as_array).into_iter().flatten();
    KernelRoute { prefix, gateways: several.filter_map(gateway).chain(gateway(route)).collect() }
}
