//! The reconciler against a kernel that is as picky as the real one about order, and as unreliable.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::retry::{RETRY_LONGEST, pause};
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
    /// Nothing of these groups may be removed.
    shut: Vec<Rows>,
    /// What is wanted, to see whether sets are filled when a chain begins to look into them.
    wanted: BTreeMap<Key, Row>,
    /// Lanes have their turn in reverse.
    backwards: bool,
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
                self.check_filled(&change.key, row);
                self.rows.insert(change.key.clone(), row.clone());
            }
            None => {
                let users = self.rows.iter().filter(|(key, row)| {
                    key.container().as_ref() != Some(&change.key) && row.holds(key).contains(&change.key)
                });
                let users: Vec<_> = users.map(|(key, _)| key.clone()).collect();
                let row = self.rows.get(&change.key);
                if row.is_some_and(|row| self.shut.iter().any(|covers| covers(&change.key, row))) {
                    self.order_violations.push(format!("{:?} removed behind a shut gate", change.key));
                }
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

impl PickyKernel {
    /// A chain that begins to look into a set or map must find all there that is wanted.
    fn check_filled(&mut self, key: &Key, row: &Row) {
        let before = self.rows.get(key).map(|row| row.stands_on(key)).unwrap_or_default();
        let new: Vec<Key> = row.stands_on(key).into_iter().filter(|need| !before.contains(need)).collect();
        for member in self.wanted.keys().filter(|key| matches!(key, Key::Member(..) | Key::Verdict(..))) {
            let used = member.container().is_some_and(|set| new.contains(&set));
            if matches!(key, Key::Chain(_)) && used && !self.rows.contains_key(member) {
                self.order_violations.push(format!("{key:?} before {member:?}"));
            }
        }
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

/// The rows a lane is to write now, which must be some.
fn job(reconciler: &mut Reconciler<u8>, lane: LaneName, now: Instant) -> Vec<Vec<Change>> {
    let Some(Job::Apply(stages)) = reconciler.next_job(lane, now) else { panic!("{lane:?} has no job") };
    stages
}

/// Writes them, and tells the reconciler what became of them.
fn write(
    reconciler: &mut Reconciler<u8>,
    kernel: &mut PickyKernel,
    lane: LaneName,
    stages: Vec<Vec<Change>>,
    now: Instant,
) {
    let outcomes = run_batch(&mut LaneOf(lane, kernel), stages);
    reconciler.applied(lane, outcomes, now);
}

fn run_until_settled(reconciler: &mut Reconciler<u8>, kernel: &mut PickyKernel, now: &mut Instant) {
    for _ in 0..200 {
        let mut worked = false;
        let mut lanes = LaneName::ALL;
        if kernel.backwards {
            lanes.reverse();
        }
        for lane in lanes {
            match reconciler.next_job(lane, *now) {
                Some(Job::Read) => {
                    let rows = LaneOf(lane, kernel).read().unwrap();
                    reconciler.was_read(lane, rows, |_, _| true);
                    worked = true;
                }
                Some(Job::Apply(stages)) => {
                    write(reconciler, kernel, lane, stages, *now);
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

/// Groups that know enough at different times; a link is of both.
const GROUPS: [Rows; 2] = [
    |key, _| key.lane() != LaneName::Ipvs && key.lane() != LaneName::Route || matches!(key, Key::Link(_)),
    |key, _| key.lane() == LaneName::Ipvs || key.lane() == LaneName::Route,
];

fn set_gates(reconciler: &mut Reconciler<u8>, kernel: &mut PickyKernel, open: [bool; 2]) {
    let gates = || GROUPS.into_iter().zip(open);
    kernel.shut = gates().filter(|(_, open)| !open).map(|(covers, _)| covers).collect();
    reconciler.allow_removals(gates().map(|(covers, open)| Gate::new(covers, open)));
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
    // Of several who want a row in different ways the least has its way.
    owners.values().rev().flatten().map(|claim| (claim.key.clone(), claim.row.clone())).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u16),
    Drop(u8),
    Foreign(u16),
    Gates([bool; 2]),
    Audit,
    Settle,
    /// Lanes have their turn in reverse, or no longer.
    Turn(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..3, any::<u16>()).prop_map(|(owner, pick)| Step::Set(owner, pick)),
        1 => (0u8..3).prop_map(Step::Drop),
        1 => any::<u16>().prop_map(Step::Foreign),
        2 => any::<[bool; 2]>().prop_map(Step::Gates),
        1 => Just(Step::Audit),
        2 => Just(Step::Settle),
        1 => any::<bool>().prop_map(Step::Turn),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    /// Whatever was left behind, any order of wishes, foreign deletions, audits and gates ends in exactly what is wanted
    /// once all gates are open; it never breaks an order the kernel insists on, and removes nothing behind a shut gate.
    #[test]
    fn ends_in_what_is_wanted(steps in steps(), left_behind in any::<u16>()) {
        let (mut reconciler, mut kernel, mut now) = (Reconciler::new(), PickyKernel::default(), Instant::now());
        let mut owners: BTreeMap<u8, Vec<Claim>> = BTreeMap::new();
        kernel.rows = claims_of(left_behind).into_iter().map(|claim| (claim.key, claim.row)).collect();
        set_gates(&mut reconciler, &mut kernel, [false; 2]);
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
                Step::Gates(open) => set_gates(&mut reconciler, &mut kernel, open),
                Step::Audit => LaneName::ALL.iter().for_each(|lane| reconciler.request_read(*lane)),
                Step::Settle => run_until_settled(&mut reconciler, &mut kernel, &mut now),
                Step::Turn(backwards) => kernel.backwards = backwards,
            }
            kernel.wanted = desired_of(&owners);
        }
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
        prop_assert!(desired_of(&owners).iter().all(|(key, row)| kernel.rows.get(key) == Some(row)));
        set_gates(&mut reconciler, &mut kernel, [true; 2]);
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
    reconciler.allow_removals([Gate::all()]);
    reconciler.set(&0, vec![link()]);
    reconciler.set(&1, vec![virtual_server(80, Scheduler::RoundRobin), real_server(80, 1), address(80)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    reconciler.set(&1, Vec::new());
    assert!(reconciler.next_job(LaneName::Ipvs, now).is_none(), "the virtual server waits for the address");
    let stages = job(&mut reconciler, LaneName::Route, now);
    write(&mut reconciler, &mut kernel, LaneName::Route, stages, now);
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
    reconciler.allow_removals([Gate::all()]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(kernel.rows.len(), 2);
}

#[test]
fn a_leftover_goes_when_all_that_may_want_it_know_enough() {
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    for claim in [virtual_server(80, Scheduler::RoundRobin), set("old"), member("old", 1), link()] {
        kernel.rows.insert(claim.key, claim.row);
    }
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    let mut left = |kernel: &mut PickyKernel, open| {
        set_gates(&mut reconciler, kernel, open);
        run_until_settled(&mut reconciler, kernel, &mut now);
        kernel.rows.keys().map(Key::table).collect::<Vec<_>>()
    };
    assert_eq!(left(&mut kernel, [true, false]), [Table::Links, Table::VirtualServers], "a link is of both");
    assert_eq!(left(&mut kernel, [true, true]), []);

    // Before that, what was wanted and is no longer goes where its group says so.
    for (rows, withdrawn) in [([true, true], false), ([false, true], true)] {
        let (mut reconciler, mut kernel) = (Reconciler::<u8>::new(), PickyKernel::default());
        for claim in [set("old"), set("ours")] {
            kernel.rows.insert(claim.key, claim.row);
        }
        let gate = Gate::new(|_, _| true, false);
        reconciler.allow_removals([if withdrawn { gate.but_for_the_withdrawn() } else { gate }]);
        for wishes in [vec![set("ours"), set("new")], vec![]] {
            reconciler.set(&1, wishes);
            run_until_settled(&mut reconciler, &mut kernel, &mut now);
        }
        let there = ["ours", "old"].map(|name| kernel.rows.contains_key(&set(name).key));
        assert_eq!(there, rows, "what was never wanted stays");
        assert_eq!(kernel.rows.contains_key(&set("new").key), !withdrawn);
    }

    // What no gate covers is nobody's to remove.
    let (mut reconciler, mut kernel) = (Reconciler::<u8>::new(), PickyKernel::default());
    kernel.rows.insert(set("old").key, set("old").row);
    reconciler.allow_removals([Gate::new(GROUPS[1], true)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(kernel.rows.len(), 1);
}

#[test]
fn a_chain_waits_until_its_new_set_is_filled() {
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    reconciler.allow_removals([Gate::all()]);
    reconciler.set(&1, vec![set("a"), member("a", 1), chain("KUBE-X", &["a"])]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    let key = chain("KUBE-X", &[]).key;

    // A set that is there already, with a member on its way.
    reconciler.set(&2, vec![set("b")]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    reconciler.set(&2, vec![set("b"), member("b", 1), member("b", 2)]);
    reconciler.set(&1, vec![set("a"), member("a", 1), chain("KUBE-X", &["a", "b"])]);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "two members lack");
    let stages = job(&mut reconciler, LaneName::Sets, now);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "they are being written");

    // More of a set it looks into already does not hold it up, nor does a member that is refused.
    reconciler.set(&3, vec![set("a"), member("a", 2)]);
    kernel.refuse.insert(member("b", 2).key);
    write(&mut reconciler, &mut kernel, LaneName::Sets, stages, now);
    assert!(matches!(reconciler.next_job(LaneName::Firewall, now), Some(Job::Apply(_))));

    // Nor one that is wanted no longer before it was written.
    let (mut reconciler, mut kernel) = (Reconciler::<u8>::new(), PickyKernel::default());
    reconciler.set(&2, vec![set("b")]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    reconciler.set(&2, vec![set("b"), member("b", 1)]);
    reconciler.set(&1, vec![chain("KUBE-X", &["b"])]);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none());
    reconciler.set(&2, vec![set("b")]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.contains_key(&key));
}

/// What is wanted again while a lane removes it is not there before that lane's next job, or because it could not go.
#[test]
fn what_is_being_removed_is_not_built_on() {
    for (whole_set, refused) in [(true, false), (false, false), (true, true), (false, true)] {
        let (mut reconciler, mut kernel) = (Reconciler::<u8>::new(), PickyKernel::default());
        let mut now = Instant::now();
        reconciler.allow_removals([Gate::all()]);
        let sets = vec![set("a"), member("a", 1)];
        reconciler.set(&1, sets.clone());
        run_until_settled(&mut reconciler, &mut kernel, &mut now);

        reconciler.set(&1, if whole_set { Vec::new() } else { vec![set("a")] });
        let stages = job(&mut reconciler, LaneName::Sets, now);
        reconciler.set(&1, [sets.clone(), vec![chain("KUBE-X", &["a"])]].concat());
        assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "it may be gone by then");
        if refused {
            kernel.refuse.extend([set("a").key, member("a", 1).key]);
        }
        write(&mut reconciler, &mut kernel, LaneName::Sets, stages, now);
        kernel.refuse.clear();
        kernel.wanted = [sets.clone(), vec![chain("KUBE-X", &["a"])]]
            .concat()
            .into_iter()
            .map(|claim| (claim.key, claim.row))
            .collect();
        if !refused {
            assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "it is to be written again");
        }
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
        assert_eq!(kernel.rows, kernel.wanted);
        assert_eq!(kernel.order_violations, Vec::<String>::new());
    }
}

fn jumping(name: &str, target: &str) -> Claim {
    let key = ChainKey { family: Family::V4, table: FilterTable::Filter, name: name.into() };
    let rule = Rule::new([], Action::Jump(target.into()));
    Claim::new(Key::Chain(key), Row::Chain(Arc::from([rule])))
}

#[test]
fn a_chain_goes_with_the_chain_it_jumps_to_and_not_before_it() {
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    reconciler.allow_removals([Gate::all()]);
    reconciler.set(&1, vec![jumping("KUBE-A", "OTHER"), jumping("KUBE-B", "KUBE-A")]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(kernel.rows.len(), 2, "a target that is nobody's here is not waited for");

    // A chain that is there comes to jump to a new one, which waits for its set.
    reconciler.set(&2, vec![set("a"), member("a", 1), chain("KUBE-X", &["a"])]);
    reconciler.set(&1, vec![jumping("KUBE-A", "KUBE-X"), jumping("KUBE-B", "KUBE-A")]);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "neither may go yet");
    let stages = job(&mut reconciler, LaneName::Sets, now);
    write(&mut reconciler, &mut kernel, LaneName::Sets, stages, now);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.order_violations.is_empty(), "{:?}", kernel.order_violations);
    let now_there = jumping("KUBE-A", "KUBE-X");
    assert_eq!(kernel.rows.get(&now_there.key), Some(&now_there.row));

    // What was left waiting before goes with what it waited for, not after it.
    reconciler.set(&4, vec![set("b"), member("b", 1), chain("KUBE-Y", &["b"])]);
    reconciler.set(&5, vec![jumping("KUBE-V", "KUBE-W"), jumping("KUBE-W", "KUBE-Y")]);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "none of the three may go yet");
    let stages = job(&mut reconciler, LaneName::Sets, now);
    write(&mut reconciler, &mut kernel, LaneName::Sets, stages, now);
    let stages = job(&mut reconciler, LaneName::Firewall, now);
    assert_eq!(stages.iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    write(&mut reconciler, &mut kernel, LaneName::Firewall, stages, now);
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none(), "nothing is written twice");
    assert!(kernel.order_violations.is_empty(), "{:?}", kernel.order_violations);

    // What may go at once goes together: one stage is one transaction.
    reconciler.set(&3, vec![jumping("KUBE-D", "KUBE-E"), jumping("KUBE-E", "OTHER")]);
    let stages = job(&mut reconciler, LaneName::Firewall, now);
    assert_eq!(stages.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
}

/// A packet that has come by the jump must find all that is behind it; until then nobody sees what is behind it.
#[test]
fn a_jump_comes_together_with_its_target_and_goes_before_it() {
    let built_in = ChainKey { family: Family::V4, table: FilterTable::Filter, name: "INPUT".into() };
    let rule = Rule::new([], Action::Jump("KUBE-B".into()));
    let jump = Claim::new(Key::ForeignRule(built_in, rule), Row::ForeignRule(Position::First(0)));
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    reconciler.allow_removals([Gate::all()]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    let lengths = |stages: &[Vec<Change>]| stages.iter().map(Vec::len).collect::<Vec<_>>();

    reconciler.set(&1, vec![jump, jumping("KUBE-B", "KUBE-A"), chain("KUBE-A", &[])]);
    let stages = job(&mut reconciler, LaneName::Firewall, now);
    assert_eq!(lengths(&stages), [3], "one transaction");
    write(&mut reconciler, &mut kernel, LaneName::Firewall, stages, now);

    reconciler.set(&1, Vec::new());
    let stages = job(&mut reconciler, LaneName::Firewall, now);
    assert!(!stages.iter().flatten().any(|change| change.key == jumping("KUBE-B", "").key), "{stages:?}");
    write(&mut reconciler, &mut kernel, LaneName::Firewall, stages, now);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.is_empty());
    assert_eq!(kernel.order_violations, Vec::<String>::new());
}

fn verdict(last: u8, chain: &str) -> Claim {
    let map = SetKey { family: Family::V4, name: "map".into() };
    Claim::new(Key::Verdict(map, IpAddr::from([10, 0, 0, last])), Row::Verdict(chain.into()))
}

/// As the pods of a node have them: each has a verdict that leads to a chain of its own, and some of those lead on, to what
/// waits for a set. The frame jumps to where the map is looked into.
fn verdicts() -> Vec<Claim> {
    let key = ChainKey { family: Family::V4, table: FilterTable::Filter, name: "KUBE-LOOK".into() };
    let look = Rule::new([], Action::VerdictMap { map: "map".into(), of: Direction::Destination });
    let map = SetKey { family: Family::V4, name: "map".into() };
    vec![
        Claim::new(Key::VerdictMap(map), Row::VerdictMap),
        Claim::new(Key::Chain(key), Row::Chain(Arc::from([look]))),
        jumping("KUBE-FRAME", "KUBE-LOOK"),
        verdict(1, "KUBE-POD-1"),
        chain("KUBE-POD-1", &[]),
        verdict(2, "KUBE-POD-2"),
        jumping("KUBE-POD-2", "KUBE-ALIKE"),
        jumping("KUBE-ALIKE", "KUBE-POLICY"),
        chain("KUBE-POLICY", &["a"]),
        set("a"),
        member("a", 1),
    ]
}

/// A packet that finds no verdict passes unjudged, or is refused though it is allowed.
#[test]
fn a_map_is_looked_into_when_every_verdict_is_in_it() {
    for backwards in [false, true] {
        for without in 0..verdicts().len() {
            let mut kernel = PickyKernel { backwards, ..PickyKernel::default() };
            let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
            let mut all = verdicts();
            kernel.wanted = all.iter().map(|claim| (claim.key.clone(), claim.row.clone())).collect();
            // One comes later, which is no order of its own for what is wanted.
            let late = all.remove(without);
            reconciler.set(&1, all);
            reconciler.set(&2, vec![late]);
            run_until_settled(&mut reconciler, &mut kernel, &mut now);
            assert_eq!(kernel.order_violations, Vec::<String>::new());
            assert_eq!(kernel.rows, kernel.wanted);
        }
    }
}

/// What was waited for may be wanted no longer, and then nobody reports that it came.
#[test]
fn a_map_is_looked_into_when_what_it_waited_for_is_taken_back() {
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    let mut claims = verdicts();
    let second = claims.split_off(5);
    reconciler.set(&1, claims);
    reconciler.set(&2, second);
    let stages = job(&mut reconciler, LaneName::Firewall, now);
    write(&mut reconciler, &mut kernel, LaneName::Firewall, stages, now);
    let frame = jumping("KUBE-FRAME", "").key;
    assert!(reconciler.next_job(LaneName::Firewall, now).is_none() && !kernel.rows.contains_key(&frame));
    reconciler.set(&2, Vec::new());
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert!(kernel.rows.contains_key(&frame));
}

#[test]
fn a_refused_chain_keeps_no_other_verdict_from_being_looked_for() {
    for refused in ["KUBE-POD-2", "KUBE-ALIKE", "KUBE-POLICY"] {
        let mut kernel = PickyKernel::default();
        let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
        kernel.refuse.insert(chain(refused, &[]).key);
        reconciler.set(&1, verdicts());
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
        assert!(kernel.rows.contains_key(&jumping("KUBE-FRAME", "").key), "{refused}");
        assert!(kernel.rows.contains_key(&verdict(1, "").key));
        kernel.refuse.clear();
        now += Duration::from_secs(120);
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
        assert!(kernel.rows.contains_key(&verdict(2, "").key), "and when it is taken it follows: {refused}");
    }
}

#[test]
fn of_owners_that_disagree_the_one_that_stays_decides() {
    let mut kernel = PickyKernel::default();
    let (mut reconciler, mut now) = (Reconciler::<u8>::new(), Instant::now());
    let scheduler = |kernel: &PickyKernel| kernel.rows.get(&Key::VirtualServer(server(80))).cloned();
    let wish = |scheduler| virtual_server(80, scheduler);
    for owner in [2, 1, 2] {
        let scheduler = if owner == 1 { Scheduler::Maglev } else { Scheduler::RoundRobin };
        reconciler.set(&owner, vec![wish(scheduler)]);
        run_until_settled(&mut reconciler, &mut kernel, &mut now);
    }
    assert_eq!(scheduler(&kernel), Some(wish(Scheduler::Maglev).row), "the least, whoever spoke last");
    let notices = reconciler.take_notices();
    assert_eq!(notices.len(), 1, "told once: {notices:?}");
    assert_eq!(notices[0].owners, [1, 2]);
    reconciler.set(&3, vec![wish(Scheduler::SourceHash)]);
    reconciler.set(&1, Vec::new());
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(scheduler(&kernel), Some(wish(Scheduler::RoundRobin).row));
    reconciler.set(&2, Vec::new());
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(scheduler(&kernel), Some(wish(Scheduler::SourceHash).row));
    reconciler.set(&3, vec![wish(Scheduler::LeastConnection)]);
    run_until_settled(&mut reconciler, &mut kernel, &mut now);
    assert_eq!(scheduler(&kernel), Some(wish(Scheduler::LeastConnection).row), "alone it decides");
    assert_eq!(reconciler.take_notices(), []);
}

#[test]
fn a_rule_displaced_again_and_again_is_put_back_with_pauses() {
    let chain = ChainKey { family: Family::V4, table: FilterTable::Filter, name: "INPUT".into() };
    let claim = Claim::new(
        Key::ForeignRule(chain, Rule::new([], Action::Accept)),
        Row::ForeignRule(Position::First(10)),
    );
    let (mut reconciler, mut now) = (Reconciler::<u8>::with_lanes([LaneName::Firewall]), Instant::now());
    reconciler.set(&1, vec![claim.clone()]);
    let put_back = |reconciler: &mut Reconciler<u8>, now: Instant| {
        let Some(Job::Apply(stages)) = reconciler.next_job(LaneName::Firewall, now) else { return false };
        let outcomes = stages.into_iter().flatten().map(|change| (change.key, Ok(()))).collect();
        reconciler.applied(LaneName::Firewall, outcomes, now);
        true
    };
    let read = |reconciler: &mut Reconciler<u8>, now, there: Option<Position>| {
        reconciler.request_read(LaneName::Firewall);
        assert!(matches!(reconciler.next_job(LaneName::Firewall, now), Some(Job::Read)));
        let rows = there.map(|position| (claim.key.clone(), Row::ForeignRule(position)));
        reconciler.was_read(LaneName::Firewall, rows.into_iter().collect(), |_, _| true);
    };
    read(&mut reconciler, now, None);
    assert!(put_back(&mut reconciler, now), "written");
    read(&mut reconciler, now, Some(Position::Anywhere));
    assert!(put_back(&mut reconciler, now), "put back at once");
    assert_eq!(reconciler.take_notices().len(), 1);
    read(&mut reconciler, now, Some(Position::Last));
    assert!(!put_back(&mut reconciler, now), "again, so soon: not yet");
    assert!(reconciler.is_settled());
    read(&mut reconciler, now, None);
    assert!(put_back(&mut reconciler, now), "gone is no question of place");
    read(&mut reconciler, now, Some(Position::Last));
    assert!(!put_back(&mut reconciler, now));
    now = reconciler.next_deadline().unwrap();
    assert!(put_back(&mut reconciler, now));
    assert_eq!(reconciler.next_deadline(), None);
}

#[test]
fn foreign_rows_are_left_alone() {
    let (mut reconciler, now) = (Reconciler::<u8>::new(), Instant::now());
    reconciler.allow_removals([Gate::all()]);
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

/// On a slow machine one audit follows the other; that nothing is left to be done can be said all the same.
#[test]
fn a_lane_that_only_reads_is_at_rest() {
    let (mut reconciler, now) = (Reconciler::<u8>::with_lanes([LaneName::Sets]), Instant::now());
    reconciler.set(&1, vec![set("a")]);
    assert!(matches!(reconciler.next_job(LaneName::Sets, now), Some(Job::Read)));
    assert!(!reconciler.is_settled(), "nothing is known yet");
    reconciler.was_read(LaneName::Sets, Vec::new(), |_, _| true);
    let Some(Job::Apply(stages)) = reconciler.next_job(LaneName::Sets, now) else {
        panic!("a set is missing")
    };
    reconciler.request_read(LaneName::Sets);
    assert!(!reconciler.is_at_rest(LaneName::Sets), "it is being written");
    let outcomes = stages.into_iter().flatten().map(|change| (change.key, Ok(()))).collect();
    reconciler.applied(LaneName::Sets, outcomes, now);
    assert!(matches!(reconciler.next_job(LaneName::Sets, now), Some(Job::Read)));
    assert!(reconciler.is_at_rest(LaneName::Sets) && reconciler.is_settled());
    reconciler.was_read(LaneName::Sets, Vec::new(), |_, _| true);
    assert!(!reconciler.is_settled(), "somebody took it away");
}
