//! Rules for the kernel's packet filter, from policies in force.
//!
//! Upstream's chains, comments, marks and order, so that people and programs that know them find what they look for:
//!
//! ```text
//! INPUT ───► KUBE-ROUTER-INPUT ───┐                        ┌─► KUBE-NWPLCY-COMMON    flows, ICMP
//! FORWARD ─► KUBE-ROUTER-FORWARD ─┼─► KUBE-POD-FW-<pod> ───┼─► KUBE-NWPLCY-DEFAULT   a direction nobody isolates
//! OUTPUT ──► KUBE-ROUTER-OUTPUT ──┘   refused unless       └─► KUBE-NWPLCY-<policy, direction>
//!                 └─► KUBE-NWPLCY-TAIL    marked by one of these
//! ```
//!
//! A chain is named after what it is for and rewritten in place; only pods of this node have one. Which pods a policy
//! names is in sets, one for each [selection](super::selections), so a pod that comes or goes elsewhere changes members.

pub mod frame;
pub(super) mod members;
pub(super) mod pod;
pub(super) mod policy;
pub(super) mod shared;

use std::sync::Arc;

use ipnet::IpNet;
use linux::reconciler::Claim;
use linux::row::{ChainKey, Family, FilterTable, Key, Name, Row, SetHeader, SetKey, SetKind};
use linux::rule::{Action, Direction, Match, Rule};

use super::compile;
use super::hash::Hash;
use crate::kube::model::ObjectName;
use crate::names::{chain, mark};

/// Room in each set. Only a limit: the kernel's table grows with its members.
const SET_ROOM: u32 = 1 << 20;

/// Longest comment: upstream cuts names in comments there.
const COMMENT_BYTES: usize = 120;

/// The chain of a pod. The hash in it names the pod in logs of refused packets.
pub fn pod_chain(id: &ObjectName) -> Name {
    format!("{}{}", chain::POD_PREFIX, pod_hash(id)).into()
}

fn pod_hash(id: &ObjectName) -> String {
    Hash::new().fields(["pod", &id.namespace, &id.name].into_iter()).finish()
}

/// The chain of a policy in a direction.
pub fn policy_chain(id: &ObjectName, direction: compile::Direction) -> Name {
    let fields = ["policy", &id.namespace, &id.name, direction.as_str()];
    format!("{}{}", chain::POLICY_PREFIX, Hash::new().fields(fields.into_iter()).finish()).into()
}

pub(in crate::network_policy) fn chain_key(family: Family, name: Name) -> ChainKey {
    ChainKey { family, table: FilterTable::Filter, name }
}

fn chain_claim(family: Family, name: &str, rules: Vec<Rule>) -> Claim {
    Claim::new(Key::Chain(chain_key(family, name.into())), Row::Chain(Arc::from(rules)))
}

fn set_claim(family: Family, name: Name, kind: SetKind) -> Claim {
    let header = SetHeader { kind, max_members: SET_ROOM, timeout: None };
    Claim::new(Key::Set(SetKey { family, name }), Row::Set(header))
}

fn jump(name: &str) -> Action {
    Action::Jump(name.into())
}

fn from(net: impl Into<IpNet>) -> Match {
    Match::Source { net: net.into(), not: false }
}

fn to(net: impl Into<IpNet>) -> Match {
    Match::Destination { net: net.into(), not: false }
}

fn in_set(name: Name, directions: &[Direction], not: bool) -> Match {
    Match::Set { name, directions: directions.to_vec(), not }
}

/// Whether some policy, or the lack of one, has permitted the packet.
fn permitted(not: bool) -> Match {
    Match::Mark { value: mark::POLICY_PERMITS, mask: mark::POLICY_PERMITS, not }
}

fn passed_its_pod() -> Match {
    Match::Mark { value: mark::POD_PASSED, mask: mark::POD_PASSED, not: false }
}

fn permit() -> Action {
    Action::Mark { value: mark::POLICY_PERMITS, mask: mark::POLICY_PERMITS }
}

/// `<namespace>/<name>` and a word, for a comment. No part of an object's name ends a line or the kernel's patience.
fn comment(id: &ObjectName, what: &str) -> String {
    let name: String = id.to_string().chars().filter(|c| !c.is_control()).collect();
    let room = COMMENT_BYTES.saturating_sub(what.len() + 1);
    let end = (0..=room.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{} {what}", name.get(..end).unwrap_or_default())
}
