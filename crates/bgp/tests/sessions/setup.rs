//! Speakers on the loopback interface of a namespace.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use bgp::config::{BGP_PORT, RemoteAsn};
use bgp::driver::{Handle, PeerReport, start};
use bgp::session::State;
use bgp::speaker::{PathView, Routing};
use bgp::{Asn, Attributes, Config, PeerConfig};
use ipnet::IpNet;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Addresses of three routers, in both families.
pub(crate) const A: &str = "10.9.0.1";
pub(crate) const B: &str = "10.9.0.2";
pub(crate) const C: &str = "10.9.0.3";
pub(crate) const A6: &str = "fd09::1";
pub(crate) const B6: &str = "fd09::2";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Runs a test in a new network namespace with all addresses on `lo`, on one thread: sockets belong to the thread's.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
        run(&["ip", "link", "set", "lo", "up"]);
        for address in [A, B, C] {
            run(&["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        for address in [A6, B6] {
            run(&["ip", "address", "add", &format!("{address}/128"), "dev", "lo", "nodad"]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    std::thread::scope(|scope| {
        scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Runs a tool and gives back what it printed.
#[allow(clippy::disallowed_methods)] // tests judge by tools that share no code with ours
pub(crate) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect(command[0]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Established connections of the namespace, as `ss` sees them: each has two ends here.
pub(crate) fn connections() -> usize {
    run(&["ss", "-Htn", "state", "established"]).lines().count()
}

/// A speaker at work.
pub(crate) struct Router {
    pub(crate) config: Config,
    pub(crate) handle: Handle,
}

impl Router {
    /// Listens on its addresses; peers are added by [`Router::peer`] and start with [`Router::go`].
    pub(crate) fn new(asn: u32, addresses: &[&str]) -> Self {
        let listen = addresses.iter().map(|address| SocketAddr::new(ip(address), BGP_PORT)).collect();
        let IpAddr::V4(router_id) = ip(addresses[0]) else { panic!("the first address is the router id") };
        let asn = Asn::new(asn).unwrap();
        let config = Config {
            asn,
            router_id,
            cluster_id: None,
            listen,
            graceful_restart: None,
            peers: BTreeMap::new(),
        };
        let (handle, mut events) = start(&tokio::runtime::Handle::current(), u64::from(asn.get()));
        // A driver nobody listens to listens to nobody.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Router { config, handle }
    }

    pub(crate) fn peer(&mut self, local: &str, remote: &str, asn: u32) -> &mut PeerConfig {
        let mut peer = PeerConfig::new(RemoteAsn::Exactly(Asn::new(asn).unwrap()));
        peer.local_address = Some(ip(local));
        peer.connect_retry = (Duration::from_millis(100), Duration::from_millis(500));
        self.config.peers.entry(ip(remote)).or_insert(peer)
    }

    /// Puts its configuration in force. Loopback addresses as next hops are fine here.
    pub(crate) fn go(&self) {
        let routing = Routing { external_needs_policy: false, ..Routing::default() };
        self.handle.configure(self.config.clone(), routing);
    }

    pub(crate) fn announce(&self, prefix: &str, next_hop: &str) {
        self.handle.announce(net(prefix), Attributes::local(ip(next_hop)));
    }

    /// What is known of a peer now.
    pub(crate) async fn report(&self, peer: &str) -> PeerReport {
        let reports = self.handle.peers().await.expect("the driver runs");
        reports.into_iter().find(|report| report.peer == ip(peer)).expect("a configured peer")
    }

    pub(crate) async fn paths(&self) -> Vec<PathView> {
        self.handle.paths().await.expect("the driver runs")
    }

    pub(crate) async fn is_up(&self, peer: &str) -> bool {
        self.report(peer).await.status.state == State::Established
    }

    pub(crate) async fn up(&self, peer: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_up(peer).await {
            assert!(Instant::now() < deadline, "{peer} is not up: {:?}", self.report(peer).await.status);
            pause().await;
        }
    }

    /// Waits until a peer has been up more often than that, and is.
    pub(crate) async fn up_again(&self, peer: &str, than: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.report(peer).await.status.history.established <= than {
            assert!(Instant::now() < deadline, "{peer} did not come up again");
            pause().await;
        }
        self.up(peer).await;
    }

    pub(crate) async fn not_up(&self, peer: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.is_up(peer).await {
            assert!(Instant::now() < deadline, "{peer} is still up");
            pause().await;
        }
    }

    /// Waits until the last NOTIFICATION of a peer is this one: it may arrive long after the peer has closed.
    pub(crate) async fn told(&self, peer: &str, code: u8, subcode: u8) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.report(peer).await.status.history.last_received;
            if told.as_ref().is_some_and(|told| (told.code, told.subcode) == (code, subcode)) {
                return;
            }
            assert!(Instant::now() < deadline, "{code}/{subcode} was not heard from {peer}: {told:?}");
            pause().await;
        }
    }

    /// Waits for a path of a peer.
    pub(crate) async fn learns(&self, prefix: &str, peer: &str) -> PathView {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wanted = |path: &PathView| path.prefix == net(prefix) && path.peer == Some(ip(peer));
            if let Some(path) = self.paths().await.into_iter().find(wanted) {
                return path;
            }
            assert!(Instant::now() < deadline, "{prefix} was not learnt from {peer}");
            pause().await;
        }
    }

    /// Waits until a peer has told so many prefixes in all.
    pub(crate) async fn learns_many(&self, peer: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report(peer).await;
            let received: usize = report.received.iter().map(|(_, count)| count).sum();
            if received == count {
                return;
            }
            assert!(Instant::now() < deadline, "{received} of {count} prefixes from {peer}");
            pause().await;
        }
    }
}

/// A moment for the others: everything runs on one thread.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        pause().await;
    }
}

/// Two routers that know each other over IPv4.
pub(crate) fn pair() -> (Router, Router) {
    let mut a = Router::new(65_001, &[A, A6]);
    let mut b = Router::new(65_002, &[B, B6]);
    a.peer(A, B, 65_002);
    b.peer(B, A, 65_001);
    (a, b)
}
