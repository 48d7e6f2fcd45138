//! `lab bench`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use lab::bench::{self, Part};
use lab::vm::{self, Options, Place};

use super::Failure;

#[derive(Args)]
pub(super) struct Flags {
    /// Small sizes and short times: whether it works, not how good it is
    #[arg(long)]
    quick: bool,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Choice>,
    /// The agent's executable (default: kube-router beside this program)
    #[arg(long)]
    agent: Option<PathBuf>,
    /// File for the table, as Markdown (default: bench.md, bench-policy.md, bench-bgp.md beside this program)
    #[arg(long)]
    results: Option<PathBuf>,
    /// Seconds from start to end, the VM's boot included
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// Debian kernel package, where the VM is needed
    #[arg(long, env = "KUBE_ROUTER_LAB_KERNEL", default_value = "linux-image-amd64")]
    kernel: String,
    /// qemu accelerator: tcg, or kvm where it works
    #[arg(long, env = "KUBE_ROUTER_LAB_ACCEL", default_value = "tcg")]
    accel: String,
    /// Memory of the VM in MiB
    #[arg(long, env = "KUBE_ROUTER_LAB_MEMORY", default_value_t = 4096)]
    memory: u64,
    /// Measure on this kernel, here and now
    #[arg(long, hide = true)]
    here: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Scale,
    Rest,
    Memory,
    Churn,
    Policy,
    Bgp,
}

impl Choice {
    fn part(self) -> Part {
        match self {
            Choice::Scale => Part::Scale,
            Choice::Rest => Part::Rest,
            Choice::Memory => Part::Memory,
            Choice::Churn => Part::Churn,
            Choice::Policy => Part::Policy,
            Choice::Bgp => Part::Bgp,
        }
    }

    /// Whether it needs what only some kernels have.
    fn needs_ipvs(self) -> bool {
        !matches!(self, Choice::Policy | Choice::Bgp)
    }
}

pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let lab = std::env::current_exe()?;
    let beside = |name: &str| lab.parent().unwrap_or(Path::new(".")).join(name);
    let agent = std::path::absolute(flags.agent.clone().unwrap_or_else(|| beside("kube-router")))?;
    let results = |name: &str| std::path::absolute(flags.results.clone().unwrap_or_else(|| beside(name)));
    let chosen = if flags.only.is_empty() { Choice::value_variants() } else { &flags.only };
    let (with_ipvs, native): (Vec<Choice>, Vec<Choice>) = chosen.iter().partition(|one| one.needs_ipvs());
    if !agent.is_file() {
        return Err(format!("no agent at {}: `cargo build --release -p kube-router`", agent.display()).into());
    }
    if flags.here {
        return here(&flags, agent, chosen, &results("bench.md")?);
    }
    let mut status = 0;
    if !with_ipvs.is_empty() {
        status = where_it_can(&flags, &lab, &agent, &with_ipvs, &results("bench.md")?)?;
    }
    for (part, name) in [(Choice::Policy, "bench-policy.md"), (Choice::Bgp, "bench-bgp.md")] {
        if native.contains(&part) {
            status = status.max(here(&flags, agent.clone(), &[part], &results(name)?)?);
        }
    }
    Ok(status)
}

/// On this kernel if it has IPVS, else in the VM: the same command there.
fn where_it_can(
    flags: &Flags,
    lab: &Path,
    agent: &Path,
    parts: &[Choice],
    results: &Path,
) -> Result<u8, Failure> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = vec![path(lab), "bench".to_owned(), "--here".to_owned()];
    command.extend([format!("--agent={}", path(agent)), format!("--results={}", path(results))]);
    command.extend(flags.quick.then(|| "--quick".to_owned()));
    let named =
        |choice: &Choice| choice.to_possible_value().map(|value| format!("--only={}", value.get_name()));
    command.extend(parts.iter().filter_map(named));
    let options = Options {
        place: Place::Auto,
        timeout: Duration::from_secs(flags.timeout),
        kernel: flags.kernel.clone(),
        accelerator: flags.accel.clone(),
        memory_mib: flags.memory,
        interactive: false,
    };
    let statuses = vm::run(vec![vm::step(command)?], &options)?;
    Ok(statuses.first().and_then(|&status| u8::try_from(status).ok()).unwrap_or(1))
}

fn here(flags: &Flags, agent: PathBuf, parts: &[Choice], results: &Path) -> Result<u8, Failure> {
    let parts = parts.iter().map(|choice| choice.part()).collect();
    let options = bench::Options { agent, quick: flags.quick, parts };
    let started = std::time::Instant::now();
    let progress = |step: &str| eprintln!("bench: {:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let report = bench::run(&options, &progress)?;
    std::fs::write(results, report.markdown())?;
    println!("{report}");
    println!("written to {}", results.display());
    Ok(u8::from(!report.holds()))
}
