//! What the kernels of the nodes should hold before it makes sense to connect, and what they do hold in the words of
//! ipvsadm. (`/proc/net/ip_vs` would cost no process, but leaves rows out where several namespaces have some: the
//! kernel counts those of all when it goes on after a page, and only its own when it looks for where to go on.)

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lab::cluster::Cluster;
use lab::probe::Protocol;

use super::question::{Client, Question, Source, Way};

/// Virtual servers with the number of their real servers.
type Table = BTreeMap<(Protocol, SocketAddr), usize>;

/// What a node lacks, in words; `None` when it has all.
pub(super) fn lacking(cluster: &Cluster, number: usize, questions: &[Question]) -> Option<String> {
    let wanted = wanted(number, questions);
    let node = cluster.node(number).ok()?;
    let held = match cluster.on_node(number, "ipvsadm -Sn") {
        Ok(text) => parse(&text),
        Err(error) => return Some(format!("{}: {error}", node.name())),
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
        Way::NodePort => question.client == Client::Outside(number),
        // Where traffic is to stay local nodes differ; the connections will tell.
        Way::ExternalIp | Way::LoadBalancerIp => question.source != Source::Client,
        Way::NodePortWithoutBackend => false,
    };
    let row = |question: &Question| ((question.protocol, question.to), question.backends.len());
    questions.iter().filter(here).map(row).collect()
}

/// Reads what `ipvsadm -Sn` prints: `-A -t ADDRESS -s rr` for a virtual server, `-a -t ADDRESS -r …` for a real server
/// of it. Lines of another form (firewall marks) are left out.
fn parse(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (verb, protocol, to) = (words.next(), words.next().and_then(protocol), words.next());
        let Some(key) = protocol.zip(to.and_then(|to| to.parse().ok())) else { continue };
        *table.entry(key).or_default() += usize::from(verb == Some("-a"));
    }
    table
}

fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "-t" => Some(Protocol::Tcp),
        "-u" => Some(Protocol::Udp),
        "--sctp-service" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = parse(
            "-A -t 10.96.0.1:80 -s rr\n-a -t 10.96.0.1:80 -r 10.244.1.2:8080 -m -w 1\n\
             -A -t [fd96::1]:80 -s rr -p 600\n-A -f 7 -s rr\n\
             -A -u 10.96.0.2:53 -s rr\n-a -u 10.96.0.2:53 -r 10.244.1.2:5353 -m -w 1\n\
             -a -u 10.96.0.2:53 -r 10.244.2.3:5353 -m -w 1\n-A --sctp-service 10.96.0.3:1 -s rr\n",
        );
        let servers = |protocol, to: &str| table.get(&(protocol, to.parse().expect("an address"))).copied();
        assert_eq!(servers(Protocol::Tcp, "10.96.0.1:80"), Some(1));
        assert_eq!(servers(Protocol::Tcp, "[fd96::1]:80"), Some(0));
        assert_eq!(servers(Protocol::Udp, "10.96.0.2:53"), Some(2));
        assert_eq!(servers(Protocol::Sctp, "10.96.0.3:1"), Some(0));
        assert_eq!(table.len(), 4);
    }
}
