//! Malformed messages, one at a time, and what becomes of the session and the path: RFC 7606 for UPDATE, RFC 4271 §6 for the
//! rest. The same table is run against implementations that are known to follow it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::node::{Fabric, Families, Outside};
use lab::router::{Config, Neighbour, Path, Router, Software};

use crate::raw::{Heard, KEEPALIVE, NOTIFICATION, OPEN, Raw, UPDATE, attribute, message, open, update};
use crate::setup::{eventually, net};

/// What an UPDATE must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The path goes, the session stays.
    Withdrawn,
    /// The path stays without the attribute, and the session, too.
    Discarded,
    /// NOTIFICATION with code 3 and one of these subcodes.
    Reset(&'static [u8]),
}
use Outcome::{Discarded, Reset, Withdrawn};

const ASN: u16 = 64999;
const PREFIX: &str = "10.77.0.0/24";
const NLRI: [u8; 4] = [24, 10, 77, 0];

/// Well-known and optional transitive flags (RFC 4271 §4.3).
const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0xc0;

fn origin() -> Vec<u8> {
    attribute(WELL_KNOWN, 1, &[0])
}

fn as_path() -> Vec<u8> {
    attribute(WELL_KNOWN, 2, &[&[2, 1][..], &u32::from(ASN).to_be_bytes()].concat())
}

fn next_hop() -> Vec<u8> {
    attribute(WELL_KNOWN, 3, &[172, 31, 0, 201])
}

struct Case {
    name: &'static str,
    attributes: Vec<Vec<u8>>,
    nlri: Vec<u8>,
    outcome: Outcome,
}

/// One malformed UPDATE for each kind of error of RFC 7606 §3, §5 and §7.
fn cases() -> Vec<Case> {
    let with = |extra: Vec<u8>| vec![origin(), as_path(), next_hop(), extra];
    let case = |name, attributes, outcome| Case { name, attributes, nlri: NLRI.to_vec(), outcome };
    let segment = |kind: u8, count: u8| {
        vec![
            origin(),
            attribute(WELL_KNOWN, 2, &[&[kind, count][..], &u32::from(ASN).to_be_bytes()].concat()),
            next_hop(),
        ]
    };
    let mp_reach = |hop: &[u8]| {
        let hop = [&[u8::try_from(hop.len()).unwrap()][..], hop].concat();
        attribute(OPTIONAL, 14, &[&[0, 2, 1][..], &hop, &[0], &[32, 0x20, 1, 0x0d, 0xb8]].concat())
    };
    let global: [u8; 16] = [0xfd, 0x31, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc9];
    let mut cases = vec![
        case("ORIGIN of value 3", vec![attribute(WELL_KNOWN, 1, &[3]), as_path(), next_hop()], Withdrawn),
        case(
            "ORIGIN of two bytes",
            vec![attribute(WELL_KNOWN, 1, &[0, 0]), as_path(), next_hop()],
            Withdrawn,
        ),
        case(
            "ORIGIN with the flags of an optional attribute",
            vec![attribute(TRANSITIVE, 1, &[0]), as_path(), next_hop()],
            Withdrawn,
        ),
        case("no ORIGIN", vec![as_path(), next_hop()], Withdrawn),
        case("AS_PATH segment longer than the attribute", segment(2, 3), Withdrawn),
        case("AS_PATH segment of an unknown type", segment(9, 1), Withdrawn),
        case("no AS_PATH", vec![origin(), next_hop()], Withdrawn),
        case(
            "NEXT_HOP of five bytes",
            vec![origin(), as_path(), attribute(WELL_KNOWN, 3, &[172, 31, 0, 201, 1])],
            Withdrawn,
        ),
        case("no NEXT_HOP", vec![origin(), as_path()], Withdrawn),
        case("MED of three bytes", with(attribute(OPTIONAL, 4, &[0, 0, 1])), Withdrawn),
        case("COMMUNITIES of three bytes", with(attribute(TRANSITIVE, 8, &[0, 0, 1])), Withdrawn),
        case("LARGE_COMMUNITY of eleven bytes", with(attribute(TRANSITIVE, 32, &[0; 11])), Withdrawn),
        case("LOCAL_PREF from outside", with(attribute(WELL_KNOWN, 5, &[0, 0, 0, 200])), Discarded),
        case("ATOMIC_AGGREGATE of one byte", with(attribute(WELL_KNOWN, 6, &[1])), Discarded),
        case("AGGREGATOR of five bytes", with(attribute(TRANSITIVE, 7, &[0; 5])), Discarded),
        case("ORIGINATOR_ID from outside", with(attribute(OPTIONAL, 9, &[10, 1, 1, 1])), Discarded),
        case("CLUSTER_LIST from outside", with(attribute(OPTIONAL, 10, &[10, 1, 1, 1])), Discarded),
        case("two ORIGINs", with(attribute(WELL_KNOWN, 1, &[2])), Discarded),
        case(
            "two MP_REACH_NLRI",
            vec![origin(), as_path(), next_hop(), mp_reach(&global), mp_reach(&global)],
            Reset(&[1]),
        ),
    ];
    let mut whole = case("prefix of 33 bits", vec![origin(), as_path(), next_hop()], Reset(&[10]));
    whole.nlri = vec![33, 10, 77, 0, 0, 0];
    cases.push(whole);
    cases.push(case(
        "IPv6 next hop of four bytes",
        vec![origin(), as_path(), mp_reach(&[1, 2, 3, 4])],
        Reset(&[0, 1, 8, 9]),
    ));
    cases
}

/// A router and, on the same wire, a host to speak from.
struct Stage {
    router: Router,
    outside: Outside,
}

impl Stage {
    fn new(software: Software) -> Self {
        Self::with_hold(software, 3)
    }

    fn with_hold(software: Software, seconds: u16) -> Self {
        let fabric = Arc::new(Fabric::new(Families::Dual, 1).expect("a fabric"));
        let mut router = Router::new(&fabric, 0, 1, software).expect("a router");
        let outside = Outside::new(&fabric, 0, 1).expect("a host");
        let mut neighbour = Neighbour::new(outside.addresses()[0], ASN.into());
        neighbour.passive = true;
        let mut config = Config::new(65001, [10, 0, 0, 1].into()).neighbour(neighbour);
        config.hold_seconds = seconds;
        router.start(config).unwrap_or_else(|error| panic!("{error}"));
        Self { router, outside }
    }

    fn dial(&self) -> Raw {
        Raw::connect(self.outside.namespace(), self.router.addresses()[0])
    }

    /// An established session without keepalives; a router may refuse a neighbour it has just closed with for a moment.
    fn establish(&self) -> Raw {
        self.establish_with(0)
    }

    fn establish_with(&self, hold: u16) -> Raw {
        eventually("a session", || {
            let mut raw = self.dial();
            raw.send(OPEN, &open(4, ASN, hold, [10, 0, 0, 99]));
            let mut last = Heard::Silence;
            for _ in 0..8 {
                match raw.hear(Duration::from_secs(5)) {
                    Heard::Message(OPEN, _) => raw.send(KEEPALIVE, &[]),
                    Heard::Message(KEEPALIVE, _) => return Ok(raw),
                    other => {
                        last = other;
                        break;
                    }
                }
            }
            Err(format!("{last:?}\n{}", self.router.log()))
        })
    }

    fn peer(&self) -> IpAddr {
        self.outside.addresses()[0]
    }

    fn path(&self) -> Option<Path> {
        let paths = self.router.paths(&net(PREFIX)).unwrap_or_else(|error| panic!("{error}"));
        paths.into_iter().find(|path| path.from == Some(self.peer()))
    }
}

/// Announces a good path, then the malformed one, and judges; the session is made anew after a reset only.
fn judge(stage: &Stage, raw: &mut Raw, case: &Case) -> Result<(), String> {
    let (name, router) = (case.name, stage.router.name());
    let marked = attribute(OPTIONAL, 4, &[0, 0, 0, 42]);
    raw.send(UPDATE, &update(&[origin(), as_path(), next_hop(), marked], &NLRI));
    eventually(&format!("{router}: a good path before '{name}'"), || {
        let good = stage.path().is_some_and(|path| path.med == Some(42));
        if good { Ok(()) } else { Err(stage.router.log()) }
    });
    raw.send(UPDATE, &update(&case.attributes, &case.nlri));
    if let Reset(subcodes) = case.outcome {
        let heard = ended(raw);
        let good = heard.as_ref().is_some_and(|body| body[0] == 3 && subcodes.contains(&body[1]));
        raw.close();
        *raw = stage.establish();
        return if good { Ok(()) } else { Err(format!("{name}: {heard:?} instead of 3/{subcodes:?}")) };
    }
    // Whatever the router makes of it, it has done so when the next path is there.
    let after = [24, 10, 78, 0];
    raw.send(UPDATE, &update(&[origin(), as_path(), next_hop()], &after));
    let followed = |stage: &Stage| -> Result<bool, String> {
        let paths = stage.router.paths(&net("10.78.0.0/24")).map_err(|error| error.to_string())?;
        Ok(!paths.is_empty())
    };
    let mut reset = None;
    eventually(&format!("{router}: the path after '{name}'"), || {
        if followed(stage)? {
            return Ok(());
        }
        match raw.hear(Duration::from_millis(50)) {
            Heard::Message(NOTIFICATION, body) => reset = Some(body),
            Heard::End => reset = Some(Vec::new()),
            _ => return Err(stage.router.log()),
        }
        Ok(())
    });
    if let Some(body) = reset {
        raw.close();
        *raw = stage.establish();
        return Err(format!("{name}: the session was reset with {body:?}"));
    }
    raw.send(UPDATE, &[&[0, 4][..], &after, &[0, 0]].concat());
    // FRR has read the message by now, but lets go of a withdrawn path only when it gets to choosing again.
    let end = Instant::now() + SETTLED;
    loop {
        let path = stage.path();
        match (case.outcome, &path) {
            (Withdrawn, None) => return Ok(()),
            (Discarded, Some(path)) if undressed(path) => return Ok(()),
            (outcome, _) if Instant::now() > end => return Err(format!("{name}: not {outcome:?}: {path:?}")),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// How long a router may take from reading a path to having it, or not, in its table.
const SETTLED: Duration = Duration::from_secs(60);
/// How long it may take to end a session.
const ENDED: Duration = Duration::from_secs(60);

/// Without anything the table's attributes would have brought.
fn undressed(path: &Path) -> bool {
    let preferred = path.local_pref.is_some_and(|preference| preference != 100);
    !preferred && path.originator.is_none() && path.clusters.is_empty()
}

/// The NOTIFICATION a session ends with. Any number of messages may come before it: FRR tells a neighbour its own paths.
fn ended(raw: &mut Raw) -> Option<Vec<u8>> {
    let end = Instant::now() + ENDED;
    loop {
        match raw.hear(end.saturating_duration_since(Instant::now())) {
            Heard::Message(NOTIFICATION, body) => return Some(body),
            Heard::Message(..) => {}
            Heard::End | Heard::Silence => return None,
        }
    }
}

/// Runs the table against an implementation; returns what it does otherwise. What is known of it is not asked: waiting for
/// what never comes takes long.
pub(crate) fn updates(software: Software) -> Vec<String> {
    let stage = Stage::new(software);
    let mut raw = stage.establish();
    let mut cases = cases();
    cases.retain(|case| !known(software).contains(&case.name));
    cases.iter().filter_map(|case| judge(&stage, &mut raw, case).err()).collect()
}

/// Messages that are wrong before there is a session: header, OPEN, and what may not come yet (RFC 4271 §6.1, §6.2, §6.6).
pub(crate) fn openings(software: Software) -> Vec<String> {
    let good = message(OPEN, &open(4, ASN, 9, [10, 0, 0, 99]));
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let opening = |version, asn, hold, id| message(OPEN, &open(version, asn, hold, id));
    let id = [10, 0, 0, 99];
    let table: Vec<(&str, Vec<u8>, [u8; 2])> = vec![
        ("a marker with a zero", with(3, 0), [1, 1]),
        ("a length of 18", [&with(16, 0)[..17], &[18, 1]].concat(), [1, 2]),
        ("a length of 4097", [&with(16, 16)[..17], &[1, 1]].concat(), [1, 2]),
        ("a message of type 9", message(9, &[]), [1, 3]),
        ("version 3", opening(3, ASN, 9, id), [2, 1]),
        ("another autonomous system", opening(4, 64998, 9, id), [2, 2]),
        ("router id 0.0.0.0", opening(4, ASN, 9, [0; 4]), [2, 3]),
        ("a hold time of one second", opening(4, ASN, 1, id), [2, 6]),
        ("KEEPALIVE before OPEN", message(KEEPALIVE, &[]), [5, 1]),
    ];
    // A router of its own for each: after an error it would refuse connections for a while, and longer each time.
    let judge = |(name, bytes, wanted): &(&str, Vec<u8>, [u8; 2])| {
        let stage = Stage::new(software);
        let mut raw = stage.dial();
        raw.bytes(bytes);
        let last = ended(&mut raw);
        let good = last.as_ref().is_some_and(|body| body[..2] == wanted[..]);
        (!good).then(|| format!("{name}: {last:?} instead of {wanted:?}"))
    };
    table.iter().filter_map(judge).collect()
}

/// A neighbour that is nearly too late each time keeps its session; one that is too late is told so (RFC 4271 §6.5).
pub(crate) fn hold_time(software: Software) {
    let stage = Stage::with_hold(software, 6);
    let failed: Vec<String> = (0..5).map_while(|_| was_in_time(&stage).err()).collect();
    assert!(failed.len() < 5, "{}\n{}", failed.join("\n"), stage.router.log());
}

/// An error where the session ended early, which proves nothing once: this side may have been too late itself, and a router
/// that stood still finds that it did not hear in time before it reads what it was told.
fn was_in_time(stage: &Stage) -> Result<(), String> {
    const HOLD: Duration = Duration::from_secs(6);
    const NEARLY: Duration = Duration::from_millis(4500);
    let mut raw = stage.establish_with(6);
    let mut quiet = Instant::now();
    for _ in 0..2 {
        while quiet.elapsed() < NEARLY {
            let heard = raw.hear(NEARLY.saturating_sub(quiet.elapsed()));
            if matches!(heard, Heard::Message(NOTIFICATION, _) | Heard::End) {
                return Err(format!("{heard:?} after {:?}", quiet.elapsed()));
            }
        }
        // Before it is sent: the router cannot have heard it earlier.
        quiet = Instant::now();
        raw.send(KEEPALIVE, &[]);
    }
    let heard = ended(&mut raw);
    let after = quiet.elapsed();
    if after + Duration::from_millis(100) < HOLD {
        return Err(format!("{heard:?} after {after:?}"));
    }
    assert_eq!(heard.map(|body| body[0]), Some(4), "Hold Timer Expired, after {after:?}");
    Ok(())
}

/// What FRR 8.4 and BIRD 2.0 are known to do otherwise. FRR loses its place in the message when an attribute that is not
/// the last is malformed; both ignore a next hop of a wrong length instead of closing the session.
fn known(software: Software) -> &'static [&'static str] {
    match software {
        Software::Frr => &[
            "ORIGIN of value 3",
            "ORIGIN of two bytes",
            "ORIGIN with the flags of an optional attribute",
            "AS_PATH segment longer than the attribute",
            "AS_PATH segment of an unknown type",
            "ORIGINATOR_ID from outside",
            "CLUSTER_LIST from outside",
            "two ORIGINs",
            "IPv6 next hop of four bytes",
        ],
        Software::Bird => &["IPv6 next hop of four bytes"],
        _ => &[],
    }
}

/// The table is not of our own making: every line of it but one is what FRR or BIRD does.
#[test]
fn the_table_is_what_others_do() {
    crate::setup::each(&[Software::Frr, Software::Bird], |software| {
        let mut otherwise = updates(software);
        // FRR sometimes takes a wrong first message on a fresh connection for one out of turn (5/0).
        if software == Software::Bird {
            otherwise.extend(openings(software));
        }
        assert!(otherwise.is_empty(), "{software}:\n{}", otherwise.join("\n"));
    });
}

/// BIRD is not asked: it closes up to a quarter of the hold time too early.
#[test]
fn others_keep_the_hold_time() {
    crate::setup::each(&[Software::Frr, Software::GoBgp], hold_time);
}
