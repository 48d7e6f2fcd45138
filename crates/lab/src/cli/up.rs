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
        None => eprintln!("{}", greeting(cluster)),
    }
    // `lab` itself, wherever it was built.
    let here = std::env::current_exe()?.parent().map(std::path::Path::to_owned).unwrap_or_default();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths(std::iter::once(here).chain(std::env::split_paths(&paths)))?;
    shell.env("PATH", paths);
    shell.env("KUBECONFIG", cluster.kubeconfig()).env("LAB_FOLDER", folder).env("PS1", "lab# ");
    let name = process::describe(&shell);
    let status = process::spawn(&mut shell)?.wait().map_err(|error| format!("{name}: {error}"))?;
    Ok(u8::try_from(process::exit_code(status)).unwrap_or(1))
}

fn greeting(cluster: &Cluster) -> String {
    let folder = cluster.fabric().folder().display();
    let nodes: Vec<&str> = cluster.nodes().iter().map(|node| node.name()).collect();
    format!(
        "\nThe cluster is up; it goes when this shell ends (exit). Nodes: {}.\n  \
         kubectl get pods,svc -A -o wide       what there is; apply, annotate, scale and delete work, too\n  \
         lab on node-1 ipvsadm -ln             what a node's kernel holds\n  \
         lab on node-1 ip addr show dev kube-dummy-if\n  \
         lab on node-1 bash                    a shell on a node\n  \
         lab on outside-1 curl -s http://{}:30080/   from outside: who answers, and whom it saw\n  \
         lab on NAMESPACE.POD CMD              the same from a pod\n  \
         less {folder}/node-1.log   the log of an agent\n",
        nodes.join(", "),
        cluster
            .node(1)
            .ok()
            .and_then(|node| node.addresses().first().copied())
            .map_or("NODE".to_owned(), |ip| ip.to_string()),
    )
}
