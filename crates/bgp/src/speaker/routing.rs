//! How routes are chosen and passed on: the part of a speaker's wish that concerns no session.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::policy::{Policy, PrefixSet, SetName};
use crate::rib::Multipath;

/// LOCAL_PREF of paths that bring none: what every implementation takes.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// The rules. A new value replaces the old; sessions stay, and peers are told the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// What may be used of what peers tell; everything, if not given.
    pub import: Option<Policy>,
    /// What peers are told of what is used; everything, if not given.
    pub export: Option<Policy>,
    /// Without a policy, external peers are not listened to and told nothing (RFC 8212).
    pub external_needs_policy: bool,
    /// The sets policies name.
    pub sets: BTreeMap<SetName, PrefixSet>,
    /// Equally good paths.
    pub multipath: Multipath,
    /// MULTI_EXIT_DISC orders paths of different neighbouring systems, too.
    pub compare_med_always: bool,
    /// LOCAL_PREF of paths that bring none.
    pub default_local_pref: u32,
    /// Our own addresses: refused as next hops, and the first of a family is the next hop "ours" where a session is
    /// of the other family.
    pub addresses: Vec<IpAddr>,
}

impl Default for Routing {
    fn default() -> Self {
        Routing {
            import: None,
            export: None,
            external_needs_policy: true,
            sets: BTreeMap::new(),
            multipath: Multipath::default(),
            compare_med_always: false,
            default_local_pref: DEFAULT_LOCAL_PREF,
            addresses: Vec::new(),
        }
    }
}
