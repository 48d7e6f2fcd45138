//! What others do to chains that iptables' nft flavour keeps, as it happens: the kernel holds them in nf_tables, which tells
//! every change with the socket that made it. Nobody tells of the legacy flavour, nor of IP sets.
//!
//! Decided here: which changes are worth a reading (of our chains, and of the built-in ones, where our rules have to keep their
//! places), whose they are, and how often to read when somebody changes the same chains all the time. O(1) for each message.

use std::thread;
use std::time::{Duration, Instant};

use crate::command;
use crate::firewall::FirewallScope;
use crate::netlink::Error;
use crate::netlink::socket::Message;
use crate::nftables::monitor::{Monitor, Touched, chain_of};
use crate::row::FilterTable;

/// Chains that every table may have (`enum nf_inet_hooks`).
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Between two readings: at first, and at most, when one change follows the other.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Tells `each` of changes of others, from now on, until what is returned is dropped. `each` runs on a thread of its own.
///
/// # Errors
/// When a socket cannot be opened or a thread not started.
pub fn watch(scope: FirewallScope, mut each: impl FnMut(Touched) + Send + 'static) -> Result<Monitor, Error> {
    let mut calm = Calm::default();
    let judge = move |told: &Message<'_>| Touched { sets: false, rules: concerns(told, &scope) };
    Monitor::follow(judge, move |touched| {
        each(touched);
        // What comes meanwhile waits in the socket; if that overflows, it is told that something changed.
        thread::sleep(calm.pause(Instant::now()));
    })
}

/// Whether somebody else has changed what matters to us.
fn concerns(told: &Message<'_>, scope: &FirewallScope) -> bool {
    let Some((_, table, chain)) = chain_of(told) else { return false };
    let is_table = FilterTable::ALL.iter().any(|ours| ours.as_str() == table);
    // The programs we run change things, too; the port of a program's first socket is its process id.
    is_table && (BUILT_IN.contains(&chain) || scope.has_chain(chain)) && !command::has_started(told.port)
}

/// Pauses that grow while somebody changes what we change back, so that two programs do not fight at full speed.
#[derive(Debug, Default)]
struct Calm {
    last: Option<(Instant, Duration)>,
}

impl Calm {
    fn pause(&mut self, now: Instant) -> Duration {
        let pause = match self.last {
            // Told again within twice the last pause.
            Some((at, pause)) if now < at + pause * 2 => (pause * 2).min(PAUSE.1),
            _ => PAUSE.0,
        };
        self.last = Some((now + pause, pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_changes_follow_each_other() {
        let mut calm = Calm::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..8 {
            let pause = calm.pause(now);
            seen.push(pause.as_secs());
            now += pause + Duration::from_millis(1);
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += Duration::from_secs(121);
        assert_eq!(calm.pause(now), PAUSE.0);
    }
}
