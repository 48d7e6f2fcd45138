//! Arbitrary messages, as a peer could send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::as_path::{AsPath, Segment, SegmentKind};
use crate::attributes::{Attributes, NextHop, Origin, UnknownAttribute};
use crate::community::{Community, LargeCommunity};

pub(super) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

fn families() -> impl Strategy<Value = Families> {
    vec(family(), 0..3).prop_map(|families| families.into_iter().collect())
}

pub(super) fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::Ipv4Unicast => (any::<u32>(), 0..=32_u8)
            .prop_map(|(address, length)| {
                IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).unwrap()).trunc()
            })
            .boxed(),
        Family::Ipv6Unicast => (any::<u128>(), 0..=128_u8)
            .prop_map(|(address, length)| {
                IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).unwrap()).trunc()
            })
            .boxed(),
    }
}

fn as_path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![Just(SegmentKind::Sequence), Just(SegmentKind::Set)];
    let asn = prop_oneof![1..70_000_u32, 1..=u32::MAX];
    let segment = (kind, vec(asn, 1..20)).prop_map(|(kind, asns)| Segment { kind, asns });
    vec(segment, 0..4).prop_map(AsPath::new)
}

fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    let link_local = any::<u64>().prop_map(|low| Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(low)));
    let ipv6 = (any::<u128>(), option::of(link_local))
        .prop_map(|(global, link_local)| NextHop { global: IpAddr::V6(global.into()), link_local });
    match family {
        Family::Ipv4Unicast => {
            let ipv4 = any::<u32>().prop_map(|address| IpAddr::V4(address.into()).into());
            prop_oneof![3 => ipv4, 1 => ipv6].boxed()
        }
        Family::Ipv6Unicast => ipv6.boxed(),
    }
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let one = (prop_oneof![Just(16_u8), 19..=31_u8, 33..=255_u8], vec(any::<u8>(), 0..300)).prop_map(
        |(code, mut value)| {
            if code == 16 {
                value.resize((value.len() / 8 + 1) * 8, 7);
            }
            // Passed on, so Partial; extended communities are known to all.
            let flags = if code == 16 { 0xc0 } else { 0xe0 };
            UnknownAttribute { flags, code, value: value.into() }
        },
    );
    vec(one, 0..3).prop_map(|mut all| {
        all.sort_by_key(|attribute| attribute.code);
        all.dedup_by_key(|attribute| attribute.code);
        all
    })
}

fn attributes(family: Family, internal: bool) -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let id = || any::<u32>().prop_map(Ipv4Addr::from);
    let large =
        any::<[u32; 3]>().prop_map(|[global, local1, local2]| LargeCommunity { global, local1, local2 });
    let first = (origin, as_path(), next_hop(family), option::of(any::<u32>()), any::<bool>());
    let second = (option::of((1..=u32::MAX, id())), vec(any::<u32>().prop_map(Community), 0..80));
    let third = (vec(large, 0..30), unknown());
    let inside = (option::of(any::<u32>()), option::of(id()), vec(id(), 0..70));
    (first, second, third, inside).prop_map(move |(first, second, third, inside)| {
        let (origin, as_path, next_hop, med, atomic_aggregate) = first;
        let (aggregator, communities) = second;
        let (large_communities, unknown) = third;
        let (local_pref, originator_id, cluster_list) = if internal { inside } else { (None, None, vec![]) };
        let mut attributes = Attributes {
            origin,
            as_path,
            next_hop,
            med,
            local_pref,
            atomic_aggregate,
            aggregator,
            communities,
            large_communities,
            originator_id,
            cluster_list: cluster_list.into(),
            unknown: unknown.into(),
        };
        attributes.normalize();
        attributes
    })
}

/// An update for a session with an internal peer or an external one.
pub(super) fn update(internal: bool) -> impl Strategy<Value = Update> {
    family().prop_flat_map(move |family| {
        let prefixes = vec(prefix(family), 1..1500);
        prop_oneof![
            4 => (attributes(family, internal), prefixes.clone()).prop_map(move |(attributes, prefixes)| {
                Update::Reach { family, attributes: Arc::new(attributes), prefixes }
            }),
            2 => prefixes.prop_map(move |prefixes| Update::Unreach { family, prefixes }),
            1 => Just(Update::EndOfRib(family)),
        ]
    })
}

pub(super) fn open() -> impl Strategy<Value = Open> {
    let restart = (any::<bool>(), any::<bool>(), 0..4096_u16, families(), families()).prop_map(
        |(restarting, notification, restart_time, families, kept)| RestartCapability {
            restarting,
            notification,
            restart_time,
            families,
            forwarding_kept: kept.and(families),
        },
    );
    let ipv4 =
        any::<bool>().prop_map(|on| on.then_some(Family::Ipv4Unicast).into_iter().collect::<Families>());
    let capabilities = (families(), any::<[bool; 3]>(), ipv4, option::of(restart)).prop_map(
        |(
            families,
            [route_refresh, enhanced_route_refresh, four_octet_asn],
            extended_next_hop,
            graceful_restart,
        )| {
            // One that names no family carries IPv4, and is read back so.
            let implied =
                if families.is_empty() { [Family::Ipv4Unicast].into_iter().collect() } else { families };
            Capabilities {
                families: implied,
                route_refresh,
                enhanced_route_refresh,
                four_octet_asn,
                extended_next_hop,
                graceful_restart,
            }
        },
    );
    let hold_time = prop_oneof![Just(0_u16), 3..=u16::MAX];
    (1..=u32::MAX, hold_time, 1..=u32::MAX, capabilities).prop_map(|(asn, hold_time, id, capabilities)| {
        Open {
            asn: if capabilities.four_octet_asn { asn } else { asn % 65_535 + 1 },
            hold_time,
            router_id: id.into(),
            capabilities,
        }
    })
}
