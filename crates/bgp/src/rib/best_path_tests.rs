//! The decision process by table: two or more paths in, standings out, whatever the order.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::as_path::AsPath;
use crate::attributes::Origin;
use crate::source::{PeerId, Source};

/// Peers 1 and 2 are external, 3 and 4 internal, 0 is this speaker. Router ids fall, addresses rise with the number,
/// but for 5 and 6, which share a router id.
fn sources() -> Sources {
    let mut sources = Sources::new(Ipv4Addr::new(10, 0, 0, 100));
    for (number, kind, id) in [
        (1, SourceKind::External, 60),
        (2, SourceKind::External, 50),
        (3, SourceKind::NonClient, 40),
        (4, SourceKind::Client, 30),
        (5, SourceKind::External, 70),
        (6, SourceKind::External, 70),
    ] {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, number));
        let source = Source { kind, router_id: Ipv4Addr::new(10, 0, 0, id), address };
        sources.set(PeerId(number.into()), source);
    }
    sources
}

fn next_hop(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))
}

/// A path of the peer, with AS path `65001` and what `change` does.
fn path(peer: u32, change: impl FnOnce(&mut Attributes)) -> Path {
    let mut attributes = Attributes {
        as_path: AsPath::sequence(if peer == 0 { vec![] } else { vec![65_001] }),
        ..Attributes::local(next_hop(peer as u8))
    };
    change(&mut attributes);
    let attributes = Arc::new(attributes);
    Path {
        learned: attributes.clone(),
        accepted: Some(attributes),
        peer: PeerId(peer),
        standing: Standing::Waiting,
    }
}

struct Case {
    metrics: NextHopMetrics,
    multipath: Multipath,
    compare_med_always: bool,
}

const PLAIN: fn() -> Case = || Case {
    metrics: NextHopMetrics::new(),
    multipath: Multipath { paths: 1, relaxed: false },
    compare_med_always: false,
};

impl Case {
    /// Standings by peer, the same for every order of the paths.
    fn standings(&self, paths: Vec<Path>) -> Vec<(u32, Standing)> {
        let sources = sources();
        let selector = Selector {
            sources: &sources,
            metrics: &self.metrics,
            multipath: self.multipath,
            default_local_pref: 100,
            compare_med_always: self.compare_med_always,
        };
        let mut answers = orders(paths).into_iter().map(|mut paths| {
            selector.select(&mut paths);
            let best = paths.iter().position(|path| path.standing == Standing::Best);
            assert!(matches!(best, None | Some(0)), "the best one stands first");
            let mut standings: Vec<_> = paths.iter().map(|path| (path.peer.0, path.standing)).collect();
            standings.sort_unstable();
            standings
        });
        let first = answers.next().unwrap();
        assert!(answers.all(|answer| answer == first), "depends on the order");
        first
    }
}

fn orders(paths: Vec<Path>) -> Vec<Vec<Path>> {
    if paths.len() < 2 {
        return vec![paths];
    }
    (0..paths.len())
        .flat_map(|first| {
            let mut rest = paths.clone();
            let first = rest.remove(first);
            orders(rest).into_iter().map(move |mut rest| {
                rest.insert(0, first.clone());
                rest
            })
        })
        .collect()
}

fn lost(step: Step) -> Standing {
    Standing::Lost(step)
}

#[test]
fn each_step_decides_before_the_next() {
    // In every row the winner would lose in each later step that can be had.
    let table: [(Step, Path, Path); 9] = [
        (
            Step::LocalOrigin,
            path(0, |a| {
                a.local_pref = Some(1);
                a.as_path = AsPath::sequence([1, 2, 3]);
            }),
            path(1, |_| {}),
        ),
        (
            Step::LocalPreference,
            path(3, |a| {
                a.local_pref = Some(101);
                a.as_path = AsPath::sequence([1, 2, 3]);
            }),
            path(1, |_| {}),
        ),
        (
            Step::AsPathLength,
            path(3, |a| {
                a.as_path = AsPath::sequence([7]);
                a.origin = Origin::Incomplete;
            }),
            path(1, |a| a.as_path = AsPath::sequence([7, 7])),
        ),
        (
            Step::Origin,
            path(3, |a| {
                a.origin = Origin::Egp;
                a.med = Some(9);
            }),
            path(1, |a| a.origin = Origin::Incomplete),
        ),
        (Step::Med, path(3, |a| a.med = Some(1)), path(1, |a| a.med = Some(2))),
        (Step::External, path(1, |_| {}), path(4, |_| {})),
        (Step::RouterId, path(2, |_| {}), path(1, |_| {})),
        (
            Step::ClusterListLength,
            path(4, |a| {
                a.originator_id = Some(Ipv4Addr::new(9, 9, 9, 9));
                a.cluster_list = [Ipv4Addr::new(1, 1, 1, 1)].into();
            }),
            path(3, |a| {
                a.originator_id = Some(Ipv4Addr::new(9, 9, 9, 9));
                a.cluster_list = [Ipv4Addr::new(1, 1, 1, 1); 2].into();
            }),
        ),
        (Step::PeerAddress, path(5, |_| {}), path(6, |_| {})),
    ];
    for (step, winner, loser) in table {
        let mut expected = vec![(winner.peer.0, Standing::Best), (loser.peer.0, lost(step))];
        expected.sort_unstable();
        assert_eq!(PLAIN().standings(vec![winner, loser]), expected, "{step:?}");
    }
}

#[test]
fn metric_of_the_next_hop() {
    let metrics = NextHopMetrics::from([(next_hop(1), Some(5)), (next_hop(2), Some(9))]);
    let case = Case { metrics, ..PLAIN() };
    assert_eq!(
        case.standings(vec![path(1, |_| {}), path(2, |_| {})]),
        [(1, Standing::Best), (2, lost(Step::NextHopMetric))]
    );
    let case = Case { metrics: NextHopMetrics::from([(next_hop(2), None)]), ..PLAIN() };
    assert_eq!(
        case.standings(vec![path(1, |_| {}), path(2, |_| {})]),
        [(1, Standing::Best), (2, Standing::Unreachable)]
    );
    assert_eq!(case.standings(vec![path(2, |_| {})]), [(2, Standing::Unreachable)]);
}

/// The textbook case: pairwise comparison would go round in a circle.
#[test]
fn med_counts_within_one_neighbour_only() {
    let through = |peer, system, med| {
        path(peer, |a| {
            a.as_path = AsPath::sequence([system]);
            a.med = Some(med);
        })
    };
    let paths = || vec![through(1, 10, 5), through(2, 10, 9), through(3, 20, 7)];
    let expected = [(1, Standing::Best), (2, lost(Step::Med)), (3, lost(Step::External))];
    assert_eq!(PLAIN().standings(paths()), expected);
    let case = Case { compare_med_always: true, ..PLAIN() };
    let expected = [(1, Standing::Best), (2, lost(Step::Med)), (3, lost(Step::Med))];
    assert_eq!(case.standings(paths()), expected);
    // None is the least.
    let without = path(1, |a| a.as_path = AsPath::sequence([10]));
    let expected = [(1, Standing::Best), (2, lost(Step::Med))];
    assert_eq!(PLAIN().standings(vec![without, through(2, 10, 1)]), expected);
}

#[test]
fn refused_paths_are_not_in_the_race() {
    let mut refused = path(0, |a| a.local_pref = Some(1000));
    refused.accepted = None;
    refused.standing = Standing::Refused(Refusal::Policy);
    assert_eq!(
        PLAIN().standings(vec![refused.clone(), path(1, |_| {})]),
        [(0, Standing::Refused(Refusal::Policy)), (1, Standing::Best)]
    );
    assert_eq!(PLAIN().standings(vec![refused]), [(0, Standing::Refused(Refusal::Policy))]);
}

#[test]
fn several_paths_of_one_worth() {
    let case = |paths, relaxed| Case { multipath: Multipath { paths, relaxed }, ..PLAIN() };
    let elsewhere = || path(6, |a| a.as_path = AsPath::sequence([65_009]));
    let paths = || vec![path(1, |_| {}), path(2, |_| {}), path(5, |_| {}), elsewhere()];
    assert_eq!(
        case(8, false).standings(paths()),
        [(1, Standing::Multipath), (2, Standing::Best), (5, Standing::Multipath), (6, lost(Step::RouterId))]
    );
    assert_eq!(
        case(8, true).standings(paths()),
        [(1, Standing::Multipath), (2, Standing::Best), (5, Standing::Multipath), (6, Standing::Multipath)]
    );
    assert_eq!(
        case(2, true).standings(paths()),
        [(1, Standing::Multipath), (2, Standing::Best), (5, lost(Step::RouterId)), (6, lost(Step::RouterId))]
    );
    // Two through one router are one, and leave their room to others.
    let again = || path(5, |a| a.next_hop.global = next_hop(2));
    assert_eq!(
        case(2, true).standings(vec![path(1, |_| {}), path(2, |_| {}), again()]),
        [(1, Standing::Multipath), (2, Standing::Best), (5, lost(Step::RouterId))]
    );
    assert_eq!(
        case(2, true).standings(vec![path(2, |_| {}), again(), elsewhere()]),
        [(2, Standing::Best), (5, lost(Step::RouterId)), (6, Standing::Multipath)]
    );
    // Internal paths are not used beside external ones.
    assert_eq!(
        case(8, true).standings(vec![path(1, |_| {}), path(3, |_| {})]),
        [(1, Standing::Best), (3, lost(Step::External))]
    );
}
