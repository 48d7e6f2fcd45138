//! `lab vm …`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use lab::vm::{self, Options, Place};

use super::Failure;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run a command; its output, exit status, folder and environment are this one's
    Exec {
        #[command(flatten)]
        options: Flags,
        /// Lend it this terminal
        #[arg(short, long)]
        tty: bool,
        /// The command
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Get a shell
    Shell {
        #[command(flatten)]
        options: Flags,
    },
    /// Run the tests that are `#[ignore = "vm: …"]`, all in one boot
    Test {
        #[command(flatten)]
        options: Flags,
        /// Only tests whose name contains this
        #[arg(long, default_value = "")]
        filter: String,
        /// Only this package (default: the workspace)
        #[arg(short, long)]
        package: Vec<String>,
        /// Test executables (default: build the workspace's)
        executables: Vec<PathBuf>,
    },
    /// Fetch the kernel and say which it is
    Prepare {
        #[command(flatten)]
        options: Flags,
    },
    /// The VM's own first process
    #[command(hide = true)]
    Guest {
        /// What to do
        job: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct Flags {
    /// On this kernel or not at all
    #[arg(long, conflicts_with = "force_vm")]
    native: bool,
    /// In the VM even where this kernel has everything
    #[arg(long)]
    force_vm: bool,
    /// Seconds from start to end, boot included
    #[arg(long, env = "KUBE_ROUTER_LAB_TIMEOUT", default_value_t = 1200)]
    timeout: u64,
    /// Debian kernel package
    #[arg(long, env = "KUBE_ROUTER_LAB_KERNEL", default_value = "linux-image-amd64")]
    kernel: String,
    /// qemu accelerator: tcg, or kvm where it works
    #[arg(long, env = "KUBE_ROUTER_LAB_ACCEL", default_value = "tcg")]
    accel: String,
    /// Memory of the VM in MiB
    #[arg(long, env = "KUBE_ROUTER_LAB_MEMORY", default_value_t = 3072)]
    memory: u64,
}

impl Flags {
    fn options(self, interactive: bool) -> Options {
        let place = match (self.native, self.force_vm) {
            (true, _) => Place::Native,
            (_, true) => Place::Vm,
            _ => Place::Auto,
        };
        Options {
            place,
            timeout: Duration::from_secs(self.timeout),
            kernel: self.kernel,
            accelerator: self.accel,
            memory_mib: self.memory,
            interactive,
        }
    }
}

pub(super) fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Exec { options, tty, command } => one(command, options.options(tty)),
        Command::Shell { options } => {
            if !vm::has_terminal() {
                return Err("a shell needs a terminal; `lab vm exec -- CMD` does not".into());
            }
            one(vec![std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into())], options.options(true))
        }
        Command::Test { options, filter, package, executables } => {
            let found = match executables.is_empty() {
                true => vm::tests::build(&cargo_arguments(&package))?,
                false => executables.iter().map(|path| vm::tests::by_path(path)).collect::<Result<_, _>>()?,
            };
            let failed = vm::tests::run(&found, &filter, &options.options(false))?;
            Ok(u8::from(failed > 0))
        }
        Command::Prepare { options } => {
            println!("{}", vm::prepare(&options.options(false))?);
            Ok(0)
        }
        Command::Guest { job } => {
            vm::guest::main(&job);
            Ok(1)
        }
    }
}

fn one(command: Vec<String>, options: Options) -> Result<u8, Failure> {
    let statuses = vm::run(vec![vm::step(command)?], &options)?;
    Ok(statuses.first().and_then(|&status| u8::try_from(status).ok()).unwrap_or(1))
}

fn cargo_arguments(packages: &[String]) -> Vec<String> {
    match packages.is_empty() {
        true => vec!["--workspace".to_owned()],
        false => packages.iter().flat_map(|name| ["-p".to_owned(), name.clone()]).collect(),
    }
}

/// Runs a command line of the lab in the VM, with this terminal if there is one.
pub(super) fn again(command: Vec<String>) -> Result<u8, Failure> {
    let flags = Defaults::parse_from(["lab"]).flags;
    let options = Options { place: Place::Vm, ..flags.options(vm::has_terminal()) };
    one(command, options)
}

/// The defaults and environment of [`Flags`], for commands that do not carry them.
#[derive(clap::Parser)]
struct Defaults {
    #[command(flatten)]
    flags: Flags,
}
