//! What can be typed: one subcommand per file.

mod bench;
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
    /// Run something on a kernel with IPVS, dummy links and tunnels
    #[command(subcommand)]
    Vm(vm::Command),
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line and does what it says; the exit status of what was run is the lab's.
pub(crate) fn run() -> Result<u8, Failure> {
    match Arguments::parse().command {
        Command::Bench(flags) => bench::run(flags),
        Command::Vm(command) => vm::run(command),
    }
}
