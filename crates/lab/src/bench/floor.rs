//! The floor: the same final state, written by the tools that do nothing else.
//!
//! What the agent left in the kernel is dumped by `ipvsadm`, `ip` and `ipset`, and given back to them in an empty node.

use std::time::{Duration, Instant};

use super::world::bare_node;
use super::{Error, objects};
use crate::node::Namespace;
use crate::process::{command, run, run_with_input};

/// The link the agent puts service addresses on.
const LINK: &str = "kube-dummy-if";

/// A node's state as input of the tools that can write it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// `ipvsadm -R`
    pub(super) ipvs: String,
    /// `ip -batch`
    pub(super) routes: String,
    /// `ipset restore`
    pub(super) sets: String,
}

/// How much there is of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) virtual_servers: usize,
    pub(super) real_servers: usize,
    pub(super) addresses: usize,
    pub(super) routes: usize,
    pub(super) members: usize,
}

impl State {
    /// What the node holds now.
    pub(super) fn dump(node: &Namespace) -> Result<State, Error> {
        let output = |program: &'static str, args: &'static [&'static str]| {
            node.run(move || run(command(program).args(args)))
        };
        let addresses = output("ip", &["-4", "-o", "addr", "show", "dev", LINK])??;
        let routes = output("ip", &["-4", "route", "show", "table", "local", "dev", LINK])??;
        Ok(State {
            ipvs: output("ipvsadm", &["-Sn"])??,
            routes: batch(&addresses, &routes),
            sets: output("ipset", &["save"])??,
        })
    }

    pub(super) fn rows(&self) -> Rows {
        let count = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        Rows {
            virtual_servers: count(&self.ipvs, "-A "),
            real_servers: count(&self.ipvs, "-a "),
            addresses: count(&self.routes, "addr "),
            routes: count(&self.routes, "route "),
            members: count(&self.sets, "add "),
        }
    }
}

/// Lines of `ip -batch` out of `ip -o addr` and `ip route show table local`.
fn batch(addresses: &str, routes: &str) -> String {
    let mut lines = String::new();
    for line in addresses.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after =
            |word: &str| words.iter().position(|other| *other == word).and_then(|at| words.get(at + 1));
        if let Some(net) = after("inet") {
            let scope = after("scope").copied().unwrap_or("global");
            lines += &format!("addr add {net} dev {LINK} scope {scope}\n");
        }
    }
    for line in routes.lines() {
        // `ip` leaves out the link it was asked for.
        lines += &format!("route replace table local {} dev {LINK}\n", line.trim());
    }
    lines
}

/// Time each tool took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub(super) ipvsadm: Duration,
    pub(super) ip: Duration,
    pub(super) ipset: Duration,
}

impl Floor {
    pub(super) fn sum(&self) -> Duration {
        self.ipvsadm + self.ip + self.ipset
    }

    /// Writes `state` into an empty node, and makes sure that it is there.
    pub(super) fn measure(state: &State) -> Result<Floor, Error> {
        let node = bare_node()?;
        node.ip(&format!("link add {LINK} type dummy\nlink set {LINK} up\n"))?;
        let timed = |program: &'static str, args: &'static [&'static str], input: &str| {
            let input = input.to_owned();
            node.run(move || -> Result<Duration, Error> {
                let start = Instant::now();
                run_with_input(command(program).args(args), &input)?;
                Ok(start.elapsed())
            })
        };
        let floor = Floor {
            ipvsadm: timed("ipvsadm", &["-R"], &state.ipvs)??,
            ip: timed("ip", &["-batch", "-"], &state.routes)??,
            ipset: timed("ipset", &["restore"], &state.sets)??,
        };
        let (written, wanted) = (State::dump(&node)?.rows(), state.rows());
        if written != wanted {
            return Err(Error::Wrong(format!("the floor wrote {written:?} where {wanted:?} was wanted")));
        }
        Ok(floor)
    }
}

/// What the agent must have put there for `services` Services with `endpoints` endpoints each: a virtual server, an
/// address, a route and two members each, and a member for each of the node's own addresses, the loopback's among them.
pub(super) fn expected(services: usize, endpoints: usize) -> Rows {
    Rows {
        virtual_servers: services,
        real_servers: services * endpoints,
        addresses: services,
        routes: services,
        members: services * 2 + 2,
    }
}

/// Whether the dump holds every Service by name, not only by number.
pub(super) fn holds(state: &State, services: usize) -> bool {
    let mut servers: Vec<&str> = state
        .ipvs
        .lines()
        .filter_map(|line| line.strip_prefix("-A -t ")?.split_whitespace().next())
        .collect();
    servers.sort_unstable();
    let there = |index| {
        let server = format!("{}:{}", objects::cluster_ip(index), objects::PORT);
        servers.binary_search(&server.as_str()).is_ok()
    };
    (0..services).all(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_shows_becomes_what_ip_takes() {
        let addresses =
            "5: kube-dummy-if    inet 10.96.1.0/32 scope link kube-dummy-if\\       valid_lft forever\n";
        let routes = "local 10.96.1.0 proto kernel scope host src 172.31.0.11 \n";
        assert_eq!(
            batch(addresses, routes),
            "addr add 10.96.1.0/32 dev kube-dummy-if scope link\n\
             route replace table local local 10.96.1.0 proto kernel scope host src 172.31.0.11 dev kube-dummy-if\n"
        );
    }
}
