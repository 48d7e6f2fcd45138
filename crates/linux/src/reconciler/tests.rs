//! The reconciler against a kernel that is as picky as the real one about order, and as unreliable.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::lane::{Change, Lane, ReadError, run_batch};
use crate::row::*;
use crate::rule::{Action, Direction, Match, Rule};

/// Keeps rows in maps and refuses what a kernel would: contents without container, a rule without its set, a set that
/// rules still use, and whatever the test wants refused.
#[derive(Default)]
struct PickyKernel {
    rows: BTreeMap<Key, Row>,
    refuse: BTreeSet<Key>,
    order_violations: Vec<String>,
}

impl PickyKernel {
    fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        if self.refuse.contains(&change.key) {
            return Err(Refusal::new("refused by the test"));
        }
        match &change.to {
            Some(row) => {
                for need in row.stands_on(&change.key) {
                    if !self.rows.contains_key(&need) {
                        self.order_violations.push(format!("{:?} before {need:?}", change.key));
                    }
                }
                self.rows.insert(change.key.clone(), row.clone());
            }
            None => {
                let users = self.rows.iter().filter(|(key, row)| {
                    key.container().as_ref() != Some(&change.key) && row.stands_on(key).contains(&change.key)
                });
                let users: Vec<_> = users.map(|(key, _)| key.clone()).collect();
                if !users.is_empty() {
                    self.order_violations.push(format!("{:?} removed under {users:?}", change.key));
                }
                self.rows.remove(&change.key);
                self.rows.retain(|key, _| key.container().as_ref() != Some(&change.key));
            }
        }
        Ok(())
    }
}

struct LaneOf<'a>(LaneName, &'a mut PickyKernel);

impl Lane for LaneOf<'_> {
    fn read(&mut self) -> Result<Vec<(Key, Row)>, ReadError> {
        let rows = self.1.rows.iter().filter(|(key, _)| key.lane() == self.0);
        Ok(rows.map(|(key, row)| (key.clone(), row.clone())).collect())
    }

    fn apply(&mut self, stage: &[Change]) -> Vec<Result<(), Refusal>> {
        stage.iter().map(|change| self.1.change(change)).collect()
    }
}

fn run_until_settled(reconciler: &mut Reconciler<u8>, kernel: &mut PickyKernel, now: &mut Instant) {
    for _ in 0..200 {
        let mut worked = false;
        for lane in LaneName::ALL {
            match reconciler.next_job(lane, *now) {
                Some(Job::Read) => {
                    let rows = LaneOf(lane, kernel).read().unwrap();
                    reconciler.was_read(lane, rows, |_, _| true);
                    worked = true;
                }
                Some(Job::Apply(stages)) => {
                    let outcomes = run_batch(&mut LaneOf(lane, kernel), stages);
                    reconciler.applied(lane, outcomes, *now);
                    worked = true;
                }
                None => {}
            }
        }
        if !worked {
            match reconciler.next_deadline() {
                Some(at) if at <= *now + Duration::from_secs(2) => *now = at,
                _ => return,
            }
        }
    }
    panic!("does not settle: {reconciler:?}");
}

fn server(port: u16) -> VirtualServerKey {
    VirtualServerKey::Address { ip: vip(), protocol: Protocol::Tcp, port }
}

fn vip() -> IpAddr {
    IpAddr::from([10, 96, 0, 1])
}

fn virtual_server(port: u16, scheduler: Scheduler) -> Claim {
    let row = VirtualServer { scheduler, scheduler_flags: 0, persistence: None };
    Claim::new(Key::VirtualServer(server(port)), Row::VirtualServer(row.into()))
}

fn real_server(port: u16, last: u8) -> Claim {
    let row = RealServer { weight: 1, forwarding: Forwarding::Masquerade };
    Claim::new(Key::RealServer(server(port), IpAddr::from([10, 244, 0, last]), 80), Row::RealServer(row))
}

fn link() -> Claim {
    let row = Link { kind: LinkKind::Dummy, up: true, mtu: None };
    Claim::new(Key::Link("kube-dummy-if".into()), Row::Link(Box::new(row)))
}

fn address(port: u16) -> Claim {
    let key = Key::Address { link: "kube-dummy-if".into(), net: vip().into() };
    Claim::new(key, Row::Address { scope: Scope::Link }).after([Key::VirtualServer(server(port))])
}

fn set(name: &str) -> Claim {
    let header = SetHeader { kind: SetKind::HashIp, max_members: 65536, timeout: None };
    Claim::new(Key::Set(SetKey { family: Family::V4, name: name.into() }), Row::Set(header))
}

fn member(name: &str, last: u8) -> Claim {
    let key = SetKey { family: Family::V4, name: name.into() };
    Claim::new(Key::Member(key.into(), Member::Ip(IpAddr::from([10, 0, 0, last]))), Row::Member)
}

fn chain(name: &str, sets: &[&str]) -> Claim {
    let rules: Vec<Rule> = sets
        .iter()
        .map(|set| {
            let condition =
                Match::Set { name: (*set).into(), directions: vec![Direction::Source], not: false };
            Rule::new([condition], Action::Accept)
        })
        .collect();
    let key = ChainKey { family: Family::V4, table: FilterTable::Filter, name: name.into() };
    Claim::new(Key::Chain(key), Row::Chain(Arc::from(rules)))
}

/// Everything one owner may want in the property test, by a number.
fn claims_of(pick: u16) -> Vec<Claim> {
    let mut claims = vec![link(), set("a")];
    let has = |bit: u16| pick & (1 << bit) != 0;
    for port in [80, 443] {
        if has(port % 7) {
            let scheduler = if has(9) { Scheduler::SourceHash } else { Scheduler::RoundRobin };
            claims.push(virtual_server(port, scheduler));
            claims.push(address(port));
            claims.extend((0..4).filter(|n| has(u16::from(*n) + 10)).map(|n| real_server(port, n)));
        }
    }
    if has(0) {
        claims.push(set("b"));
        claims.push(chain("KUBE-X", &["a", "b"]));
        claims.extend((0..3).filter(|n| has(u16::from(*n) + 12)).map(|n| member("b", n)));
    } else if has(1) {
        claims.push(chain("KUBE-Y", &["a"]));
    }
    claims
}

fn desired_of(owners: &BTreeMap<u8, Vec<Claim>>) -> BTreeMap<Key, Row> {
    owners.values().flatten().map(|claim| (claim.key.clone(), claim.row.clone())).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u16),
    Drop(u8),
    Foreign(u16),
    Audit,
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..3, any::<u16>()).prop_map(|(owner, pick)| Step::Set(owner, pick & !(1 << 9))),
        1 => (0u8..3).prop_map(Step::Drop),
        1 => any::<u16>().prop_map(Step::Foreign),
        1 => Just(Step::Audit),
        2 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    /// Any order of wishes, foreign deletions and audits ends in exactly what is wanted, and never breaks an order the
    /// kernel insists on.
    #[test]
    fn ends_in_what_is_wanted(steps in steps()) {
        let (mut reconciler, mut kernel, mut now) = (Reconciler::new(), PickyKernel::default(), Instant::now());
        let mut owners: BTreeMap<u8, Vec<Claim>> = BTreeMap::new();
        reconciler.allow_removals();
        for step in steps {
            match step {
                Step::Set(owner, pick) => {
                    owners.insert(owner, claims_of(pick));
                    reconciler.set(&owner, claims_of(pick));
                }
                Step::Drop(owner) => {
                    owners.remove(&owner);
                    reconciler.set(&owner, Vec::new());
                }
                Step::Foreign(pick) => {
                    // somebody deletes a leaf; containers take their contents along
                    run_until_settled(&mut reconciler, &mut kernel, &mut now);
                    let victim = kernel.rows.keys().nth(usize::from(pick) % kernel.rows.len().max(1)).cloned();
                    if let Some(victim) = victim {
                        kernel.rows.retain(|key, _| *key != victim && key.container().as_ref() != Some(&victim));
                        kernel.rows.retain(|key, row| !row.stands_on(key).contains(&victim));
                        LaneName::ALL.iter().for_each(|lane| reconciler.request_read(*lane));
                        run_until_settled(&mut reconciler, &mut kernel, &mut now);
                    }
                }
                Step::Audit => LaneName::ALL.iter().for_each(|lane| reconciler.request_read(*lane)),
                Step::Settle => run_until_settled(&mut reconciler, &mut kernel, &mut now),
            }
        }
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
        prop_assert_eq!(&kernel.rows, &desired_of(&owners));
        prop_assert!(kernel.order_violations.is_empty(), "{:?}", kernel.order_violations);
        for (table, count) in reconciler.counts() {
            let here = kernel.rows.keys().filter(|key| key.table() == table).count();
            prop_assert_eq!((count.desired, count.actual, count.refused), (here, here, 0));
        }
    }
}

#[test]
fn a_refused_row_holds_back_only_what_stands_on_it() {
    let (mut reconciler, mut kernel, mut now) = (Reconciler::new(), PickyKernel::default(), Instant::now());
    kernel.refuse.insert(virtual_server(80, Scheduler::Maglev).key);
    reconciler.set(&1, vec![link(), virtual_server(80, Scheduler::Maglev), real_server(80, 1), address(80)]);
    reconciler.set(&2, vec![virtual_server(443, Scheduler::RoundRobin), real_server(443, 1)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.contains_key(&real_server(443, 1).key));
    assert!(!kernel.rows.contains_key(&address(80).key), "an address must not attract what nobody answers");
    assert_eq!(reconciler.refusals().count(), 1);
    let notices = reconciler.take_notices();
    assert_eq!(notices.len(), 1, "one refusal, told once: {notices:?}");
    assert_eq!(notices[0].owners, [1]);

    // Another port of the same address is enough for the address.
    reconciler.set(&2, vec![virtual_server(443, Scheduler::RoundRobin), address(443)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.contains_key(&address(80).key));

    kernel.refuse.clear();
    now += RETRY_LONGEST;
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.contains_key(&real_server(80, 1).key), "what waited for it follows");
    assert_eq!(reconciler.refusals().count(), 0);
}

#[test]
fn an_address_goes_before_its_virtual_server() {
    let (mut reconciler, mut kernel, mut now) = (Reconciler::new(), PickyKernel::default(), Instant::now());
    reconciler.allow_removals();
    reconciler.set(&0, vec![link()]);
    reconciler.set(&1, vec![virtual_server(80, Scheduler::RoundRobin), real_server(80, 1), address(80)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    reconciler.set(&1, Vec::new());
    assert!(reconciler.next_job(LaneName::Ipvs, now).is_none(), "the virtual server waits for the address");
    let Some(Job::Apply(stages)) = reconciler.next_job(LaneName::Route, now) else { panic!("no route job") };
    let outcomes = run_batch(&mut LaneOf(LaneName::Route, &mut kernel), stages);
    reconciler.applied(LaneName::Route, outcomes, now);
    assert!(matches!(reconciler.next_job(LaneName::Ipvs, now), Some(Job::Apply(_))));
}

#[test]
fn leftovers_are_adopted_and_removed_only_when_allowed() {
    let (mut reconciler, mut kernel, mut now) =
        (Reconciler::<u8>::new(), PickyKernel::default(), Instant::now());
    for claim in [virtual_server(80, Scheduler::RoundRobin), real_server(80, 1), set("old"), member("old", 1)]
    {
        kernel.rows.insert(claim.key, claim.row);
    }
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(kernel.rows.len(), 4, "unknown never deletes");
    reconciler.set(&1, vec![virtual_server(80, Scheduler::RoundRobin), real_server(80, 1)]);
    assert!(reconciler.next_job(LaneName::Ipvs, now).is_none(), "adopted rows are not written again");
    reconciler.allow_removals();
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(kernel.rows.len(), 2);
}

#[test]
fn foreign_rows_are_left_alone() {
    let (mut reconciler, now) = (Reconciler::<u8>::new(), Instant::now());
    reconciler.allow_removals();
    for lane in LaneName::ALL {
        assert!(matches!(reconciler.next_job(lane, now), Some(Job::Read)));
        let rows = if lane == LaneName::Ipvs {
            let claim = virtual_server(8080, Scheduler::RoundRobin);
            vec![(claim.key, claim.row)]
        } else {
            Vec::new()
        };
        reconciler.was_read(lane, rows, |_, _| false);
        assert!(reconciler.next_job(lane, now).is_none());
    }
}

#[test]
fn pauses_grow_to_a_minute() {
    assert_eq!(pause(0), Duration::from_millis(250));
    assert_eq!(pause(3), Duration::from_secs(2));
    assert_eq!(pause(40), Duration::from_secs(60));
}
