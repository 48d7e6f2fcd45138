//! Why a command line does not start the agent, and with which exit status.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::Families;
use super::duration::GoDuration;

/// A command line that does not start the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A flag has a value it cannot have.
    #[error(transparent)]
    BadFlag(#[from] BadFlag),
    /// An unknown flag, or one without its value.
    #[error("{0}")]
    Syntax(String),
    /// Something that is not a flag.
    #[error("unexpected argument {0:?}: kube-router takes flags only{1}")]
    Positional(String, &'static str),
}

impl Refusal {
    /// The process exit status: 1 for a positional argument, 2 for everything about flags.
    pub fn exit_code(&self) -> u8 {
        match self {
            Refusal::Positional(..) => 1,
            Refusal::BadFlag(_) | Refusal::Syntax(_) => 2,
        }
    }
}

/// A flag with a value it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad value {value:?} for --{flag}: {reason}")]
pub struct BadFlag {
    /// The flag without its dashes.
    pub flag: String,
    /// The value as given, or `***` where it is a secret.
    pub value: String,
    /// What is wrong with it, without a full stop.
    pub reason: String,
}

impl BadFlag {
    /// A refusal of `value`; never call it with a secret.
    pub(super) fn new(flag: &str, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self { flag: flag.to_owned(), value: value.to_string(), reason: reason.into() }
    }

    /// A refusal that keeps the value to itself.
    pub(super) fn secret(flag: &str, reason: impl Into<String>) -> Self {
        Self::new(flag, "***", reason)
    }
}

/// A period or time limit: more than zero.
pub(super) fn positive(flag: &str, value: GoDuration) -> Result<Duration, BadFlag> {
    value
        .to_std()
        .filter(|period| !period.is_zero())
        .ok_or_else(|| BadFlag::new(flag, value, "must be more than 0"))
}

/// Networks of address families that are switched on.
pub(super) fn of_enabled_family(flag: &str, nets: &[IpNet], families: Families) -> Result<(), BadFlag> {
    for net in nets {
        if !families.has(net.addr()) {
            let switch = if net.addr().is_ipv4() { "--enable-ipv4" } else { "--enable-ipv6" };
            return Err(BadFlag::new(flag, net, format!("its address family is off ({switch}=false)")));
        }
    }
    Ok(())
}
