//! `kube-router monitor`: packets that network policy refuses, as they are refused.
//!
//! Decided here: what of a refused packet is told. Rules log refused packets to a group of the kernel's packet log, at most
//! ten a minute by each chain that refuses (of a pod with iptables, of pods restricted alike with nftables), so this is a
//! sample and never a count. Names of pods and policies are looked up when a packet is told: a policy that changed since
//! may no longer refuse it.

pub mod command;
pub mod serve;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use linux::nflog::{Logged, Packet};
use serde::{Deserialize, Serialize};

use crate::explain::{Explanation, Outcome, Question};

/// What every reader has to know.
pub const SAMPLE: &str = "this is a sample: at most 10 refused packets a minute are logged of pods that the same policies restrict";

/// A refused packet. Fields are added, never renamed: scripts read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Denied {
    /// Milliseconds since 1970.
    pub time: i64,
    /// Which way it went, as seen from the pod that refused it.
    pub direction: Way,
    /// The pod whose policies refused it.
    pub pod: Option<String>,
    /// Source address, port and pod.
    pub from: Ending,
    /// Destination address, port and pod.
    pub to: Ending,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` or a number.
    pub protocol: String,
    /// Policies that restrict the pod in this direction, none of which permits the packet.
    pub policies: Vec<String>,
}

/// An end of a refused packet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ending {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// The pod that has the address.
    pub pod: Option<String>,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// To the pod.
    #[default]
    Ingress,
    /// From the pod.
    Egress,
}

/// What is to be asked of policies about a logged packet.
pub(crate) fn question(logged: &Logged) -> Question {
    let Packet { source, destination, protocol, ports } = logged.packet;
    let name = protocol_name(protocol);
    let ports = ports.filter(|_| ["tcp", "udp", "sctp"].contains(&name.as_str()));
    Question {
        from: source.to_string(),
        to: destination.to_string(),
        port: ports.map(|(_, to)| to),
        protocol: ports.map(|_| name),
    }
}

/// A logged packet with the answer to its [`question`].
pub(crate) fn denied(logged: &Logged, explanation: Option<&Explanation>, time: i64) -> Denied {
    let Packet { source, destination, protocol, ports } = logged.packet;
    let direction = if logged.prefix.starts_with("out") { Way::Egress } else { Way::Ingress };
    let path = explanation.and_then(|explanation| explanation.paths.first());
    let (source_pod, destination_pod) =
        path.map(|path| (path.source_pod.clone(), path.destination_pod.clone())).unwrap_or_default();
    let (pod, hop) = match direction {
        Way::Ingress => (&destination_pod, path.and_then(|path| path.ingress.as_ref())),
        Way::Egress => (&source_pod, path.and_then(|path| path.egress.as_ref())),
    };
    let hop = hop.filter(|hop| hop.outcome == Outcome::Refused);
    Denied {
        time,
        direction,
        pod: pod.clone(),
        policies: hop.map(|hop| hop.policies.clone()).unwrap_or_default(),
        from: Ending { address: Some(source), port: ports.map(|(from, _)| from), pod: source_pod },
        to: Ending { address: Some(destination), port: ports.map(|(_, to)| to), pod: destination_pod },
        protocol: protocol_name(protocol),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// One line for a person. Times are UTC, as in the log.
pub fn line(denied: &Denied) -> String {
    let seconds = denied.time.div_euclid(1000).rem_euclid(86_400);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hours:02}:{minutes:02}:{seconds:02}  ");
    let pod = denied.pod.as_deref().unwrap_or("a pod that is gone");
    let _ = write!(text, "{} > {} {}: ", end(&denied.from), end(&denied.to), denied.protocol);
    let what = match denied.direction {
        Way::Ingress => "to",
        Way::Egress => "from",
    };
    let _ = match denied.policies.as_slice() {
        [] => write!(text, "refused on its way {what} {pod}; no policy would refuse it by now"),
        policies => write!(text, "refused on its way {what} {pod}, restricted by {}", policies.join(", ")),
    };
    text
}

fn end(end: &Ending) -> String {
    let Some(ip) = end.address else { return String::new() };
    let at = end.port.map_or(ip.to_string(), |port| SocketAddr::new(ip, port).to_string());
    match &end.pod {
        Some(pod) => format!("{pod} ({at})"),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(prefix: &str, protocol: u8, ports: Option<(u16, u16)>) -> Logged {
        let [source, destination] = ["10.244.1.2", "10.244.2.3"].map(|ip| ip.parse().unwrap());
        Logged { prefix: prefix.to_owned(), packet: Packet { source, destination, protocol, ports } }
    }

    #[test]
    fn policies_are_asked_for_the_very_packet() {
        let asked = question(&logged("in X", 17, Some((40_000, 53))));
        assert_eq!((asked.from.as_str(), asked.to.as_str()), ("10.244.1.2", "10.244.2.3"));
        assert_eq!((asked.port, asked.protocol.as_deref()), (Some(53), Some("udp")));
        let asked = question(&logged("in X", 1, None));
        assert_eq!((asked.port, asked.protocol), (None, None));
    }

    #[test]
    fn a_line_names_both_ends_and_the_policies() {
        let mut packet = denied(&logged("in X", 6, Some((40_000, 80))), None, 3_723_004);
        packet.pod = Some("shop/db".into());
        packet.to.pod = Some("shop/db".into());
        packet.policies = vec!["shop/only-api".into()];
        assert_eq!(
            line(&packet),
            "01:02:03  10.244.1.2:40000 > shop/db (10.244.2.3:80) tcp: refused on its way to shop/db, \
             restricted by shop/only-api"
        );
        let gone = denied(&logged("out X", 1, None), None, 0);
        assert_eq!(gone.direction, Way::Egress);
        assert!(
            line(&gone).ends_with("from a pod that is gone; no policy would refuse it by now"),
            "{}",
            line(&gone)
        );
    }
}
