//! `lab up`: a cluster to poke at by hand.

use std::path::PathBuf;

use clap::Args;
use lab::cluster::Cluster;
use lab::process::{self, command};

use super::Failure;

#[derive(Args)]
pub(super) struct Flags {
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// IPv4 and IPv6
    #[arg(long)]
    dual_stack: bool,
    /// Subnets the nodes are spread over
    #[arg(long, default_value_t = 1)]
    segments: u8,
    /// Leave the routes between pods to the agents
    #[arg(long)]
    no_pod_routes: bool,
    /// Start no agents
    #[arg(long)]
    no_agents: bool,
    /// Manifests to apply first
    #[arg(short, long)]
    filename: Vec<PathBuf>,
    /// Run this instead of a shell
    #[arg(short, long)]
    command: Option<String>,
    /// Flags of every agent
    #[arg(last = true)]
    agent_flags: Vec<String>,
}

pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut builder =
        Cluster::builder().nodes(flags.nodes).segments(flags.segments).route_pods(!flags.no_pod_routes);
    if flags.dual_stack {
        builder = builder.dual_stack();
    }
    if !flags.no_agents {
        builder = builder.agent_flags(flags.agent_flags);
    }
    let cluster = runtime.block_on(builder.start())?;
    for file in &flags.filename {
        print!("{}", cluster.kubectl([std::ffi::OsStr::new("apply"), "-f".as_ref(), file.as_os_str()])?);
    }
    shell(&cluster, flags.command.as_deref())
}

/// Gives the terminal a shell with the cluster's KUBECONFIG; the cluster lives as long as the shell.
pub(super) fn shell(cluster: &Cluster, line: Option<&str>) -> Result<u8, Failure> {
    let folder = cluster.fabric().folder();
    let program = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut shell = command(program);
    match line {
        Some(line) => {
            shell.args(["-c", line]);
        }
        None => eprintln!(
            "The cluster is up; it goes when this shell ends.\n\
             kubectl is configured; `lab on NAME CMD` runs a command on a node, pod or the outside host, and\n\
             {} has their names and the agents' logs.",
            folder.display()
        ),
    }
    shell.env("KUBECONFIG", cluster.kubeconfig()).env("LAB_FOLDER", folder).env("PS1", "lab# ");
    let name = process::describe(&shell);
    let status = process::spawn(&mut shell)?.wait().map_err(|error| format!("{name}: {error}"))?;
    Ok(u8::try_from(process::exit_code(status)).unwrap_or(1))
}
