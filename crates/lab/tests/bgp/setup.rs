//! Two routers on a wire, and how to wait for what they come to say.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::node::{Fabric, Families, Namespace};
use lab::router::{Config, Neighbour, Network, Path, Router, Software};
use serde_json::Value;

/// Reconnecting takes some seconds in every implementation, and a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Asks until the answer is good; panics with the last reason.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > end => panic!("{what}: not within {PATIENCE:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Runs `work` for each implementation side by side; most of the time is waiting for timers.
pub(crate) fn each(all: &[Software], work: impl Fn(Software) + Sync) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let start = |one: &Software| {
            let one = *one;
            let work = &work;
            (one, scope.spawn(move || catch_unwind(AssertUnwindSafe(|| work(one)))))
        };
        let running: Vec<_> = all.iter().map(start).collect();
        let failed =
            |(one, thread): (Software, std::thread::ScopedJoinHandle<'_, std::thread::Result<()>>)| {
                (!matches!(thread.join(), Ok(Ok(())))).then(|| one.to_string())
            };
        running.into_iter().filter_map(failed).collect()
    });
    assert!(failed.is_empty(), "failed with {}: see above", failed.join(", "));
}

/// Over which family a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    V4,
    V6,
}

/// A wire with routers on it, each in an autonomous system of its own unless a check says otherwise.
pub(crate) struct Wire {
    pub(crate) routers: Vec<Router>,
    link_local: Vec<IpAddr>,
    _fabric: Arc<Fabric>,
}

impl Wire {
    pub(crate) fn new(software: &[Software]) -> Self {
        let fabric = Arc::new(Fabric::new(Families::Dual, 1).expect("a fabric"));
        let router = |(at, one): (usize, &Software)| {
            Router::new(&fabric, 0, u8::try_from(at + 1).unwrap(), *one).expect("a router")
        };
        let routers: Vec<Router> = software.iter().enumerate().map(router).collect();
        let link_local = routers.iter().map(|router| link_local(router.namespace())).collect();
        Self { routers, link_local, _fabric: fabric }
    }

    pub(crate) fn address(&self, at: usize, over: Over) -> IpAddr {
        let wanted = |address: &IpAddr| address.is_ipv4() == (over == Over::V4);
        self.routers[at].addresses().into_iter().find(wanted).unwrap()
    }

    /// Router `at` with its usual numbers: AS 65001 and on, router id 10.0.0.1 and on.
    pub(crate) fn config(&self, at: usize) -> Config {
        let number = u8::try_from(at + 1).unwrap();
        Config::new(65000 + u32::from(number), [10, 0, 0, number].into())
    }

    /// Router `at` as others see it.
    pub(crate) fn neighbour(&self, at: usize, over: Over) -> Neighbour {
        Neighbour::new(self.address(at, over), self.config(at).asn)
    }

    /// Starts the first two as each other's neighbours; `change` has the last word on router number, its configuration.
    pub(crate) fn start_pair(&mut self, over: Over, change: impl Fn(usize, &mut Config)) {
        // Both down first: a connection of the life before would be in the way of some.
        self.routers[..2].iter_mut().for_each(Router::stop);
        for at in [0, 1] {
            let mut config = self.config(at).neighbour(self.neighbour(1 - at, over));
            change(at, &mut config);
            self.routers[at].start(config).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Waits until the session between routers `a` and `b` is established on both sides.
    pub(crate) fn established(&self, a: usize, b: usize, over: Over) {
        for (own, other) in [(a, b), (b, a)] {
            let (router, address) = (&self.routers[own], self.address(other, over));
            eventually(&format!("{} established with {address}", router.name()), || {
                let peering = router.peering(address).map_err(|error| error.to_string())?;
                if peering.established { Ok(()) } else { Err(format!("{}\n{}", peering.said, router.log())) }
            });
        }
    }

    /// The global address of the router whose link-local address this is; a next hop may be either.
    fn global(&self, hop: IpAddr) -> IpAddr {
        let own = |(at, one): (usize, &IpAddr)| (*one == hop).then(|| self.address(at, Over::V6));
        self.link_local.iter().enumerate().find_map(own).unwrap_or(hop)
    }

    /// Whether router `at` says that its session with router `other` is established.
    pub(crate) fn is_established(&self, at: usize, other: usize, over: Over) -> bool {
        let peering = self.routers[at].peering(self.address(other, over));
        peering.unwrap_or_else(|error| panic!("{error}")).established
    }

    /// Waits until both have been told that the initial table is complete, where they show it: only then does a helper keep
    /// what a restarting neighbour had announced.
    pub(crate) fn settled(&self, a: usize, b: usize, over: Over) {
        for (own, other) in [(a, b), (b, a)] {
            let router = &self.routers[own];
            if router.software() != Software::Frr {
                continue;
            }
            eventually(&format!("{}: End-of-RIB from its neighbour", router.name()), || {
                let said = router.peering(self.address(other, over)).map_err(|error| error.to_string())?.said;
                let said: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
                let families = said["gracefulRestartInfo"]["endOfRibRecv"].clone();
                let both = ["ipv4Unicast", "ipv6Unicast"].iter().all(|name| families[name] == true);
                if both { Ok(()) } else { Err(families.to_string()) }
            });
        }
    }

    /// Sum of counters of router `at`'s kernel (`TcpExt` of netstat).
    pub(crate) fn counted(&self, at: usize, names: &[&str]) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netstat").expect("counters");
        let text = self.routers[at].namespace().run(read).expect("the router");
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (keys, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let pairs = keys.split(' ').zip(values.split(' '));
        pairs.filter(|(key, _)| names.contains(key)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// Waits until they have come to `enough`.
    pub(crate) fn counts(&self, at: usize, names: &[&str], enough: u64) {
        eventually(&format!("{names:?} on {}", self.routers[at].name()), || match self.counted(at, names) {
            now if now >= enough => Ok(()),
            now => Err(format!("{now} of {enough}\n{}", self.routers[at].log())),
        });
    }

    /// Everything that happens to the routes in router `at`'s kernel from now on.
    pub(crate) fn watch(&self, at: usize) -> Watch {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let output = file.reopen().expect("the file");
        let spawn = move || {
            lab::process::spawn(lab::process::tied("ip").args(["-o", "monitor", "route"]).stdout(output))
        };
        let child = self.routers[at].namespace().run(spawn).expect("the router").expect("ip monitor");
        Watch { child, file }
    }

    /// Waits until router `at` has heard from router `other` why the session ends.
    pub(crate) fn hears(&self, at: usize, other: usize, over: Over, why: Cease, text: &str) {
        let router = &self.routers[at];
        eventually(&format!("{} hears {why:?} and '{text}'", router.name()), || {
            let said = router.peering(self.address(other, over)).map_err(|error| error.to_string())?.said;
            let heard = heard(router.software(), &said, &router.whole_log(), why, text);
            let logs = || format!("{}\n{}", router.log(), self.routers[other].log());
            if heard { Ok(()) } else { Err(format!("{said}\n{}", logs())) }
        });
    }

    /// Waits until router `at` has a path to `prefix` from another router that is `good`.
    pub(crate) fn path(&self, at: usize, prefix: &str, good: impl Fn(&Path) -> bool) -> Path {
        let (router, prefix) = (&self.routers[at], net(prefix));
        eventually(&format!("a good path to {prefix} on {}", router.name()), || {
            let paths = router.paths(&prefix).map_err(|error| error.to_string())?;
            let found = paths.iter().find(|path| path.from.is_some() && good(path)).cloned();
            found.ok_or_else(|| format!("{paths:#?}\n{}", router.log()))
        })
    }

    /// Whether router `at` has a path to `prefix` from another router at this moment.
    pub(crate) fn has_path(&self, at: usize, prefix: &str) -> bool {
        let paths = self.routers[at].paths(&net(prefix)).unwrap_or_else(|error| panic!("{error}"));
        paths.iter().any(|path| path.from.is_some())
    }

    /// Waits until router `at` has no path to `prefix` from another router.
    pub(crate) fn no_path(&self, at: usize, prefix: &str) {
        eventually(&format!("no path to {prefix} on {}", self.routers[at].name()), || {
            if self.has_path(at, prefix) { Err(self.routers[at].log()) } else { Ok(()) }
        });
    }

    /// Waits until the kernel of router `at`, if it programs it, spreads `prefix` over exactly these next hops.
    pub(crate) fn kernel(&self, at: usize, prefix: &str, hops: &[IpAddr]) {
        let router = &self.routers[at];
        if !matches!(router.software(), Software::Frr | Software::Bird) {
            return;
        }
        eventually(&format!("{}: kernel route to {prefix} over {hops:?}", router.name()), || {
            let routes = router.kernel_routes(&net(prefix)).map_err(|error| error.to_string())?;
            let found: std::collections::BTreeSet<IpAddr> =
                routes.iter().flat_map(|route| &route.gateways).map(|hop| self.global(*hop)).collect();
            if found == hops.iter().copied().collect() { Ok(()) } else { Err(format!("{routes:?}")) }
        });
    }
}

/// The link-local address of a machine's `eth0`, which an IPv6 next hop may be; it is there a moment after the link is up.
pub(crate) fn link_local(namespace: &Namespace) -> IpAddr {
    let show = || {
        let mut ip = lab::process::command("ip");
        lab::process::run(ip.args(["-j", "-6", "addr", "show", "dev", "eth0"]))
    };
    eventually(&format!("{}: a link-local address", namespace.name()), || {
        let shown = namespace.run(show).expect("the router").expect("addresses");
        let links: Value = serde_json::from_str(&shown).unwrap_or_default();
        let addresses = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let link = addresses.iter().find(|address| address["scope"] == "link");
        link.and_then(|address| address["local"].as_str()?.parse().ok()).ok_or(shown)
    })
}

/// Subcodes of Cease (RFC 4486).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cease {
    MaximumPrefixes = 1,
    AdministrativeShutdown = 2,
}

/// Whether an implementation says, in its own words, that it was sent this Cease with this text. What it says of a session
/// when asked is how the last attempt ended; what it has written down stays.
fn heard(software: Software, said: &str, log: &str, why: Cease, text: &str) -> bool {
    let subcode = why as u64;
    let words = match software {
        Software::Frr => vec!["NOTIFICATION: received from".to_owned(), format!(" 6/{subcode} ")],
        Software::Bird => {
            let words = match why {
                Cease::MaximumPrefixes => "Maximum number of prefixes reached",
                Cease::AdministrativeShutdown => "Administrative shutdown",
            };
            vec![format!("Received: {words}")]
        }
        Software::GoBgp => {
            vec!["received notification".to_owned(), "Code=6".to_owned(), format!("Subcode={subcode}")]
        }
        Software::Speaker => vec!["\"received\":".to_owned(), format!("(6/{subcode})")],
        // Its events stand for its log.
        Software::ExaBgp => return said.lines().any(|line| is_cease(line, subcode, text)),
    };
    log.lines().any(|line| words.iter().all(|word| line.contains(word)) && line.contains(text))
}

/// Whether an event of ExaBGP is a Cease with this subcode and this text.
fn is_cease(event: &str, subcode: u64, text: &str) -> bool {
    let event = serde_json::from_str::<Value>(event).unwrap_or_default();
    let notification = &event["neighbor"]["notification"];
    let hex: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
    notification["code"] == 6
        && notification["subcode"] == subcode
        && notification["data"].as_str().is_some_and(|data| data.contains(&hex))
}

/// A running `ip monitor route`.
pub(crate) struct Watch {
    child: std::process::Child,
    file: tempfile::NamedTempFile,
}

impl Watch {
    /// What it has printed so far.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.file.path()).expect("the file")
    }

    /// Lines about routes to this prefix that went.
    pub(crate) fn lost(&self, prefix: &str) -> Vec<String> {
        let gone = |line: &&str| line.contains("Deleted") && line.contains(prefix);
        self.text().lines().filter(gone).map(str::to_owned).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The family of a prefix, as the family a session runs over.
pub(crate) fn family(prefix: &str) -> Over {
    if prefix.contains(':') { Over::V6 } else { Over::V4 }
}

pub(crate) fn net(prefix: &str) -> IpNet {
    prefix.parse().expect("a prefix")
}

/// What router `at` announces in most checks: a prefix of each family with everything that can go along.
pub(crate) fn networks(at: usize) -> Vec<Network> {
    let asn = 65001 + at;
    let dressed = |prefix: String| {
        Network::new(net(&prefix))
            .community(&format!("{asn}:1"))
            .community(&format!("{asn}:2"))
            .large_community(&format!("{asn}:1:2"))
            .med(u32::try_from(at).unwrap() + 7)
    };
    vec![dressed(v4(at, 0)), dressed(v6(at, 0))]
}

/// The `n`th IPv4 prefix of router `at`.
pub(crate) fn v4(at: usize, n: usize) -> String {
    format!("10.{}.{n}.0/24", at + 1)
}

/// The `n`th IPv6 prefix of router `at`.
pub(crate) fn v6(at: usize, n: usize) -> String {
    format!("2001:db8:{}:{:x}::/64", at + 1, n + 16)
}
