//! The rules in force, in the form in which tables use them.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;

use super::routing::Routing;
use crate::adj_out::export::{Exporter, View};
use crate::attributes::Attributes;
use crate::config::Role;
use crate::family::Family;
use crate::interner::Interner;
use crate::negotiated::Negotiated;
use crate::policy::compiled::{Compiled, Sets, Subject};
use crate::rib::acceptance::{Identity, is_martian_prefix};
use crate::rib::best_path::NextHopMetrics;
use crate::rib::{Refusal, Selector};
use crate::source::{SourceKind, Sources};

/// Who we are, the policies, and whom paths come from.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) identity: Identity,
    pub(super) router_id: Ipv4Addr,
    pub(super) routing: Routing,
    pub(super) sets: Sets,
    pub(super) import: Option<Compiled>,
    pub(super) export: Option<Compiled>,
    pub(super) sources: Sources,
    pub(super) metrics: NextHopMetrics,
}

/// What import depends on beside the path; outlives the session while paths are stale.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) kind: SourceKind,
    /// Our end of the session.
    pub(super) local_address: IpAddr,
    /// The session is between link-local addresses.
    pub(super) link_local: bool,
    /// Neighbour sets of the import policy that the peer is in.
    pub(super) member_of: FixedBitSet,
}

impl Rules {
    pub(super) fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Rules {
            identity: Identity { asn, router_id: Some(router_id), ..Identity::default() },
            router_id,
            routing: Routing::default(),
            sets: Sets::default(),
            import: None,
            export: None,
            sources: Sources::new(router_id),
            metrics: NextHopMetrics::new(),
        }
    }

    /// For the choice among paths.
    pub(super) fn selector(&self) -> Selector<'_> {
        Selector {
            sources: &self.sources,
            metrics: &self.metrics,
            multipath: self.routing.multipath,
            default_local_pref: self.routing.default_local_pref,
            compare_med_always: self.routing.compare_med_always,
        }
    }

    /// For what peers are told.
    pub(super) fn exporter(&self) -> Exporter<'_> {
        Exporter {
            asn: self.identity.asn,
            cluster_id: self.identity.cluster_id.unwrap_or(self.router_id),
            default_local_pref: self.routing.default_local_pref,
            policy: self.export.as_ref(),
            external_needs_policy: self.routing.external_needs_policy,
            sets: &self.sets,
            sources: &self.sources,
        }
    }

    /// A peer that came up, as import sees it.
    pub(super) fn neighbour(&self, session: &Negotiated, role: Role) -> Neighbour {
        let member_of =
            self.import.as_ref().map(|policy| policy.membership(&self.sets, session.peer_address));
        Neighbour {
            kind: kind(session, role),
            local_address: session.local_address,
            link_local: is_link_local(session.peer_address),
            member_of: member_of.unwrap_or_default(),
        }
    }

    /// A peer that is up, as export sees it. O(statements).
    pub(super) fn view(&self, session: &Negotiated, role: Role, family: Family) -> View {
        let neighbour =
            self.export.as_ref().map(|policy| policy.membership(&self.sets, session.peer_address));
        let extended_next_hop =
            family == Family::Ipv4Unicast && session.extended_next_hop.contains(Family::Ipv4Unicast);
        View {
            kind: kind(session, role),
            own_address: self.own_address(session.local_address, family, extended_next_hop),
            extended_next_hop,
            neighbour: neighbour.unwrap_or_default(),
        }
    }

    /// The next hop "ours": the session's end if the family allows, else an address of ours in that family.
    fn own_address(&self, local: IpAddr, family: Family, extended_next_hop: bool) -> Option<IpAddr> {
        let is_v4 = family == Family::Ipv4Unicast;
        if local.is_ipv4() == is_v4 {
            return Some(local);
        }
        let other = self.routing.addresses.iter().find(|address| address.is_ipv4() == is_v4).copied();
        other.or_else(|| extended_next_hop.then_some(local))
    }

    /// Why a path with these attributes is refused whatever its prefix.
    pub(super) fn refuses(&self, attributes: &Attributes, neighbour: &Neighbour) -> Option<Refusal> {
        if neighbour.kind == SourceKind::External
            && self.import.is_none()
            && self.routing.external_needs_policy
        {
            return Some(Refusal::NoPolicy);
        }
        self.identity.refuses(attributes, neighbour.local_address, neighbour.link_local)
    }

    /// The attributes to be selected by. `refusal` is the answer of [`Rules::refuses`], which many prefixes share.
    ///
    /// # Errors
    /// Why the path cannot be used.
    pub(super) fn accept(
        &self,
        prefix: &IpNet,
        learned: &Arc<Attributes>,
        refusal: Option<Refusal>,
        neighbour: &Neighbour,
        interner: &mut Interner,
    ) -> Result<Arc<Attributes>, Refusal> {
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if is_martian_prefix(prefix) {
            return Err(Refusal::MartianPrefix);
        }
        let Some(policy) = &self.import else { return Ok(learned.clone()) };
        let subject = Subject {
            prefix,
            neighbour: &neighbour.member_of,
            next_hop: learned.next_hop.global,
            from: neighbour.kind.into(),
            own_asn: self.identity.asn,
            own_address: self.own_address(neighbour.local_address, Family::of(prefix), false),
        };
        match policy.apply(&self.sets, &subject, learned).ok_or(Refusal::Policy)? {
            Cow::Borrowed(_) => Ok(learned.clone()),
            Cow::Owned(changed) => Ok(interner.intern(changed)),
        }
    }
}

fn kind(session: &Negotiated, role: Role) -> SourceKind {
    if session.is_internal() { SourceKind::internal(role) } else { SourceKind::External }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
