//! The sets and the firewall lane with the reconciler over them, as the agent runs them: which of our rules stands
//! before which in chains of others, and what waits for whom. `iptables-save` and `ipset` are the judges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a panic is how a test fails

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{in_netns, run};
use linux::firewall::{FirewallLane, FirewallScope, SetsLane};
use linux::iptables::tool::{Flavour, Programs};
use linux::lane::{Job, LaneThread, Report};
use linux::reconciler::{Claim, Gate, Reconciler};
use linux::row::{
    ChainKey, Family, FilterTable, Key, LaneName, Member, Name, Position, Row, SetHeader, SetKey, SetKind,
};
use linux::rule::{Action, Direction, Match, Rule};

const FLAVOURS: [Flavour; 2] = [Flavour::Legacy, Flavour::Nft];
const PATIENCE: Duration = Duration::from_secs(60);

const POLICY: &str = "KUBE-ROUTER-INPUT";
const SERVICES: &str = "KUBE-ROUTER-SERVICES";
const PODS: &str = "allow outbound traffic from pods";

/// Where rules of ours belong: policy, then the service firewall, then what pods send.
fn place(_: &ChainKey, rule: &Rule) -> Option<Position> {
    let Rule::Known(rule) = rule else { return None };
    match &rule.action {
        Action::Jump(to) if **to == *POLICY => Some(Position::First(10)),
        Action::Jump(to) if **to == *SERVICES => Some(Position::First(20)),
        Action::Accept if rule.comment.as_deref() == Some(PODS) => Some(Position::First(30)),
        _ => None,
    }
}

fn chain(name: &str) -> ChainKey {
    ChainKey { family: Family::V4, table: FilterTable::Filter, name: name.into() }
}

fn set(name: &str) -> Claim {
    let header = SetHeader { kind: SetKind::HashIp, max_members: 65536, timeout: None };
    Claim::new(Key::Set(SetKey { family: Family::V4, name: name.into() }), Row::Set(header))
}

fn member(set: &str, ip: [u8; 4]) -> Claim {
    let key = SetKey { family: Family::V4, name: set.into() };
    Claim::new(Key::Member(key.into(), Member::Ip(ip.into())), Row::Member)
}

/// A chain that accepts what comes from a set.
fn accepting(name: &str, from: &str) -> Claim {
    let sources = Match::Set { name: from.into(), directions: vec![Direction::Source], not: false };
    Claim::new(Key::Chain(chain(name)), Row::Chain([Rule::new([sources], Action::Accept)].into()))
}

fn at_its_place(rule: Rule) -> Claim {
    let position = place(&chain("INPUT"), &rule).unwrap();
    Claim::new(Key::ForeignRule(chain("INPUT"), rule), Row::ForeignRule(position))
}

/// A chain of ours with its jump in INPUT.
fn jump(to: &str) -> Vec<Claim> {
    let empty = Claim::new(Key::Chain(chain(to)), Row::Chain([].into()));
    vec![empty, at_its_place(Rule::new([], Action::Jump(to.into())))]
}

fn pods() -> Vec<Claim> {
    let rule = Rule::new([Match::InLink("kube-bridge".into())], Action::Accept).comment(PODS);
    vec![at_its_place(rule)]
}

/// An agent's part that writes sets and rules: a reconciler and two lane threads.
struct Node {
    reconciler: Reconciler<&'static str>,
    lanes: BTreeMap<LaneName, LaneThread>,
    reports: Receiver<Report>,
    /// Batches of rules written so far.
    rule_batches: usize,
}

impl Node {
    fn start(flavour: Flavour) -> Node {
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
        let scope = FirewallScope {
            chains: names(&[POLICY, SERVICES]),
            sets: names(&["kube-router-svip", "kube-router-other"]),
            foreign: vec![place],
            ..FirewallScope::default()
        };
        let (sender, reports) = channel();
        let (for_sets, for_rules) = (sender.clone(), sender);
        let programs = Programs::of(flavour).unwrap();
        let (sets, rules) = (SetsLane::new(scope.clone()), FirewallLane::with_programs(scope, programs));
        // A lane thread outlives its node by the job in hand, and then has nobody to report to.
        let sets = LaneThread::spawn(LaneName::Sets, || sets, move |report| drop(for_sets.send(report)));
        let rules =
            LaneThread::spawn(LaneName::Firewall, || rules, move |report| drop(for_rules.send(report)));
        let lanes = BTreeMap::from([(LaneName::Sets, sets.unwrap()), (LaneName::Firewall, rules.unwrap())]);
        let reconciler = Reconciler::with_lanes(lanes.keys().copied());
        let mut node = Node { reconciler, lanes, reports, rule_batches: 0 };
        node.reconciler.allow_removals([Gate::all()]);
        node
    }

    /// Hands out what is due.
    fn dispatch(&mut self) {
        for (name, lane) in &self.lanes {
            if let Some(job) = self.reconciler.next_job(*name, Instant::now()) {
                self.rule_batches += usize::from(*name == LaneName::Firewall && matches!(job, Job::Apply(_)));
                assert!(lane.start(job));
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Applied(lane, outcomes) => self.reconciler.applied(lane, outcomes, Instant::now()),
            Report::Read(lane, rows) => self.reconciler.was_read(lane, rows.unwrap(), |_, _| true),
        }
    }

    /// Works until nothing is left to do, or pauses are, and nothing is being read.
    fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.dispatch();
        let busy = |reconciler: &Reconciler<_>| LaneName::ALL.iter().any(|lane| reconciler.is_busy(*lane));
        while !self.reconciler.is_settled() || busy(&self.reconciler) {
            let report = self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            self.take(report.expect("a lane answers in time"));
            self.dispatch();
        }
    }

    /// Works, through pauses too, until INPUT is so.
    fn work_until(&mut self, flavour: Flavour, expected: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while input(flavour) != expected {
            assert!(Instant::now() < deadline, "{:?}", input(flavour));
            self.dispatch();
            if let Ok(report) = self.reports.recv_timeout(Duration::from_millis(100)) {
                self.take(report);
            }
        }
    }

    fn audit(&mut self) {
        self.lanes.keys().for_each(|lane| self.reconciler.request_read(*lane));
        self.settle();
    }
}

/// What INPUT does, in order, in one word each.
fn input(flavour: Flavour) -> Vec<String> {
    let text = run(&[&format!("iptables-{flavour}-save"), "-t", "filter"]);
    let rules = text.lines().filter(|line| line.starts_with("-A INPUT"));
    let word = |line: &str| match line {
        _ if line.contains(PODS) => "pods".to_owned(),
        _ => line.rsplit(' ').next().unwrap_or_default().to_owned(),
    };
    rules.map(word).collect()
}

fn insert(flavour: Flavour, at: &str, target: &str) {
    run(&[&format!("iptables-{flavour}"), "-I", "INPUT", at, "-j", target]);
}

#[test]
fn our_rules_stand_in_the_order_of_their_ranks() {
    let orders: [[&'static str; 3]; 3] =
        [["policy", "services", "pods"], ["pods", "services", "policy"], ["services", "pods", "policy"]];
    for (flavour, order) in FLAVOURS.into_iter().flat_map(|flavour| orders.map(|order| (flavour, order))) {
        in_netns(move || {
            run(&[&format!("iptables-{flavour}"), "-A", "INPUT", "-j", "DROP"]);
            let claims = |owner| match owner {
                "policy" => jump(POLICY),
                "services" => jump(SERVICES),
                _ => pods(),
            };
            // One after the other, and all at once.
            let mut node = Node::start(flavour);
            for owner in order {
                node.reconciler.set(&owner, claims(owner));
                node.settle();
            }
            let all = [POLICY, SERVICES, "pods", "DROP"];
            assert_eq!(input(flavour), all, "{order:?}");
            order.iter().for_each(|owner| node.reconciler.set(owner, Vec::new()));
            node.settle();
            assert_eq!(input(flavour), ["DROP"]);
            order.iter().for_each(|owner| node.reconciler.set(owner, claims(owner)));
            node.settle();
            assert_eq!(input(flavour), all, "{order:?}");

            // The one in the middle goes and comes.
            node.reconciler.set(&"services", Vec::new());
            node.settle();
            assert_eq!(input(flavour), [POLICY, "pods", "DROP"]);
            node.reconciler.set(&"services", claims("services"));
            node.settle();
            assert_eq!(input(flavour), all);

            // A successor finds everything in its place and writes nothing.
            let mut successor = Node::start(flavour);
            order.iter().for_each(|owner| successor.reconciler.set(owner, claims(owner)));
            successor.settle();
            assert_eq!((successor.rule_batches, input(flavour)), (0, all.map(str::to_owned).to_vec()));
        });
    }
}

#[test]
fn rules_of_others_are_moved_behind_ours_again() {
    for flavour in FLAVOURS {
        in_netns(move || {
            let mut node = Node::start(flavour);
            node.reconciler.set(&"policy", jump(POLICY));
            node.reconciler.set(&"services", jump(SERVICES));
            node.settle();
            insert(flavour, "2", "ACCEPT");
            insert(flavour, "1", "RETURN");
            assert_eq!(input(flavour), ["RETURN", POLICY, "ACCEPT", SERVICES]);
            node.audit();
            assert_eq!(input(flavour), [POLICY, SERVICES, "RETURN", "ACCEPT"]);

            // The same by a successor, and where only ours have changed places.
            insert(flavour, "1", "DROP");
            let mut successor = Node::start(flavour);
            successor.reconciler.set(&"policy", jump(POLICY));
            successor.reconciler.set(&"services", jump(SERVICES));
            successor.settle();
            assert_eq!(input(flavour), [POLICY, SERVICES, "DROP", "RETURN", "ACCEPT"]);
            run(&[&format!("iptables-{flavour}"), "-D", "INPUT", "-j", SERVICES]);
            insert(flavour, "1", SERVICES);
            successor.audit();
            // Not at once this time.
            successor.work_until(flavour, &[POLICY, SERVICES, "DROP", "RETURN", "ACCEPT"]);
            let told = successor.reconciler.take_notices();
            let told: Vec<&str> = told.iter().map(|notice| notice.reason.as_str()).collect();
            let displaced = "was displaced by another program and put back, ";
            assert!(told.len() >= 2 && told.iter().all(|reason| reason.starts_with(displaced)), "{told:?}");
        });
    }
}

#[test]
fn members_do_not_wait_for_a_lock_of_others() {
    in_netns(|| {
        // A /run of this thread's own, so that only this test meets the lock.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        run(&["mount", "--make-rprivate", "/"]);
        run(&["mount", "-t", "tmpfs", "tmpfs", "/run"]);
        let mut node = Node::start(Flavour::Legacy);
        let services = |last| vec![set("kube-router-svip"), member("kube-router-svip", [10, 96, 0, last])];
        let firewall = || jump(SERVICES).into_iter().chain([accepting(SERVICES, "kube-router-svip")]);
        node.reconciler.set(&"services", services(1));
        node.reconciler.set(&"firewall", firewall().collect());
        node.settle();

        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        // A rule that cannot be written now...
        node.reconciler.set(&"policy", jump(POLICY));
        node.dispatch();
        assert!(node.reconciler.is_busy(LaneName::Firewall));
        // ...holds up no member.
        for last in 2..5 {
            node.reconciler.set(&"services", services(last));
            node.dispatch();
            // The lock is waited for five seconds and no longer: that may end in between, to begin anew.
            loop {
                let report = node.reports.recv_timeout(PATIENCE).unwrap();
                let of_sets = matches!(report, Report::Applied(LaneName::Sets, _));
                node.take(report);
                if of_sets {
                    break;
                }
            }
            run(&["ipset", "test", "kube-router-svip", &format!("10.96.0.{last}")]);
        }
        assert_eq!(input(Flavour::Legacy), [SERVICES]);
        drop(lock);

        // Once the lock is free the rule comes as well, at the next try at the latest.
        node.work_until(Flavour::Legacy, &[POLICY, SERVICES]);
    });
}

#[test]
fn a_rule_comes_after_its_set_is_filled_and_goes_before_it() {
    for flavour in FLAVOURS {
        in_netns(move || {
            let mut node = Node::start(flavour);
            let ips = || (0..20_000u16).map(|at| [10, 0, at.to_be_bytes()[0], at.to_be_bytes()[1]]);
            node.reconciler.set(&"members", ips().map(|ip| member("kube-router-svip", ip)).collect());
            node.reconciler.set(&"set", vec![set("kube-router-svip")]);
            node.reconciler.set(&"rule", vec![accepting(SERVICES, "kube-router-svip")]);
            let program = format!("iptables-{flavour}-save");
            let there = || run(&[&program]).contains("--match-set kube-router-svip");
            let deadline = Instant::now() + PATIENCE;
            while !there() {
                node.dispatch();
                let report = node.reports.recv_timeout(deadline.saturating_duration_since(Instant::now()));
                node.take(report.unwrap());
            }
            // More members than a batch holds, so that the rule could have come too early.
            let count = run(&["ipset", "list", "-t", "kube-router-svip"]);
            assert!(count.contains("Number of entries: 20000"), "{count}");
            node.settle();

            for owner in ["members", "set", "rule"] {
                node.reconciler.set(&owner, Vec::new());
            }
            node.settle();
            assert!(!there() && run(&["ipset", "list", "-n"]).is_empty());
            assert_eq!(
                node.reconciler.refusals().count(),
                0,
                "the set was not tried before its rule had gone"
            );
        });
    }
}
