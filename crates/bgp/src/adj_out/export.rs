//! Whether a selected path is told to a kind of peer, and how it looks then.
//!
//! Decided from the path, its source and the peer's view, in this order: split horizon and reflection (RFC 4456),
//! well-known communities (RFC 1997), the changes every path undergoes (RFC 4271 section 5), the export policy, the
//! next hop. A policy therefore prepends in front of our own number, and has the last word about attributes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;

use crate::attributes::{Attributes, NextHop};
use crate::community::Community;
use crate::interner::Interner;
use crate::policy::compiled::{Compiled, Sets, Subject};
use crate::rib::Path;
use crate::source::{PeerId, Source, SourceKind, Sources};

/// Everything about a peer that what it is told depends on, for one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// Never [`SourceKind::Local`].
    pub(crate) kind: SourceKind,
    /// The next hop "ours": of the session if its family will do, else another address of ours.
    pub(crate) own_address: Option<IpAddr>,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// Neighbour sets of the export policy that the peer is in.
    pub(crate) neighbour: FixedBitSet,
}

/// Why a selected path is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Withheld {
    /// From an internal peer to an internal peer, neither of them a reflector client.
    SplitHorizon,
    /// By a well-known community.
    Community(Community),
    /// By the export policy.
    Policy,
    /// To an external peer, without an export policy (RFC 8212).
    NoPolicy,
    /// We have no address that the peer could use as next hop.
    NoNextHop,
}

/// What export depends on beside path and view.
#[derive(Clone, Copy)]
pub(crate) struct Exporter<'a> {
    pub(crate) asn: u32,
    pub(crate) cluster_id: Ipv4Addr,
    pub(crate) default_local_pref: u32,
    pub(crate) policy: Option<&'a Compiled>,
    pub(crate) external_needs_policy: bool,
    pub(crate) sets: &'a Sets,
    pub(crate) sources: &'a Sources,
}

/// The last path that was prepared: updates bring many prefixes with one set of attributes.
#[derive(Debug, Default)]
pub(crate) struct Prepared(Option<(PeerId, Arc<Attributes>, Arc<Attributes>)>);

impl Exporter<'_> {
    /// The attributes a peer with this view is told for a selected path.
    ///
    /// # Errors
    /// Why it is told nothing.
    pub(crate) fn export(
        &self,
        view: &View,
        prefix: &IpNet,
        path: &Path,
        prepared: &mut Prepared,
        interner: &mut Interner,
    ) -> Result<Arc<Attributes>, Withheld> {
        let (Some(attributes), Some(source)) = (&path.accepted, self.sources.get(path.peer)) else {
            return Err(Withheld::Policy);
        };
        if self.policy.is_none() && self.external_needs_policy && view.kind == SourceKind::External {
            return Err(Withheld::NoPolicy);
        }
        let told = match &prepared.0 {
            Some((peer, from, to)) if *peer == path.peer && Arc::ptr_eq(from, attributes) => to.clone(),
            _ => {
                may_tell(view.kind, source.kind, attributes)?;
                let told = interner.intern(Arc::new(self.prepare(view, source, attributes)));
                prepared.0 = Some((path.peer, attributes.clone(), told.clone()));
                told
            }
        };
        let told = match self.policy {
            None => told,
            Some(policy) => {
                let subject = Subject {
                    prefix,
                    neighbour: &view.neighbour,
                    next_hop: attributes.next_hop.global,
                    from: source.kind.into(),
                    own_asn: self.asn,
                    own_address: view.own_address,
                };
                match policy.apply(self.sets, &subject, &told).ok_or(Withheld::Policy)? {
                    Cow::Borrowed(_) => told,
                    Cow::Owned(changed) => interner.intern(changed),
                }
            }
        };
        let usable = match (prefix, told.next_hop.global) {
            (_, next_hop) if next_hop.is_unspecified() => false,
            (IpNet::V4(_), IpAddr::V6(_)) => view.extended_next_hop,
            (IpNet::V6(_), next_hop) => next_hop.is_ipv6(),
            (IpNet::V4(_), IpAddr::V4(_)) => true,
        };
        if usable { Ok(told) } else { Err(Withheld::NoNextHop) }
    }

    /// The path as it leaves us, policies apart.
    fn prepare(&self, view: &View, source: &Source, attributes: &Attributes) -> Attributes {
        let external = view.kind == SourceKind::External;
        let own_path = source.kind == SourceKind::Local;
        let mut told = Attributes {
            // Nothing is copied that is replaced anyway: this is done for every set of attributes there is.
            as_path: if external {
                attributes.as_path.without_confederation().prepended(self.asn, 1)
            } else {
                attributes.as_path.clone()
            },
            communities: attributes.communities.clone(),
            large_communities: attributes.large_communities.clone(),
            cluster_list: if external { Box::default() } else { attributes.cluster_list.clone() },
            unknown: attributes.unknown.clone(),
            ..*attributes
        };
        // A link-local next hop holds on one link only (RFC 2545 section 3), and we do not know who shares it.
        told.next_hop.link_local = None;
        let ours = || NextHop::from(view.own_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        if told.next_hop.global.is_unspecified() || (external && !own_path) {
            told.next_hop = ours();
        }
        if external {
            told.local_pref = None;
            told.originator_id = None;
            if !own_path {
                // RFC 4271 section 5.1.4: not passed on to another system.
                told.med = None;
            }
        } else {
            told.local_pref.get_or_insert(self.default_local_pref);
            if matches!(source.kind, SourceKind::Client | SourceKind::NonClient) {
                told.originator_id.get_or_insert(source.router_id);
                told.cluster_list = [&[self.cluster_id], &attributes.cluster_list[..]].concat().into();
            }
        }
        told
    }
}

/// Split horizon and communities.
fn may_tell(to: SourceKind, from: SourceKind, attributes: &Attributes) -> Result<(), Withheld> {
    if to == SourceKind::NonClient && from == SourceKind::NonClient {
        return Err(Withheld::SplitHorizon);
    }
    let within = [Community::NO_ADVERTISE];
    let outside = [Community::NO_ADVERTISE, Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED];
    let obeyed: &[Community] = if to == SourceKind::External { &outside } else { &within };
    match obeyed.iter().find(|community| attributes.communities.contains(community)) {
        Some(community) => Err(Withheld::Community(*community)),
        None => Ok(()),
    }
}
