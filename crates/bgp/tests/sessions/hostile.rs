//! A socket instead of a speaker at the other end.

use std::net::{Ipv4Addr, SocketAddr};

use bgp::Families;
use bgp::wire::{Capabilities, Frame, Framer, Kind, Notification, Open, encode_keepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::setup::{A, B, C, Router, connections, eventually, in_namespace, ip, pair};

/// Dials a router from the address of one of its peers.
async fn dial(from: &str, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::new(ip(from), 0)).unwrap();
    socket.connect(SocketAddr::new(ip(to), 179)).await.unwrap()
}

/// Says OPEN and KEEPALIVE, as a speaker would.
async fn introduce(stream: &mut TcpStream, asn: u32) {
    let open = Open {
        asn,
        hold_time: 90,
        router_id: Ipv4Addr::new(10, 9, 9, 9),
        capabilities: Capabilities {
            families: Families::all(),
            four_octet_asn: true,
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
