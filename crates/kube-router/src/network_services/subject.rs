//! What the network services controller makes plans for.

use std::fmt;

use linux::row::VirtualServerKey;

/// The subject of one plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One virtual server, whoever of the Services won it.
    VirtualServer(VirtualServerKey),
    /// What the service proxy needs whatever Services exist: link, sets, rules, settings.
    ServiceProxy,
    /// The node's own addresses.
    NodeAddresses,
    /// The pods of this node.
    NodePods,
    /// The hairpin chain and the bridge ports it needs.
    Hairpin,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::VirtualServer(VirtualServerKey::Address { ip, protocol, port }) => {
                write!(f, "virtual server {}/{protocol}", std::net::SocketAddr::new(*ip, *port))
            }
            Subject::VirtualServer(VirtualServerKey::Mark { mark, .. }) => {
                write!(f, "virtual server of mark {mark}")
            }
            Subject::ServiceProxy => f.write_str("service proxy"),
            Subject::NodeAddresses => f.write_str("node addresses"),
            Subject::NodePods => f.write_str("pods of this node"),
            Subject::Hairpin => f.write_str("hairpin"),
        }
    }
}
