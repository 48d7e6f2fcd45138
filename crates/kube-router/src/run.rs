//! The whole life of the process, top to bottom: what starts in which order, and how it ends.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use axum::http::Uri;
use linux::row::{LaneName, Name};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::causes::with_causes;
use crate::cni::plugin;
use crate::core::{self, Core, LaneError};
use crate::counters::IpvsCounters;
use crate::health::{Awaited, Health};
use crate::kube::client::{self, ClientError};
use crate::kube::{connection, watch};
use crate::listen::{self, ListenError};
use crate::metrics::{Metrics, MetricsError};
use crate::options::{self, Options, Request};
use crate::status::socket;
use crate::{cleanup, commands, health_ports, logging, preflight, version};

/// How long BGP peers may take to be told that we stop.
const GOOD_BYE: std::time::Duration = std::time::Duration::from_secs(2);

/// Exit status of a command that is interrupted: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// The agent could not start or go on. Shown on stderr; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime or the signal handlers could not be set up.
    #[error("cannot set up the process")]
    Setup(#[source] std::io::Error),
    /// Network configuration needs root.
    #[error("kube-router must run as root (user id 0)")]
    NotRoot,
    /// A port is taken or an address is not ours.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The clean-up was interrupted or broke off.
    #[error("the clean-up did not finish; run it again")]
    CleanUpCutShort,
    /// Metrics are defined badly.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// There is no usable way to the API server, or no node name.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client for the API server cannot be built from its configuration.
    #[error("cannot set up the client of the API server")]
    Connect(#[source] ::kube::Error),
    /// The kernel lacks what a controller stands on.
    #[error(transparent)]
    Lane(#[from] LaneError),
}

/// The process from its arguments to its exit status: 0 for a normal stop, help, version, clean-up and for nothing to
/// run; 1 for an error or a positional argument; 2 for bad flags. Under the name of the CNI plugin it is the plugin.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.first().is_some_and(|program| plugin::is_named_by(program)) {
        return plugin::main();
    }
    small_pages();
    // Two threads: the watchers and servers need little, and blocking work has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&RunError::Setup(error)),
    };
    let code = runtime.block_on(async {
        match Stop::new() {
            Ok(stop) => dispatch(args, stop).await,
            Err(error) => failed(&RunError::Setup(error)),
        }
    });
    // Servers and watchers hold nothing that must be put down.
    runtime.shutdown_background();
    code
}

/// Where huge pages are given to everyone, every heap area touched anywhere would take 2 MiB: tens of megabytes for an
/// agent without a single Service. Before Linux 3.15 there is nothing to switch off.
fn small_pages() {
    let _ = nix::sys::prctl::set_thp_disable(true);
}

async fn dispatch(args: Vec<OsString>, mut stop: Stop) -> ExitCode {
    let program = args.first().map_or_else(|| "kube-router".into(), |arg| arg.to_string_lossy().into_owned());
    let command = tokio::select! {
        command = commands::run(&args) => command,
        // What a shell makes of a command that ends by a signal it does not catch.
        () = stop.asked() => return ExitCode::from(INTERRUPTED),
    };
    if let Some(code) = command {
        return code;
    }
    let done = match options::read(args) {
        Err(refusal) => {
            // The reason comes first and last: usage is long, and logs are read from either end.
            say(&format!("Error: {refusal}\n\n{}\nError: {refusal}\n", options::usage()));
            return ExitCode::from(refusal.exit_code());
        }
        Ok(Request::Help(usage)) => {
            say(&usage);
            Ok(())
        }
        Ok(Request::Version) => {
            say(&format!("{}\n", version::line(&program)));
            Ok(())
        }
        Ok(Request::CleanUp(options)) => clean_up(*options, &mut stop).await,
        Ok(Request::Run(options)) => run(*options, &program, &mut stop).await,
    };
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &RunError) -> ExitCode {
    say(&format!("Error: {}\n", with_causes(error)));
    ExitCode::FAILURE
}

/// Writes to stderr. If nobody reads it any more, nobody is told.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn require_root() -> Result<(), RunError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(RunError::NotRoot) }
}

/// Failures of parts are in the log; upstream's exit status is 0 all the same, and its users' scripts rely on it.
async fn clean_up(options: Options, stop: &mut Stop) -> Result<(), RunError> {
    logging::start(options.verbosity);
    require_root()?;
    let work = tokio::task::spawn_blocking(move || cleanup::run(&options));
    let done = tokio::select! {
        done = work => done.map_err(|_| RunError::CleanUpCutShort)?,
        () = stop.asked() => return Err(RunError::CleanUpCutShort),
    };
    if let Err(error) = done {
        tracing::error!("clean-up is not complete: {}", with_causes(&error));
    }
    Ok(())
}

async fn run(options: Options, program: &str, stop: &mut Stop) -> Result<(), RunError> {
    logging::start(options.verbosity);
    require_root()?;
    tracing::info!("{}", version::line(program));
    for warning in start_warnings(&options) {
        tracing::warn!("{warning}");
    }
    if !options.controllers.any() {
        tracing::info!("nothing to run: --run-service-proxy, --run-firewall and --run-router are all false");
        return Ok(());
    }
    if options.controllers.service_proxy {
        warn_of_leftovers().await;
    }
    let health = Health::default();
    // Awaited before anybody can ask, or the first answer would be yes.
    let programmed = health.await_first("first complete programming of the kernel");
    if let Some(listen) = &options.endpoints.health {
        listen::serve(listen::bind("health", listen)?, health.routes());
    }
    let metrics = Metrics::new()?;
    if let Some((listen, path)) = &options.endpoints.metrics {
        listen::serve(listen::bind("metrics", listen)?, metrics.routes(path));
    }
    let start = Start {
        node: client::node_name(&options.api)?,
        client: client::config(&options.api).await?,
        options,
        health,
        metrics,
        programmed,
    };
    core(start, stop).await?;
    tracing::info!("stopped; what is in the kernel stays and keeps forwarding");
    Ok(())
}

/// Says what kube-proxy left here, with the commands that remove it. On a thread that may block.
async fn warn_of_leftovers() {
    // It ends early only if the process does.
    let found = tokio::task::spawn_blocking(preflight::leftovers).await.unwrap_or_default();
    for leftover in found {
        tracing::warn!("{leftover}");
    }
}

/// What the core is started with.
pub struct Start {
    /// This node's name.
    pub node: String,
    /// The way to the API server; not connected yet.
    pub client: ::kube::Config,
    /// All options.
    pub options: Options,
    /// Where components report that they work.
    pub health: Health,
    /// Where components count.
    pub metrics: Metrics,
    /// Told when the kernel is as it should be for the first time.
    programmed: Awaited,
}

/// Runs the controllers until the process is asked to stop.
async fn core(start: Start, stop: &mut Stop) -> Result<(), RunError> {
    let Start { node, client, options, health, metrics, programmed } = start;
    tracing::info!(node, server = server(&client.cluster_url), "started");
    let controllers = core::enabled_controllers(&options);
    if controllers.is_empty() {
        programmed.done();
        stop.asked().await;
        return Ok(());
    }
    let client = connection::client(&client).map_err(RunError::Connect)?;
    let (health_ports, follow) = tokio::sync::watch::channel(Arc::default());
    let needs = core::needs(&controllers, &Name::from(node.as_str()), &options);
    let core = Core::start(core::Start {
        node: &node,
        options: Arc::new(options),
        controllers,
        health: &health,
        metrics: &metrics,
        ready: programmed,
        health_ports,
    })?;
    if let Err(error) = socket::serve(&socket::path(), core.clone()).await {
        tracing::warn!("{error}; `kube-router status` has nobody to ask, and the CNI plugin nobody to tell");
    }
    if needs.lanes.contains(&LaneName::Ipvs) {
        metrics.attach_service_counters(Arc::new(IpvsCounters::new(core.clone())))?;
        tokio::spawn(health_ports::follow(follow));
    }
    let tuning = watch::Tuning::spread();
    for selection in needs.watches {
        watch::start(client.clone(), selection, tuning.clone(), core.clone());
    }
    stop.asked().await;
    let (done, ended) = tokio::sync::oneshot::channel();
    if core.send(core::Input::Stop(done)).await.is_ok() {
        // Whoever does not hear the good-bye in time will miss us soon.
        let _ = tokio::time::timeout(GOOD_BYE, ended).await;
    }
    Ok(())
}

/// Host and port of a URL, without a user or password it may hold.
fn server(url: &Uri) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host().unwrap_or_default())
}

/// What the user is told once at the start: older names, flags without effect, controllers that do not exist.
fn start_warnings(options: &Options) -> Vec<String> {
    let mut warnings: Vec<String> = options.warnings.iter().map(|warning| (*warning).to_owned()).collect();
    let (flags, controllers) = (options::unbuilt(options), options::unbuilt_controllers(options));
    let flags: Vec<String> = flags.iter().map(|flag| format!("--{flag}")).collect();
    let mut unbuilt = Vec::new();
    if !controllers.is_empty() {
        unbuilt.push(format!("controllers not built yet: {}", controllers.join(", ")));
    }
    if !flags.is_empty() {
        unbuilt.push(format!("flags without effect yet: {}", flags.join(" ")));
    }
    if !unbuilt.is_empty() {
        warnings.push(unbuilt.join("; "));
    }
    warnings
}

/// SIGTERM or SIGINT, caught from the first instruction on.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Installs the handlers, inside of a tokio runtime.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until the process is asked to stop; at once if it was asked before.
    pub async fn asked(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!("{name}: stopping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let shown = |url: &'static str| server(&Uri::from_static(url));
        assert_eq!(shown("https://user:hunter2@[fd00::1]:6443/"), "[fd00::1]:6443");
        assert_eq!(shown("https://kubernetes.default.svc/"), "kubernetes.default.svc");
    }

    #[test]
    fn what_is_not_built_is_said_in_one_line() {
        let options =
            Options::from_flags(&["--run-router", "--enable-bfd", "--config-sync-period=1m"]).unwrap();
        let warnings = start_warnings(&options);
        assert_eq!(warnings.len(), 2);
        assert_eq!(warnings[1], "flags without effect yet: --enable-bfd");
        let waits = Options::from_flags(&["--run-firewall=false", "--cache-sync-timeout=10s"]).unwrap();
        assert!(matches!(start_warnings(&waits).as_slice(), [one] if one.contains("goes on trying")));
        let quiet = Options::from_flags(&["--run-firewall=false"]).unwrap();
        assert_eq!(start_warnings(&quiet), Vec::<String>::new());
    }
}
