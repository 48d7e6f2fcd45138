//! What an UPDATE message says, apart from its form on the wire: one family, one set of attributes, prefixes.

use std::sync::Arc;

use ipnet::IpNet;

use crate::attributes::Attributes;
use crate::family::Family;

/// News about paths, from a peer or for one.
///
/// A message from the wire may come to several of these (withdrawals and announcements, IPv4 and IPv6). One of these
/// may need several messages: the wire cuts at 4,096 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Paths to these prefixes, replacing what the peer said before.
    Reach {
        /// Of every prefix.
        family: Family,
        /// Shared by all of them.
        attributes: Arc<Attributes>,
        /// With host bits zero.
        prefixes: Vec<IpNet>,
    },
    /// No path to these any more.
    Unreach {
        /// Of every prefix.
        family: Family,
        /// With host bits zero.
        prefixes: Vec<IpNet>,
    },
    /// The initial table has been told (RFC 4724 section 2).
    EndOfRib(Family),
}
