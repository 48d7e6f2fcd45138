//! Faults under which nothing may be lost and nothing may pass that is forbidden.

use std::time::{Duration, Instant};

use super::half_open::half_open;
use super::overflow::overflow;
use super::stage::{SOON, Stage};
use super::{Error, Options};
use crate::api_server::{Availability, Resource};

/// Peers keep the routes of an agent that restarts for so long (default of `--bgp-graceful-restart-time`).
const RESTART_TIME: Duration = Duration::from_secs(90);
/// How long an agent is left without an API server from its start: its peers are the nodes the API server tells of.
const UNKNOWING: Duration = Duration::from_secs(30);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drill {
    Killed,
    Stopped,
    Refused,
    Hanging,
    HalfOpen,
    Failing,
    Slow,
    Watches,
    Overflow,
    FullDisk,
    ReadOnly,
}

impl Drill {
    pub(super) const ALL: [Drill; 11] = [
        Drill::Killed,
        Drill::Stopped,
        Drill::Refused,
        Drill::Hanging,
        Drill::HalfOpen,
        Drill::Failing,
        Drill::Slow,
        Drill::Watches,
        Drill::Overflow,
        Drill::FullDisk,
        Drill::ReadOnly,
    ];

    /// What is done, as the table says it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Drill::Killed => "kill -9 of an agent at a random moment, started again",
            Drill::Stopped => "SIGTERM to an agent at a random moment, started again",
            Drill::Refused => "API server refuses connections; an agent starts towards the end",
            Drill::Hanging => {
                "API server takes connections and answers nothing; an agent starts towards the end"
            }
            Drill::HalfOpen => {
                "connections to the API server half open: what it sends to the node is lost, new ones too"
            }
            Drill::Failing => "API server answers 429, 500, 503; an agent starts meanwhile",
            Drill::Slow => "API server takes a second for every answer; an agent starts meanwhile",
            Drill::Watches => "watches cut, expired (410), history compacted, old news repeated",
            Drill::Overflow => {
                "netlink overflow: 40,000 notifications while an agent stands still, then a route is deleted"
            }
            Drill::FullDisk => {
                "disk full under /etc/cni/net.d and /run/kube-router; an agent starts meanwhile"
            }
            Drill::ReadOnly => "/etc read-only, /etc/cni/net.d with it; an agent starts meanwhile",
        }
    }

    /// Does it and waits until everything is as it should be again. How often it was done.
    pub(super) async fn perform(self, stage: &mut Stage, options: &Options) -> Result<u32, Error> {
        let times = match self {
            Drill::Killed => deaths(stage, options, true).await?,
            Drill::Stopped => deaths(stage, options, false).await?,
            Drill::Refused => away(stage, options, Availability::Refusing).await?,
            Drill::Hanging => away(stage, options, Availability::Hanging).await?,
            Drill::HalfOpen => half_open(stage, options).await?,
            Drill::Failing => failing(stage, options).await?,
            Drill::Slow => slow(stage).await?,
            Drill::Watches => watches(stage).await?,
            Drill::Overflow => overflow(stage, options).await?,
            Drill::FullDisk => {
                let full = "mount -t tmpfs -o size=4k,nr_inodes=1 full";
                let folders = ["/etc/cni/net.d", "/run/kube-router"];
                covered(stage, folders.map(|folder| format!("{full} {folder}")).into(), &folders).await?
            }
            Drill::ReadOnly => {
                let folder = "/etc";
                // What is mounted below it comes along, and each mount is read-only for itself.
                let each = [folder, "/etc/cni/net.d", "/etc/iproute2"];
                let read_only = each.map(|folder| format!("mount -o remount,bind,ro {folder}"));
                let mut lines = vec![format!("mount --rbind {folder} {folder}")];
                lines.extend(read_only);
                covered(stage, lines, &[folder]).await?
            }
        };
        stage.agents_ready().await?;
        stage.settled().await?;
        Ok(times)
    }
}

/// Dies at any moment of its life, its start included. Every tenth one, or on a slow machine the next after a while, lives
/// until its peers have heard it: they keep the routes of an agent that restarts for `--bgp-graceful-restart-time` and no
/// longer, so one that never gets so far loses them however it dies.
async fn deaths(stage: &mut Stage, options: &Options, kill: bool) -> Result<u32, Error> {
    let mut heard = Instant::now();
    for number in 1..=options.deaths {
        let Some(agent) = stage.cluster.take_agent(1) else { return Err(Error::Object("agent on node-1")) };
        if kill {
            agent.kill();
        } else {
            agent.stop(SOON);
        }
        stage.cluster.start_agent(1)?;
        if number % 10 == 0 || heard.elapsed() > RESTART_TIME / 3 {
            stage.heard().await?;
            heard = Instant::now();
            continue;
        }
        let moment = Duration::from_millis(stage.random.u64(0..4000));
        tokio::time::sleep(moment).await;
    }
    Ok(options.deaths)
}

/// Nobody is to notice how long the API server is away; an agent that starts towards the end knows nothing until it is
/// back.
async fn away(stage: &mut Stage, options: &Options, how: Availability) -> Result<u32, Error> {
    stage.cluster.faults().set_availability(how);
    tokio::time::sleep(options.away).await;
    stage.cluster.start_agent(1)?;
    tokio::time::sleep(options.away.min(UNKNOWING)).await;
    stage.cluster.faults().set_availability(Availability::Serving);
    Ok(1)
}

async fn failing(stage: &mut Stage, options: &Options) -> Result<u32, Error> {
    const CODES: [u16; 3] = [429, 500, 503];
    stage.cluster.start_agent(1)?;
    for code in CODES {
        stage.cluster.faults().fail_requests(Some(code));
        stage.cluster.faults().disconnect_watches();
        tokio::time::sleep(options.away.min(Duration::from_secs(20)) / 3).await;
    }
    stage.cluster.faults().fail_requests(None);
    Ok(3)
}

async fn slow(stage: &mut Stage) -> Result<u32, Error> {
    stage.cluster.faults().set_latency(Duration::from_secs(1));
    let started = stage.start_agent().await;
    stage.cluster.faults().set_latency(Duration::ZERO);
    started.map(|()| 1)
}

async fn watches(stage: &mut Stage) -> Result<u32, Error> {
    let faults = stage.cluster.faults();
    let breaks: [&dyn Fn(); 4] = [
        &|| faults.disconnect_watches(),
        &|| faults.expire_watches(),
        &|| {
            faults.compact();
            faults.disconnect_watches();
        },
        &|| faults.repeat_events(Resource::EndpointSlices, 10),
    ];
    for broken in breaks {
        broken();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(4)
}

/// Mounts something over folders of the node, starts an agent on it, and takes it away.
async fn covered(stage: &mut Stage, mounts: Vec<String>, folders: &[&str]) -> Result<u32, Error> {
    for folder in folders {
        stage.tool(&format!("mkdir -p {folder}"))?;
    }
    for line in &mounts {
        stage.tool(line)?;
    }
    let started = stage.start_agent().await;
    for folder in folders {
        stage.tool(&format!("umount -l {folder}"))?;
    }
    started?;
    // The next one finds its folders as they were.
    stage.start_agent().await?;
    Ok(1)
}
