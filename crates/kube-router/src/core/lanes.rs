//! Opening the lanes that controllers need, and what the kernel must have for them.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use linux::cni::CniLane;
use linux::iptables::tool;
use linux::ipvs::{IpvsLane, OpenError};
use linux::lane::{Lane, LaneThread};
use linux::netlink::Requests;
use linux::route::{OwnPorts, RouteLane};
use linux::row::LaneName;
use linux::sysctl::{SysctlLane, Sysctls};
use tokio::sync::mpsc;

use super::backend::Backend;
use super::controller::Needs;
use super::input::Input;
use crate::metrics::MetricsError;
use crate::names;
use crate::network_services::base;
use crate::options::Options;

/// A lane could not be opened: the start ends here, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The kernel has no IPVS, or does not let us at it.
    #[error(transparent)]
    Ipvs(#[from] OpenError),
    /// No working `iptables-restore`.
    #[error("firewall rules need iptables: {0}")]
    Iptables(#[from] tool::Error),
    /// nf_tables does not answer.
    #[error(
        "firewall rules with nftables need nf_tables in the kernel: {0}; load the module nf_tables, or give \
         --firewall-backend=iptables"
    )]
    Nftables(#[from] linux::netlink::Error),
    /// A thread could not be started.
    #[error("starting the {what} thread: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The speaker's metrics clash with others.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// rtnetlink could not be opened.
    #[error("watching links and addresses: {0}")]
    Monitor(linux::netlink::Error),
}

/// What opening found and started.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) lanes: Vec<(LaneName, LaneThread)>,
    pub(super) own_ports: OwnPorts,
    /// Where the lanes count the netlink requests they send.
    pub(super) requests: Vec<(&'static str, Arc<Requests>)>,
    /// The packet filter, where somebody needs it.
    pub(super) backend: Option<Backend>,
}

/// Opens the lanes needed and no other. Their sockets belong to the calling thread's network namespace.
pub(super) fn open(
    needs: &Needs,
    options: &Options,
    core: &mpsc::Sender<Input>,
) -> Result<Opened, LaneError> {
    let mut opened = Opened::default();
    for name in &needs.lanes {
        if opened.backend.is_none() && matches!(name, LaneName::Sets | LaneName::Firewall) {
            opened.backend = Some(Backend::choose(options.firewall)?);
        }
        let backend = opened.backend.as_ref();
        let lane: Box<dyn Lane> = match name {
            LaneName::Sysctl => Box::new(SysctlLane::new(Sysctls::default(), needs.settings.clone())),
            LaneName::Route => Box::new(RouteLane::new(needs.routes.clone(), opened.own_ports.clone())),
            LaneName::Ipvs => Box::new(IpvsLane::open(base::timeouts(options))?),
            LaneName::Sets => match backend {
                Some(backend) => backend.sets(&needs.firewall),
                None => continue,
            },
            LaneName::Firewall => match backend {
                Some(backend) => backend.rules(&needs.firewall),
                None => continue,
            },
            LaneName::Cni => Box::new(cni_lane()),
        };
        opened.requests.extend(lane.requests().map(|requests| (interface(*name, backend), requests)));
        opened.lanes.push((*name, spawn(*name, lane, core)?));
    }
    Ok(opened)
}

/// The lane's kernel interface where metrics speak of it.
fn interface(lane: LaneName, backend: Option<&Backend>) -> &'static str {
    match lane {
        LaneName::Sysctl => "sysctl",
        LaneName::Route => "route",
        LaneName::Ipvs => "ipvs",
        LaneName::Sets => backend.map_or("ipset", Backend::sets_interface),
        LaneName::Firewall => "nftables",
        LaneName::Cni => "cni",
    }
}

/// The lane's name where health speaks of it.
pub(super) fn health_name(lane: LaneName) -> &'static str {
    match lane {
        LaneName::Sysctl => "sysctl lane",
        LaneName::Route => "route lane",
        LaneName::Ipvs => "IPVS lane",
        LaneName::Sets => "sets lane",
        LaneName::Firewall => "firewall lane",
        LaneName::Cni => "CNI lane",
    }
}

fn spawn(name: LaneName, lane: Box<dyn Lane>, core: &mpsc::Sender<Input>) -> Result<LaneThread, LaneError> {
    let core = core.clone();
    let report = move |report| {
        // The core is gone only when the process ends.
        let _ = core.blocking_send(Input::Lane(report));
    };
    LaneThread::spawn(name, move || lane, report)
        .map_err(|source| LaneError::Thread { what: health_name(name), source })
}

/// Where the CNI configuration file may be: where upstream's variable ([`names::CNI_FILE_VARIABLE`]) says, or the default
/// in either form.
pub(crate) fn cni_files(variable: Option<OsString>) -> Vec<PathBuf> {
    match variable {
        Some(file) => vec![file.into()],
        None => names::CNI_FILES.map(PathBuf::from).into(),
    }
}

/// The CNI configuration file. Plugins are where CNI's own variable says, or in the usual places.
pub(crate) fn cni_lane() -> CniLane {
    let files = cni_files(std::env::var_os(names::CNI_FILE_VARIABLE));
    let folders = match std::env::var_os("CNI_PATH") {
        Some(folders) => std::env::split_paths(&folders).collect(),
        None => names::CNI_FOLDERS.map(PathBuf::from).into(),
    };
    CniLane::new(files).with_plugin(names::CNI_PLUGIN.into(), folders)
}
