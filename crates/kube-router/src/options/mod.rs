//! The command line: from arguments to [`Options`], typed and checked once.
//!
//! Decided here, from the arguments alone: what the process is asked to do ([`Request`]), or why it must not start
//! ([`Refusal`]). No file is read and no address bound; what only a running node can tell is left to its owner.
//! The syntax is pflag's (`--flag`, `--flag=false`, `--flag value`, repeated lists, Go durations): the flags are those
//! of the Go kube-router, so its manifests work unchanged.

mod bgp;
mod command;
pub mod duration;
mod firewall;
mod help;
mod older;
mod peers;
mod policy;
mod process;
mod refusal;
mod routes;
mod service_ips;
mod service_proxy;
pub(crate) mod syntax;
#[cfg(test)]
mod tests;
mod unbuilt;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;

use ipnet::IpNet;

pub use self::bgp::{Advertise, Bfd, Bgp, GracefulRestart, RouterId};
pub use self::firewall::FirewallBackend;
pub use self::peers::{ExternalPeer, set_passwords_from_file};
pub use self::policy::{LoadBalancer, NetworkPolicy};
pub use self::process::{Api, Endpoints, Listen};
pub use self::refusal::{BadFlag, Refusal};
pub use self::routes::{Encap, Overlay, Routes};
pub use self::service_ips::ServiceIps;
pub use self::service_proxy::{ServiceProxy, Timeouts};
pub use self::unbuilt::{unbuilt, unbuilt_controllers};

use self::command::{Flags, Parsed};

/// What the process is asked to do.
#[derive(Debug)]
pub enum Request {
    /// Show this text.
    Help(String),
    /// Show the version.
    Version,
    /// Remove everything kube-router keeps on this node.
    CleanUp(Box<Options>),
    /// Run the agent.
    Run(Box<Options>),
}

/// Every option of the agent, one field per concern. Values are in range and agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// klog level: 0 is quiet at rest.
    pub verbosity: i32,
    /// Which controllers run.
    pub controllers: Controllers,
    /// Which address families are handled; at least one.
    pub families: Families,
    /// Where the process answers over HTTP.
    pub endpoints: Endpoints,
    /// The way to the API server.
    pub api: Api,
    /// The addresses and ports services may have.
    pub service_ips: ServiceIps,
    /// The service proxy.
    pub service_proxy: ServiceProxy,
    /// What programs the packet filter.
    pub firewall: FirewallBackend,
    /// The network policy controller.
    pub network_policy: NetworkPolicy,
    /// Pod routing.
    pub routes: Routes,
    /// The BGP speaker.
    pub bgp: Bgp,
    /// The load-balancer address allocator.
    pub load_balancer: LoadBalancer,
    /// Where pods live, for nodes whose objects do not say.
    pub pod_cidrs: Vec<IpNet>,
    /// What the user should be told about the flags used, one line each.
    pub warnings: Vec<&'static str>,
    /// Which flags were given.
    given: Given,
}

/// Which controllers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Services become IPVS virtual servers.
    pub service_proxy: bool,
    /// Network policies become firewall rules.
    pub network_policy: bool,
    /// Pod networks become routes.
    pub routes: bool,
    /// Services of type LoadBalancer get addresses.
    pub load_balancer: bool,
}

impl Controllers {
    /// Whether there is something to run. The allocator alone is not: it gives out what nobody would serve.
    pub fn any(self) -> bool {
        self.service_proxy || self.network_policy || self.routes
    }
}

/// Which address families are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

impl Families {
    /// Whether the family of `address` is handled.
    pub fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// The flags given on the command line, as opposed to those left at their default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Given(BTreeSet<String>);

impl Given {
    fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }
}

/// Reads the arguments, the program's own name first.
///
/// # Errors
/// [`Refusal`]; its exit status and text are what the user sees.
pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Request, Refusal> {
    let Parsed { flags, given } = command::parse(args)?;
    let process = &flags.process;
    if let Some(argument) = flags.positionals.first() {
        let argument = argument.to_string_lossy().into_owned();
        let looks_like_bool = syntax::go_bool(&argument).is_some();
        let hint = if looks_like_bool {
            " (a switch takes its value after an equals sign: --flag=false)"
        } else {
            ""
        };
        return Err(Refusal::Positional(argument, hint));
    }
    if process.help.0 {
        return Ok(Request::Help(usage()));
    }
    if process.version.0 {
        return Ok(Request::Version);
    }
    let clean_up = process.cleanup_config.0;
    let options = Box::new(Options::check(flags, given)?);
    Ok(if clean_up { Request::CleanUp(options) } else { Request::Run(options) })
}

/// The flags as clap knows them, for shell completion.
pub(crate) fn flags() -> clap::Command {
    command::command()
}

/// The text of `--help`.
pub fn usage() -> String {
    help::usage(&command::command())
}

impl Options {
    /// The options of a command line that gives these flags, for tests and tools.
    ///
    /// # Errors
    /// As [`read`]; [`Refusal::Syntax`] if the flags ask for help or the version.
    pub fn from_flags(flags: &[&str]) -> Result<Self, Refusal> {
        let args = std::iter::once("kube-router").chain(flags.iter().copied()).map(OsString::from);
        match read(args)? {
            Request::Run(options) | Request::CleanUp(options) => Ok(*options),
            Request::Help(_) | Request::Version => {
                Err(Refusal::Syntax("no options are asked for".to_owned()))
            }
        }
    }

    fn check(flags: Flags, given: Given) -> Result<Self, BadFlag> {
        let Flags {
            process,
            api,
            service_ips,
            service_proxy,
            firewall,
            policy,
            routes,
            mut bgp,
            load_balancer,
            older,
            ..
        } = flags;
        let families = process.families()?;
        Ok(Self {
            verbosity: process.verbosity,
            controllers: process.controllers(),
            families,
            endpoints: Endpoints::read(&process)?,
            api: Api::read(api)?,
            service_ips: ServiceIps::read(service_ips, families, &given)?,
            service_proxy: ServiceProxy::read(service_proxy)?,
            firewall: FirewallBackend::read(&firewall, policy.use_nftables_for_netpol.0)?,
            network_policy: NetworkPolicy::read(&policy)?,
            routes: Routes::read(&routes)?,
            pod_cidrs: older.apply(&mut bgp, families, &given)?,
            bgp: Bgp::read(bgp)?,
            load_balancer: LoadBalancer::read(&load_balancer)?,
            warnings: older::warnings(&given),
            given,
        })
    }
}
