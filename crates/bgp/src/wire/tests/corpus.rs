//! What `tests/fuzz` and `fuzz` start from is good: valid messages of every kind, recorded and made.

use std::path::PathBuf;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// Made messages of each kind.
const MADE: usize = 24;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message")
}

/// Valid messages of every kind, the same ones every time.
fn made() -> Vec<(String, Vec<u8>)> {
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let mut made = Vec::new();
    for n in 0..MADE {
        let open = arbitrary::open().new_tree(&mut runner).unwrap().current();
        let mut octets = Vec::new();
        open.encode(&mut octets);
        made.push((format!("made-open-{n}"), octets));
        for (internal, name) in [(true, "internal"), (false, "external")] {
            let update = arbitrary::update(internal).new_tree(&mut runner).unwrap().current();
            let all = encoded(&update, &codec(internal));
            // The first of its messages: mutations of long lists of prefixes find nothing new.
            let length = usize::from(u16::from_be_bytes([all[16], all[17]]));
            made.push((format!("made-{name}-{n}"), all[..length].to_vec()));
        }
    }
    for kind in [RefreshKind::Request, RefreshKind::Begin] {
        let mut octets = Vec::new();
        Refresh { family: Family::Ipv6Unicast, kind }.encode(&mut octets);
        Notification::with_text(notification::Cease::AdministrativeShutdown, "bye").encode(&mut octets);
        encode_keepalive(&mut octets);
        made.push((format!("made-others-{}", kind as u8), octets));
    }
    made
}

/// `UPDATE_CORPUS=1` writes the made ones anew.
#[test]
fn is_of_valid_messages() {
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        for (name, octets) in made() {
            std::fs::write(folder().join(name), octets).unwrap();
        }
    }
    let (mut files, mut updates) = (0, 0);
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        for frame in frames(&std::fs::read(&path).unwrap()) {
            let good = match frame.kind {
                Kind::Open => Open::decode(&frame.body).is_ok(),
                Kind::Update => {
                    updates += 1;
                    let read = |internal| update::decode(&frame.body, &codec(internal));
                    read(true).is_ok_and(|read| read.faults.is_empty()) || read(false).is_ok()
                }
                Kind::RouteRefresh => Refresh::decode(&frame.body, true).is_ok(),
                Kind::Notification | Kind::Keepalive => true,
            };
            assert!(good, "{}", path.display());
        }
        files += 1;
    }
    assert!(files >= 3 * MADE && updates >= 2 * MADE, "{files} files, {updates} updates");
}
