//! What can be typed: one subcommand per file.

mod api_server;
mod bench;
mod chaos;
mod demo;
mod on;
mod up;
mod vm;

use clap::{Parser, Subcommand};

/// Clusters out of network namespaces, on this kernel or in a small VM.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the agent against a floor measured in the same run
    Bench(bench::Flags),
    /// Do to a node what goes wrong on nodes, under connections, and count what is lost
    Chaos {
        #[command(flatten)]
        place: Here,
        #[command(flatten)]
        flags: chaos::Flags,
    },
    /// Start a cluster and a shell in it
    Up {
        #[command(flatten)]
        place: Here,
        #[command(flatten)]
        flags: up::Flags,
    },
    /// Show the main job: services, connections, who answered
    Demo {
        #[command(flatten)]
        place: Here,
        #[command(flatten)]
        flags: demo::Flags,
    },
    /// Run a command in a node, a pod (NAMESPACE.NAME), `fabric` or `outside-1` of a lab that is up
    On {
        /// Which
        name: String,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// The API server alone
    ApiServer(api_server::Flags),
    /// Run something on a kernel with IPVS, dummy links and tunnels
    #[command(subcommand)]
    Vm(vm::Command),
    /// Remove what killed labs left behind
    Clean,
}

/// Where a cluster is built: where this kernel lacks something, the whole command is run again in the VM.
#[derive(clap::Args)]
struct Here {
    /// On this kernel, whatever it lacks
    #[arg(long)]
    here: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line and does what it says; the exit status of what was run is the lab's.
pub(crate) fn run() -> Result<u8, Failure> {
    match Arguments::parse().command {
        Command::Bench(flags) => bench::run(flags),
        Command::Chaos { place, flags } => place.run(|| chaos::run(flags)),
        Command::Up { place, flags } => place.run(|| up::run(flags)),
        Command::Demo { place, flags } => place.run(|| demo::run(flags)),
        Command::On { name, command } => on::run(&name, &command),
        Command::ApiServer(flags) => api_server::run(flags),
        Command::Vm(command) => vm::run(command),
        Command::Clean => clean(),
    }
}

impl Here {
    fn run(&self, work: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
        let missing = if self.here { Vec::new() } else { lab::vm::native::missing() };
        if missing.is_empty() {
            return work();
        }
        eprintln!("lab: this kernel has no {}; starting a VM that has", missing.join(", "));
        let mut arguments = std::env::args();
        let program = std::env::current_exe()?.to_string_lossy().into_owned();
        let _ = arguments.next();
        let subcommand = arguments.next().unwrap_or_default();
        vm::again([program, subcommand, "--here".to_owned()].into_iter().chain(arguments).collect())
    }
}

fn clean() -> Result<u8, Failure> {
    for folder in lab::node::sweep()? {
        println!("removed {}", folder.display());
    }
    Ok(0)
}
