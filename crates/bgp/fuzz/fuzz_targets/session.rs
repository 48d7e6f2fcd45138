//! Octets as what a peer says from its OPEN on: the session answers or ends, and holds no more than a message.
#![no_main]

use std::time::{Duration, Instant};

use bgp::config::RemoteAsn;
use bgp::session::{Ends, Event, Session, State, Terms};
use bgp::{Asn, Families};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let terms = Terms {
        asn: Asn::DEFAULT,
        router_id: [10, 0, 0, 1].into(),
        hold_time: 90,
        remote_asn: RemoteAsn::Any,
        families: Families::all(),
        extended_next_hop: true,
        graceful_restart: None,
    };
    let now = Instant::now();
    let mut out = Vec::new();
    let mut session = Session::new(terms, Duration::from_secs(15), 1);
    session.event(Event::StartPassive, now, &mut out);
    let ends = Ends { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
    session.event(Event::Connected(ends), now, &mut out);
    for chunk in octets.chunks(97) {
        session.received(chunk);
        while session.next_message(now, &mut out) {}
        if session.state() == State::Idle {
            return;
        }
    }
});
