//! The API server: whether it is reached, what may be read, this node's object, the clocks.

use super::network::is_here;
use crate::doctor::{Check, Facts, Listed};

/// Seconds by which clocks may differ: certificates and tokens bear minutes, logs are compared by the second.
const CLOCK: u64 = 30;

pub(in crate::doctor) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![server(facts)];
    checks.extend(access(facts));
    checks.extend(node(facts));
    checks.extend(clock(facts));
    checks
}

fn server(facts: &Facts) -> Check {
    let unreached = facts.api.lists.iter().find_map(|(_, listed)| match listed {
        Listed::Unreached(why) => Some(why),
        _ => None,
    });
    match (&facts.api.server, unreached) {
        (None, _) => Check::unknown("api server", "was not asked"),
        (Some(Err(why)), _) => Check::problem(
            "api server",
            format!("there is no usable way to it: {why}"),
            "give --kubeconfig=FILE or --master=URL as the agent has them: kube-router doctor -- --kubeconfig=FILE",
        ),
        (Some(Ok(server)), Some(why)) => Check::problem(
            "api server",
            format!("{server} is not reached: {why}"),
            "it must be an address that works without a service proxy (the control plane's own, not the ClusterIP); see \
             firewalls between here and there",
        ),
        (Some(Ok(server)), None) => Check::fine("api server", format!("{server} answers")),
    }
}

fn access(facts: &Facts) -> Option<Check> {
    let refused: Vec<(&str, &u16, &String)> = facts
        .api
        .lists
        .iter()
        .filter_map(|(kind, listed)| match listed {
            Listed::No(code, reason) => Some((*kind, code, reason)),
            _ => None,
        })
        .collect();
    let read: Vec<&str> =
        facts.api.lists.iter().filter(|(_, listed)| *listed == Listed::Yes).map(|(kind, _)| *kind).collect();
    let Some((_, code, reason)) = refused.first() else {
        return (!read.is_empty()).then(|| Check::fine("access", format!("may list {}", read.join(", "))));
    };
    let kinds = refused.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>().join(", ");
    let fix = match code {
        401 => "the token or certificate is not valid (any more): write a new kubeconfig",
        403 => {
            "grant list and watch of these kinds: daemonset/rbac.yaml has the ClusterRole and its ClusterRoleBinding"
        }
        _ => "see the API server's log",
    };
    Some(Check::problem("access", format!("may not list {kinds}: {code} {reason}"), fix))
}

fn node(facts: &Facts) -> Option<Check> {
    let listed = facts.api.lists.iter().any(|(kind, listed)| *kind == "Node" && *listed == Listed::Yes);
    let name = &facts.api.node_name;
    if !listed {
        return None;
    }
    let Some(node) = &facts.api.node else {
        return Some(Check::problem(
            "node",
            format!("there is no Node named {name:?}"),
            "--hostname-override=NAME (or NODE_NAME in a pod) must be the name kubectl get nodes shows",
        ));
    };
    let here = node.addresses.iter().any(|address| is_here(facts, address));
    let shown = node.addresses.join(", ");
    Some(if here {
        Check::fine("node", format!("{name} ({shown})"))
    } else {
        Check::problem(
            "node",
            format!("none of the addresses of Node {name} ({shown}) is on this node"),
            "is it another node's name? Else correct --node-ip of the kubelet, and run in the host's network",
        )
    })
}

fn clock(facts: &Facts) -> Option<Check> {
    let ahead = facts.api.clock_ahead?;
    let found = match ahead {
        0 => "as the API server's".to_owned(),
        ahead if ahead > 0 => format!("{ahead} s behind the API server's"),
        ahead => format!("{} s ahead of the API server's", ahead.unsigned_abs()),
    };
    Some(if ahead.unsigned_abs() <= CLOCK {
        Check::fine("clock", found)
    } else {
        Check::warning("clock", found, "run a time service (chrony, systemd-timesyncd) on both")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Api, Level, NodeSeen};

    fn facts(lists: Vec<(&'static str, Listed)>) -> Facts {
        let server = Some(Ok("https://192.0.2.1:6443".to_owned()));
        Facts { api: Api { server, lists, node_name: "n1".into(), ..Api::default() }, ..Facts::default() }
    }

    #[test]
    fn refusals_name_the_kinds_and_differ_by_cause() {
        let no = |code| Listed::No(code, "no".into());
        let check =
            access(&facts(vec![("Pod", no(403)), ("Service", no(403)), ("Node", Listed::Yes)])).unwrap();
        assert_eq!(
            (check.level, check.found.as_str()),
            (Level::Problem, "may not list Pod, Service: 403 no")
        );
        assert!(check.fix.unwrap().starts_with("grant list and watch of these kinds: daemonset/rbac.yaml"));
        assert!(access(&facts(vec![("Pod", no(401))])).unwrap().fix.unwrap().contains("token"));
        assert_eq!(access(&facts(vec![("Pod", Listed::Yes)])).unwrap().level, Level::Fine);
    }

    #[test]
    fn a_server_that_is_away_is_the_servers_problem_alone() {
        let away = facts(vec![("Pod", Listed::Unreached("refused".into()))]);
        assert_eq!(server(&away).level, Level::Problem);
        assert_eq!((access(&away), node(&away), clock(&away)), (None, None, None));
    }

    #[test]
    fn the_node_must_be_this_one() {
        let mut facts = facts(vec![("Node", Listed::Yes)]);
        assert!(node(&facts).unwrap().found.contains("no Node named \"n1\""));
        facts.api.node = Some(NodeSeen { addresses: vec!["192.0.2.7".into()], ..NodeSeen::default() });
        assert_eq!(node(&facts).unwrap().level, Level::Problem);
        facts.addresses = vec!["192.0.2.7/24".parse().unwrap()];
        assert_eq!(node(&facts).unwrap().level, Level::Fine);
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let with = |ahead| {
            let mut facts = facts(vec![]);
            facts.api.clock_ahead = Some(ahead);
            clock(&facts).unwrap()
        };
        assert_eq!((with(30).level, with(-31).level), (Level::Fine, Level::Warning));
        assert_eq!(with(-31).found, "31 s ahead of the API server's");
    }
}
