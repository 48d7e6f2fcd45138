//! The flags as clap sees them, with clap's habits changed to pflag's.

use std::any::TypeId;
use std::ffi::OsString;
use std::net::IpAddr;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, FromArgMatches};

use super::Given;
use super::bgp::BgpFlags;
use super::duration::GoDuration;
use super::firewall::FirewallFlags;
use super::older::OlderFlags;
use super::policy::{LoadBalancerFlags, PolicyFlags};
use super::process::{ApiFlags, ProcessFlags};
use super::refusal::{BadFlag, Refusal};
use super::routes::RoutesFlags;
use super::service_ips::ServiceIpFlags;
use super::service_proxy::ServiceProxyFlags;
use super::syntax::{Cidr, List, Switch, Uint};
use crate::secret::Secret;

/// Every flag of the command line, in the order of the help text.
#[derive(clap::Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) process: ProcessFlags,
    #[command(flatten)]
    pub(super) api: ApiFlags,
    #[command(flatten)]
    pub(super) service_ips: ServiceIpFlags,
    #[command(flatten)]
    pub(super) service_proxy: ServiceProxyFlags,
    #[command(flatten)]
    pub(super) firewall: FirewallFlags,
    #[command(flatten)]
    pub(super) policy: PolicyFlags,
    #[command(flatten)]
    pub(super) routes: RoutesFlags,
    #[command(flatten)]
    pub(super) bgp: BgpFlags,
    #[command(flatten)]
    pub(super) load_balancer: LoadBalancerFlags,
    #[command(flatten)]
    pub(super) older: OlderFlags,
    /// What is not a flag; refused.
    pub(super) positionals: Vec<OsString>,
}

/// A command line whose values have the right types.
pub(super) struct Parsed {
    pub(super) flags: Flags,
    pub(super) given: Given,
}

/// The command with pflag's syntax: a switch takes a value after `=` only, any other flag takes the next argument
/// whatever it looks like, the last use of a flag counts, uses of a list add up.
pub(super) fn command() -> Command {
    let command = Command::new("kube-router")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    Flags::augment_args(command).mut_args(|arg| {
        if arg.is_positional() {
            return arg;
        }
        let kind = kind(arg.get_value_parser());
        let arg = arg.value_name(kind);
        match kind {
            "bool" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg.allow_hyphen_values(true),
        }
    })
}

/// pflag's name of a flag's type.
fn kind(parser: &ValueParser) -> &'static str {
    let kinds = [
        (TypeId::of::<Switch>(), "bool"),
        (TypeId::of::<GoDuration>(), "duration"),
        (TypeId::of::<Uint<u8>>(), "uint8"),
        (TypeId::of::<Uint<u16>>(), "uint16"),
        (TypeId::of::<Uint<u32>>(), "uint32"),
        (TypeId::of::<Uint<u64>>(), "uint"),
        (TypeId::of::<i32>(), "level"),
        (TypeId::of::<List<Cidr>>(), "cidrs"),
        (TypeId::of::<List<IpAddr>>(), "ips"),
        (TypeId::of::<List<Uint<u32>>>(), "uints"),
        (TypeId::of::<List<Secret>>(), "strings"),
    ];
    let id = parser.type_id();
    kinds.iter().find(|(of, _)| id == *of).map_or("string", |(_, name)| name)
}

/// Reads the arguments, the program's own name first.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, Refusal> {
    let command = command();
    let flag_of_id: Vec<(String, String)> = command.get_arguments().filter_map(id_and_flag).collect();
    let mut matches = command.try_get_matches_from(args).map_err(|error| refusal(&error))?;
    let from_user = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let given = flag_of_id.into_iter().filter(|(id, _)| from_user(id)).map(|(_, flag)| flag).collect();
    let flags = Flags::from_arg_matches_mut(&mut matches).map_err(|error| refusal(&error))?;
    Ok(Parsed { flags, given: Given(given) })
}

fn id_and_flag(arg: &Arg) -> Option<(String, String)> {
    arg.get_long().map(|flag| (arg.get_id().to_string(), flag.to_owned()))
}

/// Says in our words what clap found wrong.
fn refusal(error: &clap::Error) -> Refusal {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    // clap shows a flag together with its value's name: `--bgp-port <uint32>`.
    let shown = context(ContextKind::InvalidArg);
    let flag = shown.split([' ', '=', '[']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::ValueValidation => {
            let flag = flag.trim_start_matches('-');
            let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            let bad = if flag == "peer-router-passwords" {
                BadFlag::secret(flag, reason)
            } else {
                BadFlag::new(flag, value, reason)
            };
            Refusal::BadFlag(bad)
        }
        ErrorKind::UnknownArgument => Refusal::Syntax(format!("unknown flag {shown}")),
        ErrorKind::InvalidValue
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::NoEquals => Refusal::Syntax(format!("{flag} needs a value")),
        _ => Refusal::Syntax(error.to_string().trim_start_matches("error: ").trim_end().to_owned()),
    }
}
