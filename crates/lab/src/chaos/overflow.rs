//! More notifications than the socket of the agent has room for: some are lost, and with them what others do meanwhile.
//!
//! Decided here: what fills the socket and what is taken away unseen. Changes of an address are told to everybody who
//! listens (the agent's socket filter looks at routes alone) and make the agent read nothing anew by themselves; audits
//! are an hour apart. So what was taken away comes back only because the kernel says that something was lost.

use std::net::IpAddr;

use super::stage::{OFTEN, SELDOM, SOON, Stage, flags};
use super::still::Still;
use super::{Error, Options};
use crate::cluster::eventually;

/// Changes of an address: the socket has 16 MiB, and each takes 768 octets of them or more.
const FLOOD: usize = 40_000;
/// An address for documentation and measurements (RFC 2544) on the loopback link, which disturbs nobody.
const ADDRESS: &str = "198.18.0.1/32 dev lo";
/// Routes of somebody else.
const THEIRS: &str = "metric 500 proto 99";

/// With an agent that reads nothing by itself; afterwards one with the flags of the other drills runs.
pub(super) async fn overflow(stage: &mut Stage, options: &Options) -> Result<u32, Error> {
    stage.cluster.set_agent_flags(1, flags(options, SELDOM))?;
    let seen = unseen(stage).await;
    stage.cluster.set_agent_flags(1, flags(options, OFTEN))?;
    stage.start_agent().await?;
    seen.map(|()| 1)
}

/// Takes a route away while the socket is full. A second way to the pods of node 2 stays, worse than ours, so that no
/// connection is lost with the route.
async fn unseen(stage: &mut Stage) -> Result<(), Error> {
    stage.start_agent().await?;
    let node = stage.cluster.node(2)?;
    let range = node.pod_ranges().iter().find(|range| range.addr().is_ipv4());
    let range = range.ok_or(Error::Object("IPv4 pod range of node-2"))?.to_string();
    let hop = node.addresses().into_iter().find(IpAddr::is_ipv4);
    let hop = hop.ok_or(Error::Object("IPv4 address of node-2"))?;
    stage.tool(&format!("ip route add {range} via {hop} {THEIRS}"))?;
    stage.tool(&format!("ip addr add {ADDRESS}"))?;

    let still = stage.hold().await?;
    let stage: &Stage = stage;
    let before = dropped(stage, &still)?;
    let lines = format!("addr change {ADDRESS}\n").repeat(FLOOD);
    stage.cluster.node(1)?.namespace().ip(&lines)?;
    stage.tool(&format!("ip route del {range} proto 17"))?;
    let after = dropped(stage, &still)?;
    drop(still);
    if after <= before {
        return Err(Error::NoFault(format!("the agent had room for {FLOOD} notifications")));
    }

    let look = || async {
        match stage.tool("ip route show proto 17") {
            Ok(text) if text.contains(&range) => Ok(()),
            Ok(text) => Err(format!("the route to {range}, deleted unseen, is back: {text}")),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(SOON, look).await?;
    stage.tool(&format!("ip addr del {ADDRESS}"))?;
    stage.tool(&format!("ip route del {range} {THEIRS}"))?;
    Ok(())
}

/// Notifications that the kernel had no room for in the agent's subscriptions of rtnetlink, by its own count.
fn dropped(stage: &Stage, agent: &Still) -> Result<u64, Error> {
    let own = agent.sockets();
    let table = stage.tool("cat /proc/net/netlink")?;
    Ok(table.lines().filter_map(|line| drops(line, &own)).sum())
}

/// Of a line of `/proc/net/netlink` (net/netlink/af_netlink.c): address, protocol, port, groups, octets received and
/// sent, dump, references, drops, inode.
fn drops(line: &str, own: &[String]) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [_, protocol, _, groups, _, _, _, _, drops, inode] = columns.as_slice() else { return None };
    let listens = *protocol == "0" && *groups != "00000000";
    if listens && own.iter().any(|socket| socket == inode) { drops.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_the_agents_subscriptions_count() {
        let own = ["77".to_owned()];
        let head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode";
        let line = |protocol: &str, groups: &str, inode: &str| {
            format!(
                "0000000000000000 {protocol}   4294967295 {groups} 0        0        0     2        12       {inode}"
            )
        };
        assert_eq!(drops(head, &own), None);
        assert_eq!(drops(&line("0", "00000551", "77"), &own), Some(12));
        assert_eq!(drops(&line("0", "00000551", "78"), &own), None);
        assert_eq!(drops(&line("0", "00000000", "77"), &own), None);
        assert_eq!(drops(&line("12", "00000040", "77"), &own), None);
    }
}
