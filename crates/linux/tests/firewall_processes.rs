//! How many programs the firewall lane starts. A binary of its own, because starts are counted for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

mod common;

use std::collections::BTreeMap;

use common::in_netns;
use linux::command;
use linux::firewall::{FirewallLane, FirewallScope, SetsLane};
use linux::iptables::tool::{Flavour, Programs};
use linux::lane::{Change, Lane};
use linux::row::{ChainKey, Family, FilterTable, Key, Member, Position, Row, SetHeader, SetKey, SetKind};
use linux::rule::{Action, Rule};

fn put(key: Key, row: Row) -> Change {
    Change { key, from: None, to: Some(row), after: Vec::new() }
}

/// Applies a stage and says which programs were started for it.
fn started_by(lane: &mut dyn Lane, stage: &[Change]) -> BTreeMap<String, u64> {
    let before = command::started();
    lane.apply(stage).into_iter().for_each(|outcome| outcome.unwrap());
    let mut after = command::started();
    after.iter_mut().for_each(|(program, count)| *count -= before.get(program).unwrap_or(&0));
    after.retain(|_, count| *count > 0);
    after
}

#[test]
fn sets_need_no_process_and_chains_one_for_each_table() {
    in_netns(|| {
        let scope = FirewallScope { sets: vec!["ours".into()], ..FirewallScope::default() };
        let mut sets = SetsLane::new(scope.clone());
        let mut lane = FirewallLane::with_programs(scope, Programs::of(Flavour::Nft).unwrap());
        let set = SetKey { family: Family::V6, name: "ours".into() };
        let header = |max_members| Row::Set(SetHeader { kind: SetKind::HashIp, max_members, timeout: None });
        let member = Key::Member(set.clone().into(), Member::Ip("fd00::1".parse().unwrap()));
        for stage in [
            vec![put(Key::Set(set.clone()), header(10))],
            vec![put(member.clone(), Row::Member)],
            vec![put(Key::Set(set.clone()), header(20))],
            vec![Change { key: member, from: Some(Row::Member), to: None, after: Vec::new() }],
            vec![Change { key: Key::Set(set), from: None, to: None, after: Vec::new() }],
        ] {
            assert_eq!(started_by(&mut sets, &stage), BTreeMap::new(), "{stage:?}");
        }
        let chain =
            |name: &str| ChainKey { family: Family::V4, table: FilterTable::Filter, name: name.into() };
        let chains: Vec<Change> = (0..100)
            .map(|number| put(Key::Chain(chain(&format!("KUBE-POD-FW-{number}"))), Row::Chain([].into())))
            .collect();
        assert_eq!(started_by(&mut lane, &chains), BTreeMap::from([("iptables-nft-restore".into(), 1)]));

        let before = command::started();
        lane.read().unwrap();
        let programs = Programs::of(Flavour::Legacy).unwrap();
        FirewallLane::with_programs(FirewallScope::default(), programs).read().unwrap();
        let reads = |program| {
            command::started().get(program).copied().unwrap_or(0) - before.get(program).unwrap_or(&0)
        };
        assert_eq!((reads("iptables-nft-save"), reads("ip6tables-nft-save")), (1, 1));
        assert_eq!(
            (reads("iptables-legacy-save"), reads("ip6tables-legacy-save")),
            (0, 0),
            "no table is there"
        );

        // A rule in a chain of others is placed by what is there; being there already, nothing is written.
        let jump = Key::ForeignRule(chain("INPUT"), Rule::new([], Action::Jump("KUBE-POD-FW-1".into())));
        let jump = [put(jump, Row::ForeignRule(Position::First(0)))];
        let both = [("iptables-nft-restore".into(), 1), ("iptables-nft-save".into(), 1)];
        assert_eq!(started_by(&mut lane, &jump), BTreeMap::from(both));
        assert_eq!(started_by(&mut lane, &jump), BTreeMap::from([("iptables-nft-save".into(), 1)]));
    });
}
