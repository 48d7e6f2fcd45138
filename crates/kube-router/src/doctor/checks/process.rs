//! The agent itself: whether one runs, and what it may do.

use super::settings::{FREE_PORTS, value};
use crate::doctor::wanted::PacketFilter;
use crate::doctor::{Check, Facts};

/// Bit and name of a capability (`include/uapi/linux/capability.h`).
type Capability = (u32, &'static str);
const NET_BIND_SERVICE: Capability = (10, "CAP_NET_BIND_SERVICE");
const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
const NET_RAW: Capability = (13, "CAP_NET_RAW");

/// The first port for everybody, unless a setting says otherwise (`PROT_SOCK`).
const FIRST_FREE_PORT: u16 = 1024;

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    vec![agent(facts), capabilities(facts)]
}

fn agent(facts: &Facts) -> Check {
    match &facts.agent {
        None => Check::unknown(
            "agent",
            "no kube-router answers on this node; what its default flags need is checked",
        ),
        Some(agent) => match (&agent.version, agent.troubles) {
            (None, _) => Check::problem(
                "agent",
                "kube-router has its socket open but does not answer",
                "see its log and /healthz; restart it if it says that it is stuck",
            ),
            (Some(version), 0) => Check::fine("agent", format!("kube-router {version} runs and answers")),
            (Some(version), troubles) => Check::warning(
                "agent",
                format!(
                    "kube-router {version} runs; its status names {troubles} rows or objects it cannot use"
                ),
                "kube-router status problems says which, why, and the remedy of each",
            ),
        },
    }
}

/// What the agent needs, with what for.
fn needed(facts: &Facts) -> Vec<(Capability, String)> {
    let mut needed = vec![(NET_ADMIN, "everything it writes into the kernel".to_owned())];
    if facts.runs.filter == PacketFilter::Iptables {
        needed.push((NET_RAW, "iptables".to_owned()));
    }
    let first_free = value(facts, FREE_PORTS).and_then(|port| port.parse().ok()).unwrap_or(FIRST_FREE_PORT);
    if let Some(port) = facts.runs.bgp_port.filter(|port| *port < first_free) {
        needed.push((NET_BIND_SERVICE, format!("BGP on port {port}")));
    }
    needed
}

fn capabilities(facts: &Facts) -> Check {
    let Some(bits) = facts.capabilities else {
        return Check::unknown("capabilities", "cannot be read from /proc");
    };
    let needed = needed(facts);
    let missing: Vec<String> = needed
        .iter()
        .filter(|((bit, _), _)| bits & (1 << bit) == 0)
        .map(|((_, name), what)| format!("{name} (for {what})"))
        .collect();
    if missing.is_empty() {
        let names: Vec<&str> = needed.iter().map(|((_, name), _)| *name).collect();
        return Check::fine("capabilities", format!("there: {}", names.join(", ")));
    }
    Check::problem(
        "capabilities",
        format!("missing: {}", missing.join(", ")),
        "run it as root; in a pod, set securityContext.privileged or add these under securityContext.capabilities",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::wanted::Wanted;
    use crate::doctor::{Agent, Level};

    #[test]
    fn a_missing_capability_is_named() {
        let with = |bits| capabilities(&Facts { capabilities: Some(bits), ..Facts::default() });
        assert_eq!(with(u64::MAX).level, Level::Fine);
        let check = with(1 << 12);
        assert_eq!(
            (check.level, check.found.as_str()),
            (Level::Problem, "missing: CAP_NET_RAW (for iptables)")
        );
    }

    #[test]
    fn capabilities_depend_on_what_runs() {
        let with = |filter, bgp_port, free: Option<&str>| {
            let runs = Wanted { filter, bgp_port, ..Wanted::default() };
            let mut facts = Facts { capabilities: Some(1 << 12 | 1 << 13), runs, ..Facts::default() };
            facts.settings.insert(FREE_PORTS.into(), free.map(str::to_owned));
            capabilities(&facts).found
        };
        let (both, admin) = ("there: CAP_NET_ADMIN, CAP_NET_RAW", "there: CAP_NET_ADMIN");
        assert_eq!(with(PacketFilter::Iptables, None, None), both);
        assert_eq!(with(PacketFilter::Nftables, None, None), admin);
        let bgp = "missing: CAP_NET_BIND_SERVICE (for BGP on port 179)";
        assert_eq!(with(PacketFilter::Nftables, Some(179), None), bgp);
        assert_eq!(with(PacketFilter::Nftables, Some(179), Some("1024")), bgp);
        assert_eq!(with(PacketFilter::Nftables, Some(179), Some("0")), admin);
        assert_eq!(with(PacketFilter::Nftables, Some(1024), None), admin);
        let raw = Facts {
            capabilities: Some(1 << 12),
            runs: Wanted { filter: PacketFilter::Nftables, ..Wanted::default() },
            ..Facts::default()
        };
        assert_eq!(capabilities(&raw).level, Level::Fine, "raw sockets are iptables' business");
    }

    #[test]
    fn an_agent_is_judged_by_what_it_says() {
        let with = |version: Option<&str>, troubles| {
            let running = Agent { pid: None, version: version.map(str::to_owned), troubles };
            agent(&Facts { agent: Some(running), ..Facts::default() }).level
        };
        assert_eq!(with(Some("v1"), 0), Level::Fine);
        assert_eq!(with(Some("v1"), 2), Level::Warning);
        assert_eq!(with(None, 0), Level::Problem);
        assert_eq!(agent(&Facts::default()).level, Level::Unknown);
    }
}
