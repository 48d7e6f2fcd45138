//! The kernel's own word on the route of each path: the only part of an explanation that is looked up.

use linux::netlink::Error;
use linux::route::lookup::{Asked, Ways};
use linux::row::RouteKind;
use nix::errno::Errno;

use super::{Explanation, RouteHop};

/// Adds it, in the calling thread's network namespace. Blocks for up to two requests a path; what cannot be asked is a
/// note. O(links + paths).
pub fn look_up(explanation: &mut Explanation) {
    let mut ways = match Ways::open() {
        Ok(ways) => ways,
        Err(error) => {
            explanation.notes.push(format!("routes are not looked up: {error}"));
            return;
        }
    };
    let here = explanation.node.clone();
    let from_here = explanation.from.node.as_ref() == Some(&here);
    for path in &mut explanation.paths {
        // A pod of this node sends through a link of ours. How others' packets get here is not known.
        let forwarded = from_here && path.source_pod.is_some();
        let asked =
            Asked { destination: path.destination, source: forwarded.then_some(path.source), forwarded };
        let as_own = !forwarded;
        path.route = Some(match ways.of(&asked) {
            Ok(way) => RouteHop {
                link: way.link.map(|link| link.to_string()),
                via: way.via,
                table: way.table,
                local: way.kind == RouteKind::Local,
                as_own,
                refused: None,
            },
            Err(error) => RouteHop { as_own, refused: Some(reason(&error)), ..RouteHop::default() },
        });
    }
}

fn reason(error: &Error) -> String {
    match error.errno().map(Errno::from_raw) {
        Some(Errno::ENETUNREACH) => "there is no route to it".to_owned(),
        Some(Errno::EHOSTUNREACH) => "the route says unreachable, or forwarding is switched off".to_owned(),
        Some(Errno::EXDEV) => "a reverse path filter drops what comes from there".to_owned(),
        _ => error.to_string(),
    }
}
