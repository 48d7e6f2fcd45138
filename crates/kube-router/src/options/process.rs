//! Flags of the process itself: what it runs, how much it says, where it can be asked.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;

use super::duration::GoDuration;
use super::refusal::{BadFlag, positive};
use super::syntax::{Switch, Uint};
use super::{Controllers, Families};

/// klog's level: a decimal number.
fn level(text: &str) -> Result<i32, &'static str> {
    text.parse().map_err(|_| "not a whole number")
}

/// What the agent runs and shows, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Process")]
pub(super) struct ProcessFlags {
    /// Show this list and exit
    #[arg(long, short = 'h', default_value = "false")]
    pub(super) help: Switch,
    /// Show the version and exit
    #[arg(long, short = 'V', default_value = "false")]
    pub(super) version: Switch,
    /// Log level: 0 is quiet at rest, 1 and 2 show each change, 3 to 5 each step, 6 and more the libraries too
    #[arg(long = "v", short = 'v', default_value = "0", value_parser = level)]
    pub(super) verbosity: i32,
    /// Remove everything kube-router keeps on this node, and exit. Needs no API server
    #[arg(long, default_value = "false")]
    pub(super) cleanup_config: Switch,
    /// Run the service proxy: Services become IPVS virtual servers
    #[arg(long, default_value = "true")]
    run_service_proxy: Switch,
    /// Run the network policy controller
    #[arg(long, default_value = "true")]
    run_firewall: Switch,
    /// Run the pod routing controller: BGP, overlay, CNI configuration
    #[arg(long, default_value = "false")]
    run_router: Switch,
    /// Run the load-balancer address allocator
    #[arg(long, default_value = "false")]
    run_loadbalancer: Switch,
    /// Handle IPv4; the node must have an IPv4 address
    #[arg(long, default_value = "true")]
    enable_ipv4: Switch,
    /// Handle IPv6; the node must have an IPv6 address
    #[arg(long, default_value = "false")]
    enable_ipv6: Switch,
    /// Address the health server listens on; empty is every address
    #[arg(long, default_value = "")]
    health_addr: String,
    /// Port of the health server; 0 is no server
    #[arg(long, default_value = "20244")]
    health_port: Uint<u16>,
    /// Address the metrics server listens on; empty is every address
    #[arg(long, default_value = "")]
    metrics_addr: String,
    /// Port of the metrics server; 0 is no server
    #[arg(long, default_value = "0")]
    metrics_port: Uint<u16>,
    /// Path of the metrics
    #[arg(long, default_value = "/metrics")]
    metrics_path: String,
    /// Serve CPU profiles
    #[arg(long, default_value = "false")]
    enable_pprof: Switch,
}

impl ProcessFlags {
    pub(super) fn controllers(&self) -> Controllers {
        Controllers {
            service_proxy: self.run_service_proxy.0,
            network_policy: self.run_firewall.0,
            routes: self.run_router.0,
            load_balancer: self.run_loadbalancer.0,
        }
    }

    pub(super) fn families(&self) -> Result<Families, BadFlag> {
        let families = Families { ipv4: self.enable_ipv4.0, ipv6: self.enable_ipv6.0 };
        if families.ipv4 || families.ipv6 {
            Ok(families)
        } else {
            Err(BadFlag::new(
                "enable-ipv4",
                "false",
                "--enable-ipv6 is false too, so no address family is left",
            ))
        }
    }
}

/// Where the process answers over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The health server; `None` with `--health-port=0`.
    pub health: Option<Listen>,
    /// The metrics server and the path of its metrics; `None` with `--metrics-port=0`.
    pub metrics: Option<(Listen, String)>,
    /// Whether CPU profiles are served.
    pub pprof: bool,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// An IP address without brackets, or a host name; empty for every address of both families.
    pub host: String,
    /// A TCP port, 1 to 65535.
    pub port: u16,
}

impl Listen {
    fn read(host: &str, port: u16) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        (port != 0).then(|| Self { host: bare.to_owned(), port })
    }
}

impl Endpoints {
    pub(super) fn read(flags: &ProcessFlags) -> Result<Self, BadFlag> {
        for (flag, host) in [("health-addr", &flags.health_addr), ("metrics-addr", &flags.metrics_addr)] {
            if host.contains(['/', ' ']) {
                return Err(BadFlag::new(flag, host, "not an address to listen on"));
            }
        }
        let path = &flags.metrics_path;
        if !path.starts_with('/') || path.contains(['{', '}', '*', '?', '#', ' ']) {
            return Err(BadFlag::new("metrics-path", path, "not the path of a URL (it starts with a slash)"));
        }
        Ok(Self {
            health: Listen::read(&flags.health_addr, flags.health_port.0),
            metrics: Listen::read(&flags.metrics_addr, flags.metrics_port.0).map(|l| (l, path.clone())),
            pprof: flags.enable_pprof.0,
        })
    }
}

/// The way to the API server and this node's name there, as written on the command line.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Kubernetes API")]
pub(super) struct ApiFlags {
    /// URL of the API server; overrides the one of the kubeconfig
    #[arg(long, default_value = "")]
    master: String,
    /// Kubeconfig file. Without it and --master: /var/lib/kube-router/kubeconfig if it exists, else in-cluster
    #[arg(long, default_value = "")]
    kubeconfig: String,
    /// Name of this node; overrides $NODE_NAME and the host name
    #[arg(long, default_value = "")]
    hostname_override: String,
    /// No effect: a start waits for the API server as long as it takes, and says so
    #[arg(long, default_value = "1m0s")]
    cache_sync_timeout: GoDuration,
}

/// The way to the API server and this node's name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The server; overrides the kubeconfig's.
    pub master: Option<Uri>,
    /// The kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// This node's name.
    pub hostname_override: Option<String>,
    /// How long the first complete lists may take before the agent is called not ready.
    pub cache_sync_timeout: Duration,
}

impl Api {
    pub(super) fn read(flags: ApiFlags) -> Result<Self, BadFlag> {
        let ApiFlags { master, kubeconfig, hostname_override, cache_sync_timeout } = flags;
        Ok(Self {
            master: if master.is_empty() { None } else { Some(server(&master)?) },
            kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
            hostname_override: (!hostname_override.is_empty()).then_some(hostname_override),
            cache_sync_timeout: positive("cache-sync-timeout", cache_sync_timeout)?,
        })
    }
}

/// The URL of an API server; a bare `host:port` is plain HTTP, as client-go reads it.
fn server(text: &str) -> Result<Uri, BadFlag> {
    let bad = |reason: &str| BadFlag::new("master", text, reason);
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| bad("not a URL such as https://10.0.0.1:6443"))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(bad("neither http nor https")),
    }
}
