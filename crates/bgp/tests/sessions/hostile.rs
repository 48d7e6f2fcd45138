//! A socket instead of a speaker at the other end.

use std::net::{Ipv4Addr, SocketAddr};

use bgp::config::MaxPrefixes;
use bgp::rib::{Refusal, Standing};
use bgp::wire::{
    Capabilities, Codec, Frame, Framer, Kind, Notification, Open, Refresh, RefreshKind, encode_keepalive,
    encode_update,
};
use bgp::{AsPath, Attributes, Families, Family, Update};
use ipnet::{IpNet, Ipv4Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::setup::{A, B, C, Router, connections, eventually, in_namespace, ip, net, pair};

/// Dials a router from the address of one of its peers.
async fn dial(from: &str, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    // A deaf peer's window is soon shut.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(SocketAddr::new(ip(from), 0)).unwrap();
    socket.connect(SocketAddr::new(ip(to), 179)).await.unwrap()
}

/// Says OPEN and KEEPALIVE, as a speaker would.
async fn introduce(stream: &mut TcpStream, asn: u32) {
    introduce_as(stream, asn, [10, 9, 9, 9]).await;
}

async fn introduce_as(stream: &mut TcpStream, asn: u32, router_id: [u8; 4]) {
    let open = Open {
        asn,
        hold_time: 90,
        router_id: Ipv4Addr::from(router_id),
        capabilities: Capabilities {
            families: Families::all(),
            four_octet_asn: true,
            route_refresh: true,
            enhanced_route_refresh: true,
            ..Capabilities::default()
        },
    };
    let mut octets = Vec::new();
    open.encode(&mut octets);
    encode_keepalive(&mut octets);
    stream.write_all(&octets).await.unwrap();
}

/// Everything the router says until it hangs up.
async fn last_words(stream: &mut TcpStream) -> Vec<Frame> {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        framer.push(&chunk[..read]);
        while let Some(frame) = framer.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn notification(frames: &[Frame]) -> Notification {
    let last = frames.last().expect("a last word");
    assert_eq!(last.kind, Kind::Notification, "{frames:?}");
    Notification::decode(&last.body)
}

/// A router with an honest peer B, and C that is only a socket.
async fn with_stranger() -> (Router, Router) {
    let (mut a, b) = pair();
    a.peer(A, C, 65_003).passive = true;
    a.go();
    b.go();
    a.up(B).await;
    (a, b)
}

#[test]
fn garbage_ends_the_session_it_came_over() {
    in_namespace(|| async {
        let (a, b) = with_stranger().await;
        let mut keepalive = Vec::new();
        encode_keepalive(&mut keepalive);
        for (what, octets, code, subcode) in [
            ("no marker", b"GET / HTTP/1.1\r\nHost: router\r\n\r\n".to_vec(), 1, 1),
            ("too long", [&keepalive[..16], &[0xff, 0xff, 2]].concat(), 1, 2),
            ("no type", [&keepalive[..16], &[0, 19, 9]].concat(), 1, 3),
            ("out of turn", keepalive.clone(), 5, 1),
        ] {
            let mut stream = accepted(&a).await;
            stream.write_all(&octets).await.unwrap();
            let last = notification(&last_words(&mut stream).await);
            assert_eq!((last.code, last.subcode), (code, subcode), "{what}");
        }
        assert_eq!(a.report(B).await.status.history.established, 1);
        assert!(b.is_up(A).await);
    });
}

/// A connection the router wants: after errors it does not for a while, and says so.
async fn accepted(a: &Router) -> TcpStream {
    loop {
        let mut stream = dial(C, A).await;
        let mut first = [0; 19];
        // Its OPEN, or a NOTIFICATION and the end.
        if stream.read_exact(&mut first).await.is_ok() && first[18] == 1 {
            let mut rest = vec![0; usize::from(u16::from_be_bytes([first[16], first[17]])) - 19];
            stream.read_exact(&mut rest).await.unwrap();
            return stream;
        }
        a.report(C).await;
        crate::setup::pause().await;
    }
}

/// A peer that never reads: the other one is told everything all the same.
#[test]
fn a_peer_that_does_not_read_holds_up_nobody() {
    in_namespace(|| async {
        let (a, b) = with_stranger().await;
        let mut deaf = dial(C, A).await;
        introduce(&mut deaf, 65_003).await;
        const MANY: usize = 60_000;
        for i in 0..MANY {
            let [_, high, middle, low] = u32::try_from(i).unwrap().to_be_bytes();
            let prefix = format!("{}.{middle}.{low}.0/24", 20 + high);
            // A path for each prefix, so that each takes a message of its own.
            let mut attributes = bgp::Attributes::local(ip(A));
            attributes.med = Some(u32::try_from(i).unwrap());
            a.handle.announce(prefix.parse().unwrap(), attributes);
        }
        b.learns_many(A, MANY).await;
        let queued: usize = crate::setup::run(&["ss", "-Htn", "dst", C])
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2)?.parse::<usize>().ok())
            .sum();
        assert!(queued > 0, "the deaf peer was told everything: the test shows nothing");
        drop(deaf);
    });
}

#[test]
fn strangers_are_hung_up_on() {
    in_namespace(|| async {
        let (a, b) = pair();
        a.go();
        b.go();
        a.up(B).await;
        let mut stream = dial(C, A).await;
        assert!(last_words(&mut stream).await.is_empty());
        eventually("only the pair is connected", || connections() == 2).await;
    });
}

/// Nobody says anything: the connection is there, and the router waits, but not for this peer only.
#[test]
fn silence_holds_up_nobody() {
    in_namespace(|| async {
        let (a, b) = with_stranger().await;
        let _silent = dial(C, A).await;
        b.announce("10.2.0.0/24", B);
        a.learns("10.2.0.0/24", B).await;
    });
}

/// An UPDATE (or several) of an external speaker.
fn reach(attributes: Attributes, prefixes: Vec<IpNet>) -> Vec<u8> {
    let families = Families::all();
    let codec = Codec { four_octet_asn: true, internal: false, families, extended_next_hop: Families::NONE };
    let attributes = std::sync::Arc::new(attributes);
    let mut octets = Vec::new();
    encode_update(&Update::Reach { family: Family::Ipv4Unicast, attributes, prefixes }, &codec, &mut octets)
        .unwrap();
    octets
}

/// A path as C would tell it.
fn path(as_path: impl IntoIterator<Item = u32>, next_hop: &str) -> Attributes {
    Attributes { as_path: AsPath::sequence(as_path), ..Attributes::local(ip(next_hop)) }
}

/// A million routes at once: the bound ends the session, nothing of it stays, and the honest peer notices nothing.
#[test]
fn a_flood_meets_the_bound() {
    in_namespace(|| async {
        // Made before there is a session: speakers share this thread, and neither says a word while it is made.
        let prefix = |n: u32| Ipv4Net::new((0x1000_0000 + (n << 8)).into(), 24).unwrap().into();
        let flood = reach(path([65_003], C), (0..1_000_000).map(prefix).collect());
        let (mut a, b) = pair();
        let flooder = a.peer(A, C, 65_003);
        flooder.passive = true;
        flooder.max_prefixes = Some(MaxPrefixes { limit: 10_000, restart_after: None });
        a.go();
        b.go();
        a.up(B).await;
        let mut stream = dial(C, A).await;
        introduce(&mut stream, 65_003).await;
        let (mut read, mut write) = stream.into_split();
        let writing = tokio::spawn(async move { write.write_all(&flood).await });
        let (mut framer, mut chunk, mut last) = (Framer::default(), [0; 4096], None);
        while let Ok(count @ 1..) = read.read(&mut chunk).await {
            framer.push(&chunk[..count]);
            while let Some(frame) = framer.next_frame().unwrap() {
                last = Some(frame);
            }
        }
        let last = notification(&last.into_iter().collect::<Vec<_>>());
        assert_eq!((last.code, last.subcode), (6, 1), "Cease, maximum number of prefixes");
        writing.abort();
        let report = a.report(C).await;
        assert!(report.status.stopped && report.received.iter().all(|(_, count)| *count == 0), "{report:?}");
        // What came in one read was counted; not the million.
        assert!(report.counters.announced < 50_000, "{:?}", report.counters);
        b.announce("10.2.0.0/24", B);
        a.learns("10.2.0.0/24", B).await;
        assert_eq!(a.report(B).await.status.history.established, 1);
    });
}

/// A peer asks for everything a million times over and reads nothing: what waits for it is bounded.
#[test]
fn questions_without_reading_pile_nothing_up() {
    in_namespace(|| async {
        let (a, _b) = with_stranger().await;
        for n in 0..200 {
            a.announce(&format!("10.1.{n}.0/24"), A);
        }
        let mut deaf = dial(C, A).await;
        introduce(&mut deaf, 65_003).await;
        let mut question = Vec::new();
        Refresh { family: Family::Ipv4Unicast, kind: RefreshKind::Request }.encode(&mut question);
        const QUESTIONS: usize = 1_000_000;
        let questions = question.repeat(1000);
        for _ in 0..QUESTIONS / 1000 {
            deaf.write_all(&questions).await.unwrap();
        }
        deaf.write_all(&reach(path([65_003], C), vec![net("10.3.0.0/24")])).await.unwrap();
        a.learns("10.3.0.0/24", C).await;
        a.handle.stop_peer(ip(C), "enough");
        let waited: usize = last_words(&mut deaf).await.iter().map(|frame| frame.body.len() + 19).sum();
        // Sockets hold some megabytes of answers; a mark for each question would be twenty-three more.
        assert!(waited < QUESTIONS * question.len() / 2, "{waited} octets waited");
    });
}

/// Our own AS in a path, next hops and prefixes that cannot be, a second peer of one router id: nothing of it is used,
/// nobody's session ends, and all of it is counted.
#[test]
fn what_cannot_be_is_counted() {
    in_namespace(|| async {
        let (mut a, b) = pair();
        a.peer(A, C, 65_002).passive = true;
        a.go();
        b.go();
        a.up(B).await;
        let mut twin = dial(C, A).await;
        introduce_as(&mut twin, 65_002, [10, 9, 0, 2]).await;
        for octets in [
            reach(path([65_002, 65_001, 65_009], C), vec![net("10.3.1.0/24"), net("10.3.2.0/24")]),
            reach(path([65_002], "127.0.0.1"), vec![net("10.3.3.0/24")]),
            reach(path([65_002], A), vec![net("10.3.4.0/24")]),
            reach(path([65_002], C), vec![net("127.0.0.0/8")]),
            reach(path([65_002], C), vec![net("10.3.5.0/24")]),
        ] {
            twin.write_all(&octets).await.unwrap();
        }
        let good = a.learns("10.3.5.0/24", C).await;
        assert_eq!(good.standing, Standing::Best);
        let counters = a.report(C).await.counters;
        let refused = |why| counters.refused(why);
        assert_eq!(refused(Refusal::OwnAs), 2);
        assert_eq!(refused(Refusal::MartianNextHop), 2);
        assert_eq!(refused(Refusal::MartianPrefix), 1);
        assert_eq!((counters.announced, counters.duplicate_router_id), (6, 1));
        assert_eq!(a.report(B).await.counters.duplicate_router_id, 0);
        let used =
            |path: &&bgp::speaker::PathView| path.peer == Some(ip(C)) && path.standing == Standing::Best;
        assert_eq!(a.paths().await.iter().filter(used).count(), 1);
        assert!(a.is_up(B).await && a.is_up(C).await);
    });
}
