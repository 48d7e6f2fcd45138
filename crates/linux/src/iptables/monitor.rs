//! What others do to chains that iptables' nft flavour keeps, as it happens: the kernel holds them in nf_tables, which tells
//! every change with the socket that made it. Nobody tells of the legacy flavour, nor of IP sets.
//!
//! Decided here: which changes are worth a reading (of our chains, and of the built-in ones, where our rules have to keep their
//! places), whose they are, and how often to read at the most. That two programs do not displace each other's rules for ever is the
//! reconciler's to see to. O(1) for each message.

use std::thread;
use std::time::Duration;

use crate::command;
use crate::firewall::FirewallScope;
use crate::netlink::Error;
use crate::netlink::socket::Message;
use crate::nftables::monitor::{Monitor, Touched, chain_of};
use crate::row::FilterTable;

/// Chains that every table may have (`enum nf_inet_hooks`).
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Between two readings at the least: each is a process for each family.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells `each` of changes of others, from now on, until what is returned is dropped. `each` runs on a thread of its own.
///
/// # Errors
/// When a socket cannot be opened or a thread not started.
pub fn watch(scope: FirewallScope, mut each: impl FnMut(Touched) + Send + 'static) -> Result<Monitor, Error> {
    let judge = move |told: &Message<'_>| Touched { sets: false, rules: concerns(told, &scope) };
    Monitor::follow(judge, move |touched| {
        each(touched);
        // What comes meanwhile waits in the socket; if that overflows, it is told that something changed.
        thread::sleep(PAUSE);
    })
}

/// Whether somebody else has changed what matters to us.
fn concerns(told: &Message<'_>, scope: &FirewallScope) -> bool {
    let Some((table, chain)) = chain_of(told) else { return false };
    let is_table = FilterTable::ALL.iter().any(|ours| ours.as_str() == table);
    // The programs we run change things, too; the port of a program's first socket is its process id.
    is_table && (BUILT_IN.contains(&chain) || scope.has_chain(chain)) && !command::has_started(told.port)
}
