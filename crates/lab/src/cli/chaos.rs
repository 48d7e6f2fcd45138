//! `lab chaos`

use std::path::{Path, PathBuf};

use clap::Args;
use lab::chaos::{self, Options};

use super::Failure;

#[derive(Args)]
pub(super) struct Flags {
    /// Everything a few times: whether it holds at all
    #[arg(long)]
    short: bool,
    /// The drills alone whose line in the table contains this
    #[arg(long, default_value = "")]
    only: String,
    /// The same moments for the same number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the table, as Markdown (default: chaos.md beside this program)
    #[arg(long)]
    results: Option<PathBuf>,
}

pub(super) fn run(flags: Flags) -> Result<u8, Failure> {
    let lab = std::env::current_exe()?;
    let results = flags.results.unwrap_or_else(|| lab.parent().unwrap_or(Path::new(".")).join("chaos.md"));
    let options = if flags.short { Options::SHORT } else { Options::LONG };
    let options = Options { seed: flags.seed, ..options };
    let started = std::time::Instant::now();
    let progress = |step: &str| eprintln!("chaos: {:>5.0} s  {step}", started.elapsed().as_secs_f64());
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(chaos::run(&options, &|name| name.contains(&flags.only), &progress))?;
    std::fs::write(&results, report.markdown())?;
    println!("{report}\nwritten to {}", results.display());
    Ok(u8::from(!report.holds()))
}
