//! Every state and every event: what RFC 4271 section 8.2.2 says, as a table.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::asn::Asn;
use crate::config::RemoteAsn;
use crate::families::Families;
use crate::family::Family;
use crate::wire::notification::{HeaderError, OpenError, UpdateError};
use crate::wire::{Received, RefreshKind};

/// One row an event, one column a state. `.` is nothing at all; else the new state, if it is another, and what comes out:
/// `open`, `keepalive`, `nCODE/SUBCODE` are messages sent.
const TABLE: &str = "
event              idle          connect                  active                open-sent                          open-confirm                       established
start              connect:dial  .                        .                     .                                  .                                  .
start-passive      active        .                        .                     .                                  .                                  .
stop               .             idle:hangup,down         idle:hangup,down      idle:n6/2,hangup,down              idle:n6/2,hangup,down              idle:n6/2,hangup,down
connect-retry      .             :hangup,dial             connect:dial          idle:n5/1,hangup,down              idle:n5/2,hangup,down              idle:n5/3,hangup,down
hold               .             idle:hangup,down         idle:hangup,down      idle:n4/0,hangup,down              idle:n4/0,hangup,down              idle:n4/0,hangup,down
keepalive-due      .             idle:hangup,down         idle:hangup,down      idle:n5/1,hangup,down              :keepalive                         :keepalive
send-hold          .             idle:hangup,down         idle:hangup,down      idle:n8/0,hangup,down              idle:n8/0,hangup,down              idle:n8/0,hangup,down
connected          .             open-sent:open           open-sent:open        .                                  .                                  .
failed             .             idle:hangup,down         idle:hangup,down      active:hangup                      idle:hangup,down                   idle:hangup,down
open               .             idle:hangup,down         idle:hangup,down      open-confirm:opened,keepalive      idle:n5/2,hangup,down              idle:n5/3,hangup,down
header-error       .             idle:hangup,down         idle:hangup,down      idle:n1/2,hangup,down              idle:n1/2,hangup,down              idle:n1/2,hangup,down
open-error         .             idle:hangup,down         idle:hangup,down      idle:n2/2,hangup,down              idle:n2/2,hangup,down              idle:n2/2,hangup,down
collision          .             idle:hangup,down         idle:hangup,down      idle:n6/7,hangup,down              idle:n6/7,hangup,down              idle:n6/7,hangup,down
replaced           .             idle:hangup,down         idle:hangup,down      idle:hangup,down                   idle:hangup,down                   idle:hangup,down
notification       .             idle:hangup,down         idle:hangup,down      idle:hangup,down                   idle:hangup,down                   idle:hangup,down
keepalive          .             idle:hangup,down         idle:hangup,down      idle:n5/1,hangup,down              established:up                     .
update             .             idle:hangup,down         idle:hangup,down      idle:n5/1,hangup,down              idle:n5/2,hangup,down              :update
update-error       .             idle:hangup,down         idle:hangup,down      idle:n3/1,hangup,down              idle:n3/1,hangup,down              idle:n3/1,hangup,down
refresh            .             idle:hangup,down         idle:hangup,down      idle:n5/1,hangup,down              idle:n5/2,hangup,down              :refresh
unexpected         .             idle:hangup,down         idle:hangup,down      idle:n5/1,hangup,down              idle:n5/2,hangup,down              idle:n5/3,hangup,down
progress           .             .                        .                     .                                  .                                  .
";

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const ENDS: Ends = Ends { local: LOCAL, remote: REMOTE };

fn terms(asn: u32, router_id: [u8; 4]) -> Terms {
    Terms {
        asn: Asn::new(asn).unwrap(),
        router_id: router_id.into(),
        hold_time: 90,
        remote_asn: RemoteAsn::Any,
        families: Families::all(),
        extended_next_hop: false,
        graceful_restart: None,
    }
}

fn ours() -> Terms {
    terms(65_001, [10, 0, 0, 1])
}

fn theirs() -> Terms {
    terms(65_002, [10, 0, 0, 2])
}

fn agreed() -> Negotiated {
    ours().negotiate(&theirs().open(), ENDS).unwrap()
}

/// A session brought to a state by the events that lead there.
fn at(state: State, now: Instant) -> Session {
    let mut session = Session::new(ours(), Duration::from_secs(15), 7);
    let way: &[Event] = match state {
        State::Idle => &[],
        State::Connect => &[Event::Start],
        State::Active => &[Event::StartPassive],
        State::OpenSent => &[Event::Start, Event::Connected(ENDS)],
        State::OpenConfirm => &[Event::Start, Event::Connected(ENDS), Event::Open(Box::new(agreed()))],
        State::Established => {
            &[Event::Start, Event::Connected(ENDS), Event::Open(Box::new(agreed())), Event::Keepalive]
        }
    };
    for event in way {
        session.event(event.clone(), now, &mut Vec::new());
    }
    assert_eq!(session.state(), state);
    session
}

fn event(name: &str) -> Event {
    let refresh = Refresh { family: Family::Ipv4Unicast, kind: RefreshKind::Request };
    match name {
        "start" => Event::Start,
        "start-passive" => Event::StartPassive,
        "stop" => Event::Stop(Notification::with_text(Cease::AdministrativeShutdown, "bye")),
        "connect-retry" => Event::ConnectRetryExpired,
        "hold" => Event::HoldExpired,
        "keepalive-due" => Event::KeepaliveExpired,
        "send-hold" => Event::SendHoldExpired,
        "connected" => Event::Connected(ENDS),
        "failed" => Event::ConnectionFailed,
        "open" => Event::Open(Box::new(agreed())),
        "header-error" => Event::HeaderError(Notification::new(HeaderError::BadMessageLength)),
        "open-error" => Event::OpenError(Notification::new(OpenError::BadPeerAs)),
        "collision" => Event::CollisionLost,
        "replaced" => Event::Replaced,
        "notification" => Event::Notification(Notification::new(Cause::HoldTimerExpired)),
        "keepalive" => Event::Keepalive,
        "update" => Event::Update(Received::default()),
        "update-error" => Event::UpdateError(Notification::new(UpdateError::MalformedAttributeList)),
        "refresh" => Event::Refresh(Some(refresh)),
        "unexpected" => Event::Unexpected(Kind::Open),
        "progress" => Event::Progress { drained: false },
        other => panic!("no event {other}"),
    }
}

/// An output as the table writes it. Messages are read back from their octets.
fn word(output: &Output) -> String {
    match output {
        Output::Dial => "dial".to_owned(),
        Output::Hangup => "hangup".to_owned(),
        Output::Opened(_) => "opened".to_owned(),
        Output::Up(_) => "up".to_owned(),
        Output::Update(_) => "update".to_owned(),
        Output::Refresh(_) => "refresh".to_owned(),
        Output::Down { .. } => "down".to_owned(),
        Output::Send(octets) => {
            let mut framer = Framer::default();
            framer.push(octets);
            let frame = framer.next_frame().unwrap().unwrap();
            assert_eq!(framer.waiting(), 0);
            match frame.kind {
                Kind::Open => "open".to_owned(),
                Kind::Keepalive => "keepalive".to_owned(),
                Kind::Notification => {
                    let sent = Notification::decode(&frame.body);
                    format!("n{}/{}", sent.code, sent.subcode)
                }
                kind => format!("{kind:?}"),
            }
        }
    }
}

#[test]
fn every_state_answers_every_event() {
    let now = Instant::now();
    let mut lines = TABLE.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heads = lines.next().unwrap();
    let states: Vec<State> = heads[1..]
        .iter()
        .map(|name| *State::ALL.iter().find(|state| state.to_string() == *name).unwrap())
        .collect();
    assert_eq!(states, State::ALL);
    let mut seen = 0;
    for row in lines {
        for (state, expected) in State::ALL.into_iter().zip(&row[1..]) {
            let mut session = at(state, now);
            let mut out = Vec::new();
            session.event(event(row[0]), now, &mut out);
            let moved = if session.state() == state { String::new() } else { session.state().to_string() };
            let words: Vec<String> = out.iter().map(word).collect();
            let got = match (moved.as_str(), words.as_slice()) {
                ("", []) => ".".to_owned(),
                (moved, []) => moved.to_owned(),
                (moved, words) => format!("{moved}:{}", words.join(",")),
            };
            assert_eq!(got, *expected, "{} in {state}", row[0]);
            if session.state() == State::Idle {
                assert_eq!(session.next_deadline(), None, "timers in Idle after {} in {state}", row[0]);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 21 * 6);
}

/// Feeds octets and returns what came out.
fn feed(session: &mut Session, octets: &[u8], now: Instant) -> Vec<Output> {
    let mut out = Vec::new();
    session.received(octets);
    while session.next_message(now, &mut out) {}
    out
}

fn open_of(terms: &Terms) -> Vec<u8> {
    let mut octets = Vec::new();
    terms.open().encode(&mut octets);
    octets
}

#[test]
fn comes_up_octet_by_octet() {
    let now = Instant::now();
    let mut session = at(State::OpenSent, now);
    let mut octets = open_of(&theirs());
    encode_keepalive(&mut octets);
    let mut out = Vec::new();
    for octet in octets {
        out.extend(feed(&mut session, &[octet], now));
    }
    assert_eq!(out.iter().map(word).collect::<Vec<_>>(), ["opened", "keepalive", "up"]);
    let negotiated = session.negotiated().unwrap();
    assert_eq!(negotiated.peer_asn.get(), 65_002);
    assert_eq!(negotiated.local_address, LOCAL);
    assert!(negotiated.four_octet_asn && negotiated.route_refresh && negotiated.enhanced_route_refresh);
}

#[test]
fn timers_follow_the_shorter_hold_time() {
    let now = Instant::now();
    let mut session = at(State::OpenSent, now);
    feed(&mut session, &open_of(&Terms { hold_time: 9, ..theirs() }), now);
    let mut keepalive = Vec::new();
    encode_keepalive(&mut keepalive);
    feed(&mut session, &keepalive, now);
    let due = session.next_deadline().unwrap() - now;
    assert!(due <= Duration::from_secs(3) && due >= Duration::from_millis(2250), "{due:?}");
    let mut out = Vec::new();
    session.tick(now + due, &mut out);
    assert_eq!(out.iter().map(word).collect::<Vec<_>>(), ["keepalive"]);
    // Just before the edge the peer says something, and has nine more seconds.
    let edge = now + Duration::from_millis(8999);
    feed(&mut session, &keepalive, edge);
    out.clear();
    session.tick(edge + Duration::from_millis(8999), &mut out);
    assert_eq!(session.state(), State::Established);
    out.clear();
    session.tick(edge + Duration::from_secs(9), &mut out);
    assert_eq!(out.iter().map(word).collect::<Vec<_>>(), ["n4/0", "hangup", "down"]);
}

#[test]
fn a_hold_time_of_zero_watches_nobody() {
    let now = Instant::now();
    let mut session = at(State::OpenSent, now);
    let mut octets = open_of(&Terms { hold_time: 0, ..theirs() });
    encode_keepalive(&mut octets);
    feed(&mut session, &octets, now);
    assert_eq!(session.state(), State::Established);
    assert_eq!(session.next_deadline(), None);
}

#[test]
fn nothing_leaving_the_socket_ends_it() {
    let now = Instant::now();
    let mut session = at(State::Established, now);
    session.spoke(now);
    session.event(Event::Keepalive, now + Duration::from_secs(479), &mut Vec::new());
    session.timers.hold = None;
    let mut out = Vec::new();
    session.tick(now + SEND_HOLD, &mut out);
    assert!(out.iter().map(word).any(|word| word == "n8/0"), "{out:?}");
    let mut session = at(State::Established, now);
    session.event(Event::Progress { drained: false }, now, &mut Vec::new());
    session.event(Event::Progress { drained: true }, now, &mut Vec::new());
    assert_eq!(session.timers.send_hold, None);
}

#[test]
fn who_is_not_expected_is_told_so() {
    let now = Instant::now();
    let ipv6: Families = [Family::Ipv6Unicast].into_iter().collect();
    let ipv4: Families = [Family::Ipv4Unicast].into_iter().collect();
    let own_as = ours().asn;
    for (mine, other, expected) in [
        (Terms { remote_asn: RemoteAsn::Internal, ..ours() }, theirs(), "n2/2"),
        (Terms { remote_asn: RemoteAsn::External, ..ours() }, Terms { asn: own_as, ..theirs() }, "n2/2"),
        (Terms { remote_asn: RemoteAsn::Exactly(own_as), ..ours() }, theirs(), "n2/2"),
        (ours(), Terms { asn: own_as, router_id: ours().router_id, ..theirs() }, "n2/3"),
        (Terms { families: ipv6, ..ours() }, Terms { families: ipv4, ..theirs() }, "n2/7"),
        (ours(), Terms { router_id: Ipv4Addr::UNSPECIFIED, ..theirs() }, "n2/3"),
        (ours(), Terms { hold_time: 2, ..theirs() }, "n2/6"),
    ] {
        let mut session = Session::new(mine, Duration::from_secs(15), 7);
        session.event(Event::StartPassive, now, &mut Vec::new());
        session.event(Event::Connected(ENDS), now, &mut Vec::new());
        let out = feed(&mut session, &open_of(&other), now);
        assert_eq!(word(&out[0]), expected, "{other:?}");
        assert_eq!(session.state(), State::Idle);
    }
}

#[test]
fn a_stop_for_good_is_a_hard_reset_where_paths_would_be_kept() {
    let now = Instant::now();
    let restart = crate::wire::RestartCapability {
        notification: true,
        restart_time: 90,
        families: Families::all(),
        ..Default::default()
    };
    let ours = Terms { graceful_restart: Some(restart), ..ours() };
    let theirs = Terms { graceful_restart: Some(restart), ..theirs() };
    for (reason, expected) in [(Cease::AdministrativeShutdown, "n6/9"), (Cease::AdministrativeReset, "n6/4")]
    {
        let mut session = Session::new(ours.clone(), Duration::from_secs(15), 7);
        session.event(Event::Start, now, &mut Vec::new());
        session.event(Event::Connected(ENDS), now, &mut Vec::new());
        let mut octets = open_of(&theirs);
        encode_keepalive(&mut octets);
        feed(&mut session, &octets, now);
        let mut out = Vec::new();
        session.event(Event::Stop(Notification::new(reason)), now, &mut out);
        assert_eq!(word(&out[0]), expected);
    }
}
