//! The agent itself: whether one runs, and what it may do.

use crate::doctor::{Check, Facts};

/// Capabilities the agent needs, by bit, with what for.
const NEEDED: [(u32, &str, &str); 2] =
    [(12, "CAP_NET_ADMIN", "everything it writes into the kernel"), (13, "CAP_NET_RAW", "iptables")];

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

fn capabilities(facts: &Facts) -> Check {
    let Some(bits) = facts.capabilities else {
        return Check::unknown("capabilities", "cannot be read from /proc");
    };
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(bit, ..)| bits & (1 << bit) == 0)
        .map(|(_, name, what)| format!("{name} (for {what})"))
        .collect();
    if missing.is_empty() {
        return Check::fine("capabilities", "CAP_NET_ADMIN and CAP_NET_RAW are there");
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
