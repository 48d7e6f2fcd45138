//! Faults under which nothing may be lost and nothing may pass that is forbidden.

use std::time::Duration;

use super::stage::{SOON, Stage};
use super::{Error, Options};
use crate::api_server::{Availability, Resource};

/// Addresses that come and go at once, more than a socket's buffer can tell of.
const FLOOD: u32 = 20_000;
/// How long an agent is left without an API server from its start. Its peers are the nodes the API server tells of, and they keep the
/// routes of one that restarts for 90 s.
const UNKNOWING: Duration = Duration::from_secs(30);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drill {
    Killed,
    Stopped,
    Refused,
    Hanging,
    Failing,
    Slow,
    Watches,
    Flood,
    FullDisk,
    ReadOnly,
}

impl Drill {
    pub(super) const ALL: [Drill; 10] = [
        Drill::Killed,
        Drill::Stopped,
        Drill::Refused,
        Drill::Hanging,
        Drill::Failing,
        Drill::Slow,
        Drill::Watches,
        Drill::Flood,
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
            Drill::Failing => "API server answers 429, 500, 503; an agent starts meanwhile",
            Drill::Slow => "API server takes a second for every answer; an agent starts meanwhile",
            Drill::Watches => "watches cut, expired (410), history compacted, old news repeated",
            Drill::Flood => "netlink overflow: 20,000 routes of somebody else come and go",
            Drill::FullDisk => {
                "disk full under /etc/cni/net.d and /run/kube-router; an agent starts meanwhile"
            }
            Drill::ReadOnly => "/etc/cni/net.d read-only; an agent starts meanwhile",
        }
    }

    /// Does it and waits until everything is as it should be again. How often it was done.
    pub(super) async fn perform(self, stage: &mut Stage, options: &Options) -> Result<u32, Error> {
        let times = match self {
            Drill::Killed => deaths(stage, options, true).await?,
            Drill::Stopped => deaths(stage, options, false).await?,
            Drill::Refused => away(stage, options, Availability::Refusing).await?,
            Drill::Hanging => away(stage, options, Availability::Hanging).await?,
            Drill::Failing => failing(stage, options).await?,
            Drill::Slow => slow(stage).await?,
            Drill::Watches => watches(stage).await?,
            Drill::Flood => flood(stage)?,
            Drill::FullDisk => {
                let full = "mount -t tmpfs -o size=4k,nr_inodes=1 full";
                let folders = ["/etc/cni/net.d", "/run/kube-router"];
                covered(stage, folders.map(|folder| format!("{full} {folder}")).into(), &folders).await?
            }
            Drill::ReadOnly => {
                let folder = "/etc/cni/net.d";
                let lines = vec![
                    format!("mount --bind {folder} {folder}"),
                    format!("mount -o remount,bind,ro {folder}"),
                ];
                covered(stage, lines, &[folder]).await?
            }
        };
        stage.agents_ready().await?;
        stage.settled().await?;
        Ok(times)
    }
}

/// Dies at any moment of its life, its start included. Every tenth one lives until its peers have heard it: they keep the
/// routes of an agent that restarts for `--bgp-graceful-restart-time` and no longer, so one that never gets so far loses them
/// however it dies.
async fn deaths(stage: &mut Stage, options: &Options, kill: bool) -> Result<u32, Error> {
    for number in 1..=options.deaths {
        let Some(agent) = stage.cluster.take_agent(1) else { return Err(Error::Object("agent on node-1")) };
        if kill {
            agent.kill();
        } else {
            agent.stop(SOON);
        }
        stage.cluster.start_agent(1)?;
        if number % 10 == 0 {
            stage.heard().await?;
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

/// The agent hears of every route, by a socket with a buffer of some size.
fn flood(stage: &Stage) -> Result<u32, Error> {
    let node = stage.cluster.node(1)?;
    for verb in ["add", "del"] {
        let route = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            format!("route {verb} 198.{}.{high}.{low}/32 dev lo proto 99\n", 18 + (number >> 16))
        };
        node.namespace().ip(&(0..FLOOD).map(route).collect::<String>())?;
    }
    Ok(1)
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
