//! What the kernels of the nodes should hold before it makes sense to connect, and what they do hold, from
//! `/proc/net/ip_vs` (no process is started to read it).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lab::cluster::Cluster;
use lab::probe::Protocol;

use super::question::{Client, Question, Way};

/// Virtual servers with the number of their real servers.
type Table = BTreeMap<(Protocol, SocketAddr), usize>;

/// What a node lacks, in words; `None` when it has all.
pub(super) fn lacking(cluster: &Cluster, number: usize, questions: &[Question]) -> Option<String> {
    let wanted = wanted(number, questions);
    let node = cluster.node(number).ok()?;
    let held = match node.namespace().run(|| std::fs::read_to_string("/proc/thread-self/net/ip_vs")) {
        Ok(Ok(text)) => parse(&text),
        Ok(Err(error)) => return Some(format!("{}: /proc/net/ip_vs: {error}", node.name())),
        Err(error) => return Some(error.to_string()),
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(key, servers)| held.get(key).is_none_or(|count| count < servers))
        .map(|((protocol, to), servers)| {
            let count = held.get(&(*protocol, *to));
            let count = count.map_or("no virtual server".to_owned(), |count| format!("{count}"));
            format!("{protocol} {to} ({count} of {servers} backends)")
        })
        .collect();
    let first = missing.first()?;
    Some(format!(
        "{} lacks {} of {} virtual servers, the first {first}",
        node.name(),
        missing.len(),
        wanted.len()
    ))
}

/// Virtual servers of one node: service addresses on every node, NodePorts where they are asked.
fn wanted(number: usize, questions: &[Question]) -> Table {
    let here = |question: &&Question| match question.way {
        Way::ClusterIp | Way::Hairpin => true,
        Way::NodePort | Way::ExternalIp | Way::LoadBalancerIp => question.client == Client::Outside(number),
        Way::NodePortWithoutBackend => false,
    };
    let row = |question: &Question| ((question.protocol, question.to), question.backends.len());
    questions.iter().filter(here).map(row).collect()
}

/// Reads the kernel's table (net/netfilter/ipvs/ip_vs_ctl.c, `ip_vs_info_seq_show`): addresses in hexadecimal, IPv6
/// ones written out in brackets; lines of real servers begin with an arrow. Lines of another form are left out.
fn parse(text: &str) -> Table {
    let mut table = Table::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("->") => {
                if let Some(servers) = current.and_then(|key| table.get_mut(&key)) {
                    *servers += 1;
                }
            }
            Some(word) => {
                current = protocol(word).zip(words.next().and_then(address));
                if let Some(key) = current {
                    table.insert(key, 0);
                }
            }
            None => {}
        }
    }
    table
}

fn protocol(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| protocol.to_string() == word)
}

fn address(word: &str) -> Option<SocketAddr> {
    let (ip, port) = word.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => IpAddr::V6(ip.parse().ok()?),
        None => IpAddr::V4(u32::from_str_radix(ip, 16).ok()?.into()),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = parse(
            "IP Virtual Server version 1.2.1 (size=4096)\n\
             Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
             TCP  0A600001:0050 rr \n  -> 0AF40102:1F90      Masq    1      0          0         \n\
             TCP  [fd96:0000:0000:0000:0000:0000:0000:0001]:0050 rr persistent 600 FFFFFFFF\n\
             UDP  0A600002:0035 rr \n  -> 0AF40102:14E9      Masq    1      0          0         \n\
             \x20 -> 0AF40203:14E9      Masq    1      0          0         \n",
        );
        let servers = |protocol, to: &str| table.get(&(protocol, to.parse().expect("an address"))).copied();
        assert_eq!(servers(Protocol::Tcp, "10.96.0.1:80"), Some(1));
        assert_eq!(servers(Protocol::Tcp, "[fd96::1]:80"), Some(0));
        assert_eq!(servers(Protocol::Udp, "10.96.0.2:53"), Some(2));
        assert_eq!(table.len(), 3);
    }
}
