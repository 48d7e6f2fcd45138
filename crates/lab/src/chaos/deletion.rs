//! What others take away or change by hand. Until it is back, connections may fail or pass by that deletion alone, so these
//! are held to coming back.

use std::time::{Duration, Instant};

use super::Error;
use super::report::Outcome;
use super::stage::{PORT, SOON, Seen, Stage};
use crate::cluster::eventually;
use crate::node::CONFLIST;

/// An object of node 1, how it is taken away, and where it is seen again.
struct Deletion {
    what: &'static str,
    /// One after the other.
    lines: Vec<String>,
    /// Whether the agent stands still meanwhile: it would put back what the next line needs gone.
    still: bool,
    look: String,
    sign: String,
}

/// Takes away one kind of object after the other, of those that are `wanted` by their name.
pub(super) async fn all(
    stage: &mut Stage,
    wanted: &dyn Fn(&str) -> bool,
    progress: &dyn Fn(&str),
) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    for deletion in deletions(stage)?.into_iter().filter(|deletion| wanted(deletion.what)) {
        progress(deletion.what);
        let probes = stage.ask();
        let back = back(stage, &deletion).await;
        let Seen { asked, lost, leaked, .. } = probes.stop().await;
        let (back, said) = match back {
            Ok(back) => (Some(back), None),
            Err(error) => (None, Some(error.to_string())),
        };
        outcomes.push(Outcome { what: deletion.what.to_owned(), times: 1, asked, lost, leaked, back, said });
    }
    stage.settled().await?;
    Ok(outcomes)
}

async fn back(stage: &mut Stage, deletion: &Deletion) -> Result<Duration, Error> {
    let there = |text: &str| text.contains(&deletion.sign);
    let before = stage.tool(&deletion.look)?;
    if !there(&before) {
        return Err(Error::NoFault(format!("`{}` is not there: {before}", deletion.sign)));
    }
    take_away(stage, deletion).await?;
    let gone = Instant::now();
    let stage: &Stage = stage;
    let look = || async {
        match stage.tool(&deletion.look) {
            Ok(text) if there(&text) => Ok(()),
            Ok(text) => Err(format!("{} is back: {text}", deletion.what)),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(SOON, look).await?;
    Ok(gone.elapsed())
}

async fn take_away(stage: &mut Stage, deletion: &Deletion) -> Result<(), Error> {
    let _still = if deletion.still { Some(stage.hold().await?) } else { None };
    let stage: &Stage = stage;
    for line in &deletion.lines {
        // The kernel lets go of a set some time after the rule that looked into it.
        let take = || async { stage.tool(line).map(drop).map_err(|error| error.to_string()) };
        eventually(SOON, take).await?;
    }
    Ok(())
}

/// What this cluster has: no tunnels, since its nodes share a subnet, and no nftables.
fn deletions(stage: &Stage) -> Result<Vec<Deletion>, Error> {
    let mut all = of_services(stage);
    let range = |number: usize| -> Result<String, Error> {
        let first = stage.cluster.node(number)?.pod_ranges().first().map(ToString::to_string);
        first.ok_or(Error::Object("pod range of a node"))
    };
    all.extend(of_routing(&range(1)?, &range(2)?));
    all.extend(of_rules(&range(2)?));
    Ok(all)
}

/// What the service proxy alone has.
fn of_services(stage: &Stage) -> Vec<Deletion> {
    let Some(vip) = stage.vips.first() else { return Vec::new() };
    let Some(pod) = stage.web.iter().find(|ip| ip.is_ipv4()) else { return Vec::new() };
    let (dummy, servers) = ("ip addr show dev kube-dummy-if", "ipvsadm -Sn");
    let server = format!("-A -t {vip}:80");
    vec![
        deletion(
            "a service's address",
            &format!("ip addr del {vip}/32 dev kube-dummy-if"),
            dummy,
            &vip.to_string(),
        ),
        deletion("kube-dummy-if", "ip link del kube-dummy-if", "ip addr show", &format!("{vip}/32")),
        deletion(
            "a real server",
            &format!("ipvsadm -d -t {vip}:80 -r {pod}:{PORT}"),
            servers,
            &format!("-a -t {vip}:80 -r {pod}:{PORT}"),
        ),
        deletion("a virtual server", &format!("ipvsadm -D -t {vip}:80"), servers, &server),
        deletion("all virtual servers", "ipvsadm -C", servers, &server),
    ]
}

/// What pod routing has, with the pod ranges of this node and of the other.
fn of_routing(own: &str, other: &str) -> Vec<Deletion> {
    let in_file = format!("\"{own}\"");
    vec![
        deletion(
            "a route to another node's pods",
            &format!("ip route del {other}"),
            "ip route show proto 17",
            other,
        ),
        deletion(
            "the rule for the overlay's table",
            &format!("ip rule del from {own} lookup 77"),
            "ip rule show",
            &format!("from {own} lookup"),
        ),
        deletion(
            "the MTU of kube-bridge",
            "ip link set dev kube-bridge mtu 1400",
            "ip link show dev kube-bridge",
            "mtu 1500",
        ),
        deletion(
            "a setting of the kernel",
            "sysctl -q -w net.ipv4.ip_forward=0",
            "sysctl -n net.ipv4.ip_forward",
            "1",
        ),
        deletion(
            "this node's range in the CNI file",
            &format!("sed -i s,{own},192.0.2.0/24, {CONFLIST}"),
            &format!("cat {CONFLIST}"),
            &in_file,
        ),
    ]
}

/// What the packet filter has, with a member of the set.
fn of_rules(member: &str) -> Vec<Deletion> {
    let set = "ipset list kube-router-pod-subnets";
    vec![
        deletion("members of a set", "ipset flush kube-router-pod-subnets", set, member),
        at_once("a whole set", &["iptables -t nat -F", "ipset destroy kube-router-pod-subnets"], set, member),
        deletion("our jumps", "iptables -F FORWARD", "iptables -S FORWARD", "KUBE-ROUTER-FORWARD"),
        deletion(
            "rules of a chain",
            "iptables -F KUBE-ROUTER-FORWARD",
            "iptables -S KUBE-ROUTER-FORWARD",
            "-A KUBE-ROUTER-FORWARD",
        ),
        at_once(
            "a whole chain",
            &["iptables -F FORWARD", "iptables -F KUBE-ROUTER-FORWARD", "iptables -X KUBE-ROUTER-FORWARD"],
            "iptables -S",
            "-j KUBE-ROUTER-FORWARD",
        ),
        deletion(
            "every rule of a table",
            "iptables -t nat -F",
            "iptables -t nat -S POSTROUTING",
            "kube-router-pod-subnets",
        ),
    ]
}

fn deletion(what: &'static str, line: &str, look: &str, sign: &str) -> Deletion {
    let (look, sign) = (look.to_owned(), sign.to_owned());
    Deletion { what, lines: vec![line.to_owned()], still: false, look, sign }
}

/// By several lines, between which nothing is healed.
fn at_once(what: &'static str, lines: &[&str], look: &str, sign: &str) -> Deletion {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Deletion { lines, still: true, ..deletion(what, "", look, sign) }
}
