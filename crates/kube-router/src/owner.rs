//! Who wants a row: the key a plan was made for.

use std::fmt;

use linux::row::VirtualServerKey;

/// The subject of a plan. Each has its own claims, replaced as a whole when it is planned anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
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

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::VirtualServer(VirtualServerKey::Address { ip, protocol, port }) => {
                write!(f, "virtual server {}/{protocol}", std::net::SocketAddr::new(*ip, *port))
            }
            Owner::VirtualServer(VirtualServerKey::Mark { mark, .. }) => {
                write!(f, "virtual server of mark {mark}")
            }
            Owner::ServiceProxy => f.write_str("service proxy"),
            Owner::NodeAddresses => f.write_str("node addresses"),
            Owner::NodePods => f.write_str("pods of this node"),
            Owner::Hairpin => f.write_str("hairpin"),
        }
    }
}
