//! Two routers on a wire, and how to wait for what they come to say.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use lab::node::{Fabric, Families};
use lab::router::{Config, Neighbour, Network, Path, Router, Software};

/// Reconnecting takes some seconds in every implementation, and a busy machine is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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
                thread.join().map_or(true, |ended| ended.is_err()).then(|| one.to_string())
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
    _fabric: Arc<Fabric>,
}

impl Wire {
    pub(crate) fn new(software: &[Software]) -> Self {
        let fabric = Arc::new(Fabric::new(Families::Dual, 1).expect("a fabric"));
        let router = |(at, one): (usize, &Software)| {
            Router::new(&fabric, 0, u8::try_from(at + 1).unwrap(), *one).expect("a router")
        };
        let routers = software.iter().enumerate().map(router).collect();
        Self { routers, _fabric: fabric }
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
                routes.iter().flat_map(|route| route.gateways.clone()).collect();
            if found == hops.iter().copied().collect() { Ok(()) } else { Err(format!("{routes:?}")) }
        });
    }
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
    format!("2001:db8:{}:{n:x}::/64", at + 1)
}
