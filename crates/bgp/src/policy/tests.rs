//! Policies by table: what is asked, what comes out.

use std::net::Ipv4Addr;

use super::super::{Condition, PrefixRange, Prepend, Statement};
use super::*;
use crate::as_path::AsPath;
use crate::community::{Community, LargeCommunity};

const TAG: Community = Community(0xfc00_0064);
const OTHER: Community = Community(0xfc00_0065);
const LARGE: LargeCommunity = LargeCommunity { global: 64_512, local1: 1, local2: 2 };

fn path() -> Attributes {
    Attributes {
        as_path: AsPath::sequence([65_001]),
        communities: vec![TAG],
        large_communities: vec![LARGE],
        ..Attributes::local(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)))
    }
}

/// The policy's answer about `10.1.0.0/16` from neighbour `192.0.2.1`.
fn ask(policy: &Policy) -> Option<Attributes> {
    let mut sets = Sets::default();
    let compiled = Compiled::new(policy, &mut sets);
    let mut fill = |name: &str, ranges: &[PrefixRange]| {
        let id = sets.id(&name.into());
        *sets.get_mut(id).unwrap() = ranges.iter().copied().collect();
    };
    fill("tens", &[PrefixRange::within("10.0.0.0/8".parse().unwrap())]);
    fill("docs", &[PrefixRange::within("192.0.2.0/24".parse().unwrap())]);
    fill("elsewhere", &[PrefixRange::within("198.51.100.0/24".parse().unwrap())]);
    let neighbour = compiled.membership(&sets, "192.0.2.1".parse().unwrap());
    let subject = Subject {
        prefix: &"10.1.0.0/16".parse().unwrap(),
        neighbour: &neighbour,
        next_hop: path().next_hop.global,
        from: PathSource::External,
        own_asn: 64_512,
        own_address: Some("203.0.113.1".parse().unwrap()),
    };
    compiled.apply(&sets, &subject, &Arc::new(path())).map(|kept| (**kept).clone())
}

fn statement(when: Conditions, then: Actions, verdict: Option<Verdict>) -> Statement {
    Statement { name: String::new(), when, then, verdict }
}

fn named(name: &str) -> Option<SetName> {
    Some(name.into())
}

#[test]
fn conditions() {
    let none = Conditions::default;
    let any = |of: &[Community]| Conditions { communities: Some(Condition::Any(of.to_vec())), ..none() };
    let all = |of: &[Community]| Conditions { communities: Some(Condition::All(of.to_vec())), ..none() };
    let neither =
        |of: &[Community]| Conditions { communities: Some(Condition::Neither(of.to_vec())), ..none() };
    let table = [
        ("nothing asked", none(), true),
        ("prefix inside", Conditions { prefixes: named("tens"), ..none() }, true),
        ("prefix outside", Conditions { prefixes: named("docs"), ..none() }, false),
        ("set without ranges", Conditions { prefixes: named("unheard of"), ..none() }, false),
        ("neighbour inside", Conditions { neighbours: named("docs"), ..none() }, true),
        ("neighbour outside", Conditions { neighbours: named("elsewhere"), ..none() }, false),
        ("no neighbours", Conditions { neighbours: named("unheard of"), ..none() }, false),
        ("next hop inside", Conditions { next_hops: named("docs"), ..none() }, true),
        ("next hop outside", Conditions { next_hops: named("tens"), ..none() }, false),
        ("from outside", Conditions { from: Some(PathSource::External), ..none() }, true),
        ("of our own", Conditions { from: Some(PathSource::Local), ..none() }, false),
        ("one of", any(&[OTHER, TAG]), true),
        ("one of others", any(&[OTHER]), false),
        ("one of none", any(&[]), false),
        ("all", all(&[TAG]), true),
        ("all and more", all(&[TAG, OTHER]), false),
        ("without another", neither(&[OTHER]), true),
        ("without its own", neither(&[OTHER, TAG]), false),
        ("large", Conditions { large_communities: Some(Condition::Any(vec![LARGE])), ..none() }, true),
        ("two hold", Conditions { prefixes: named("tens"), neighbours: named("docs"), ..none() }, true),
        (
            "one of two",
            Conditions { prefixes: named("tens"), neighbours: named("elsewhere"), ..none() },
            false,
        ),
    ];
    for (what, when, matches) in table {
        let accept = statement(when, Actions::default(), Some(Verdict::Accept));
        let policy = Policy { statements: vec![accept], default: Verdict::Reject };
        assert_eq!(ask(&policy).is_some(), matches, "{what}");
    }
}

#[test]
fn the_first_verdict_counts() {
    let accept = || statement(Conditions::default(), Actions::default(), Some(Verdict::Accept));
    let reject = || statement(Conditions::default(), Actions::default(), Some(Verdict::Reject));
    let on = || {
        statement(Conditions::default(), Actions { med: Some(MedAction::Set(7)), ..Actions::default() }, None)
    };
    let policy = |statements, default| Policy { statements, default };
    assert!(ask(&policy(vec![accept(), reject()], Verdict::Reject)).is_some());
    assert!(ask(&policy(vec![reject(), accept()], Verdict::Accept)).is_none());
    assert!(ask(&policy(vec![on()], Verdict::Reject)).is_none());
    assert_eq!(ask(&policy(vec![on()], Verdict::Accept)).unwrap().med, Some(7));
    assert!(ask(&Policy::always(Verdict::Accept)).is_some());
    assert!(ask(&Policy::always(Verdict::Reject)).is_none());
}

#[test]
fn actions() {
    let change = |then: Actions| {
        ask(&Policy {
            statements: vec![statement(Conditions::default(), then, Some(Verdict::Accept))],
            default: Verdict::Reject,
        })
        .unwrap()
    };
    let none = Actions::default;
    assert_eq!(change(none()), path());
    let table: [(Actions, Attributes); 9] = [
        (Actions { local_pref: Some(200), ..none() }, Attributes { local_pref: Some(200), ..path() }),
        (Actions { med: Some(MedAction::Set(5)), ..none() }, Attributes { med: Some(5), ..path() }),
        (Actions { med: Some(MedAction::Remove), ..none() }, path()),
        (
            Actions { communities: vec![CommunityAction::Add(vec![OTHER, TAG])], ..none() },
            Attributes { communities: vec![TAG, OTHER], ..path() },
        ),
        (
            Actions { communities: vec![CommunityAction::Remove(vec![TAG])], ..none() },
            Attributes { communities: vec![], ..path() },
        ),
        (
            Actions { large_communities: vec![CommunityAction::Set(vec![])], ..none() },
            Attributes { large_communities: vec![], ..path() },
        ),
        (
            Actions { prepend: Some(Prepend { asn: None, times: 2 }), ..none() },
            Attributes { as_path: AsPath::sequence([64_512, 64_512, 65_001]), ..path() },
        ),
        (
            Actions { next_hop: Some(NextHopAction::Ours), ..none() },
            Attributes { next_hop: "203.0.113.1".parse::<IpAddr>().unwrap().into(), ..path() },
        ),
        (
            Actions { next_hop: Some(NextHopAction::Address("198.51.100.1".parse().unwrap())), ..none() },
            Attributes { next_hop: "198.51.100.1".parse::<IpAddr>().unwrap().into(), ..path() },
        ),
    ];
    for (then, after) in table {
        assert_eq!(change(then), after);
    }
}

/// A statement without a verdict changes what the next one sees.
#[test]
fn later_statements_see_earlier_changes() {
    let add = Actions { communities: vec![CommunityAction::Add(vec![OTHER])], ..Actions::default() };
    let has = Conditions { communities: Some(Condition::Any(vec![OTHER])), ..Conditions::default() };
    let statements = vec![
        statement(Conditions::default(), add, None),
        statement(has, Actions::default(), Some(Verdict::Reject)),
    ];
    assert_eq!(ask(&Policy { statements, default: Verdict::Accept }), None);
}
