//! The lane: owns the socket, and turns what the kernel says to a stage into one outcome for each change.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::lane::{Change, Lane, ReadError, Refusal};
use crate::netlink::{Error, OwnPorts, Requests};
use crate::row::{Key, Row};

use super::fou::{self, Fou};
use super::socket::{Rtnetlink, Undecoded};
use super::{RouteScope, read, write};

/// Links, bridge ports, addresses, routes and policy rules of the namespace its first call is made in.
#[derive(Debug)]
pub struct RouteLane {
    scope: RouteScope,
    ports: OwnPorts,
    kernel: Option<Rtnetlink>,
    requests: Arc<Requests>,
    fou: Option<Fou>,
    /// UDP ports that the last reading told of: one is told until it is closed, though the tunnels may go first by which
    /// it was known.
    told: BTreeSet<u16>,
}

impl RouteLane {
    /// A lane for what `scope` names. Its socket is opened at the first call, and anew after it failed; its port is
    /// added to `ports` before anything is written through it.
    pub fn new(scope: RouteScope, ports: OwnPorts) -> RouteLane {
        RouteLane { scope, ports, kernel: None, requests: Arc::default(), fou: None, told: BTreeSet::new() }
    }

    /// Messages of the kernel that were left out when reading, for want of understanding.
    pub fn undecoded(&self) -> Undecoded {
        self.kernel.as_ref().map(|kernel| kernel.undecoded().clone()).unwrap_or_default()
    }

    fn kernel(&mut self) -> Result<&mut Rtnetlink, Error> {
        if self.kernel.is_none() {
            let mut kernel = Rtnetlink::open()?;
            kernel.count_in(Arc::clone(&self.requests));
            self.ports.add(kernel.port());
            self.kernel = Some(kernel);
        }
        self.kernel.as_mut().ok_or(Error::Malformed("no socket"))
    }
}

impl Lane for RouteLane {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let scope = self.scope.clone();
        let kernel =
            self.kernel().map_err(|source| ReadError { table: "routes", source: Box::new(source) })?;
        let mut rows = read::rows(kernel, &scope).inspect_err(|_| self.kernel = None)?;
        let mut ports = self.told.clone();
        ports.extend(rows.iter().filter_map(|(_, row)| tunnel_port(row)).chain(scope.udp_port));
        // The mere question makes the kernel load the module where it can.
        if !ports.is_empty() {
            let open = fou::read(&mut self.fou, &ports);
            let open = open.map_err(|source| ReadError { table: "FoU ports", source: Box::new(source) })?;
            self.told = open.iter().map(|(_, port)| *port).collect();
            rows.extend(open.into_iter().map(|(family, port)| (Key::FouPort(family, port), Row::FouPort)));
        }
        Ok(rows)
    }

    fn requests(&self) -> Option<Arc<Requests>> {
        Some(Arc::clone(&self.requests))
    }

    /// O(changes), plus one request for each link named and one or two for each new IPv6 host address.
    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        let mut outcomes = Outcomes(stage.iter().map(|_| Ok(())).collect());
        // Ports are other rows' ground, so they never share a stage with what needs them.
        fou::write(&mut self.fou, stage, &mut outcomes);
        let scope = self.scope.clone();
        let kernel = match self.kernel() {
            Ok(kernel) => kernel,
            Err(error) => {
                outcomes.fail_rest(&refusal("opening rtnetlink", &error));
                return outcomes.0;
            }
        };
        if let Err(error) = write::stage(kernel, &scope, stage, &mut outcomes) {
            // The socket itself failed: what was not refused before may or may not have been done.
            outcomes.fail_rest(&refusal("talking to rtnetlink", &error));
            self.kernel = None;
        }
        outcomes.0
    }
}

/// The UDP port a tunnel sends to.
fn tunnel_port(row: &Row) -> Option<u16> {
    let Row::Link(link) = row else { return None };
    link.udp_port().map(|(_, port)| port)
}

/// Outcomes of a stage, by position of the change.
pub(super) struct Outcomes(Vec<Result<(), Refusal>>);

impl Outcomes {
    /// The first refusal of a change stands.
    pub(super) fn refuse(&mut self, change: usize, refusal: Refusal) {
        if let Some(outcome) = self.0.get_mut(change)
            && outcome.is_ok()
        {
            *outcome = Err(refusal);
        }
    }

    fn fail_rest(&mut self, refusal: &Refusal) {
        for change in 0..self.0.len() {
            self.refuse(change, refusal.clone());
        }
    }

    /// Whether nothing of a change was refused so far.
    pub(super) fn is_ok(&self, change: usize) -> bool {
        self.0.get(change).is_some_and(Result::is_ok)
    }
}

/// A refusal in words an operator can act on.
pub(super) fn refusal(doing: &str, error: &Error) -> Refusal {
    let remedy = match error.errno() {
        Some(libc::EPERM) => "; CAP_NET_ADMIN is needed",
        Some(libc::EACCES) => "; IPv6 may be off there: see sysctl net.ipv6.conf.*.disable_ipv6",
        Some(libc::EAFNOSUPPORT) => "; this kernel has no such address family",
        _ => "",
    };
    Refusal { reason: format!("{doing}: {error}{remedy}"), errno: error.errno() }
}
