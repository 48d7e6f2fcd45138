use super::*;
use crate::row::{Family, Forwarding, Protocol, RealServer, Scheduler, VirtualServer, VirtualServerKey};

fn virtual_server() -> (Key, Row) {
    let ip = [10, 0, 0, 1].into();
    let server = VirtualServer { scheduler: Scheduler::Maglev, scheduler_flags: 0, persistence: None };
    let key = VirtualServerKey::Address { ip, protocol: Protocol::Tcp, port: 80 };
    (Key::VirtualServer(key), Row::VirtualServer(server.into()))
}

fn real_server() -> (Key, Row) {
    let key = VirtualServerKey::Mark { family: Family::V4, mark: 7 };
    let server = RealServer { weight: 1, forwarding: Forwarding::Masquerade };
    (Key::RealServer(key, [10, 1, 0, 1].into(), 80), Row::RealServer(server))
}

fn judged((key, row): (Key, Row), verb: Verb, errno: i32) -> Judgement {
    let there = Some(row);
    let (from, to) = match verb {
        Verb::Create => (None, there),
        Verb::Change => (there.clone(), there),
        Verb::Remove => (there, None),
    };
    let change = Change { key, from, to, after: Vec::new() };
    assert_eq!(Attempt::first((0, &change)).verb, verb);
    let outcome = match errno {
        0 => Ok(()),
        errno => Err(netlink::Error::Refused { errno, said: None }),
    };
    judge(Attempt { index: 0, verb }, &change, outcome)
}

fn reason(judgement: Judgement) -> String {
    match judgement {
        Judgement::Settled(Err(refusal)) => refusal.reason,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn a_row_that_is_there_against_belief_is_changed_and_one_that_is_gone_is_created() {
    let otherwise = |verb| Judgement::Otherwise(Attempt { index: 0, verb });
    assert_eq!(judged(virtual_server(), Verb::Create, libc::EEXIST), otherwise(Verb::Change));
    assert_eq!(judged(real_server(), Verb::Create, libc::EEXIST), otherwise(Verb::Change));
    assert_eq!(judged(virtual_server(), Verb::Change, libc::ESRCH), otherwise(Verb::Create));
    assert_eq!(judged(real_server(), Verb::Change, libc::ENOENT), otherwise(Verb::Create));
}

#[test]
fn removing_what_is_gone_is_success() {
    for errno in [0, libc::ENOENT, libc::ESRCH] {
        assert_eq!(judged(virtual_server(), Verb::Remove, errno), Judgement::Settled(Ok(())));
        assert_eq!(judged(real_server(), Verb::Remove, errno), Judgement::Settled(Ok(())));
    }
}

#[test]
fn a_real_server_without_its_virtual_server_is_refused() {
    for verb in [Verb::Create, Verb::Change] {
        let text = reason(judged(real_server(), verb, libc::ESRCH));
        assert!(text.ends_with("its virtual server is not in the kernel"), "{text}");
    }
    let text = reason(judged(real_server(), Verb::Create, libc::ENOENT));
    assert!(text.contains("virtual server"), "{text}");
}

#[test]
fn a_missing_scheduler_names_its_module_and_the_remedy() {
    for verb in [Verb::Create, Verb::Change] {
        let text = reason(judged(virtual_server(), verb, libc::ENOENT));
        assert!(text.contains("scheduler `mh`") && text.contains("`modprobe ip_vs_mh`"), "{text}");
    }
}

#[test]
fn an_errno_without_words_of_ours_is_told_in_the_systems() {
    let text = reason(judged(virtual_server(), Verb::Create, libc::ENOMEM));
    assert!(text.starts_with("creating the virtual server: "), "{text}");
    assert!(text.len() > "creating the virtual server: ".len(), "{text}");
}

#[test]
fn a_kernel_without_ipvs_is_told_with_the_remedy() {
    let text = OpenError::NoIpvs.to_string();
    assert!(text.contains("no IPVS") && text.contains("modprobe ip_vs"), "{text}");
}
