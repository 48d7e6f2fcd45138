//! A kernel with IPVS, dummy and tunnels for machines whose own has none: a small VM on the host's own files.
//!
//! Decided here: whether a job runs natively or in the VM, and with what. [`kernel`] gets a kernel, [`initramfs`] leads
//! it to the host's files, [`qemu`] boots it, [`guest`] is its first process, [`job`] is what the two sides say to each
//! other, [`native`] is the way without a VM.

pub mod guest;
mod initramfs;
pub mod job;
pub mod kernel;
pub mod native;
mod qemu;
pub mod tests;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use job::{Job, Step};
use kernel::Kernel;

/// Why a job could not be run; a step that ran and failed is not an error but a status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kernel to boot.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The VM itself.
    #[error(transparent)]
    Vm(#[from] qemu::Error),
    /// A process on the host.
    #[error(transparent)]
    Process(#[from] crate::process::Error),
    /// Paths of this process.
    #[error("cannot find out where this runs: {0}")]
    Here(std::io::Error),
    /// A test executable answered something else than a list of its tests.
    #[error("{0} does not list its tests in a form this lab understands")]
    Listing(String),
    /// Native was demanded and is not possible.
    #[error("this kernel cannot run it natively, it lacks: {0}")]
    NotNative(String),
}

/// Where a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// Natively if this kernel has everything, else in the VM.
    #[default]
    Auto,
    /// Natively or not at all.
    Native,
    /// In the VM whatever this kernel has.
    Vm,
}

/// Choices a user can make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Natively or in the VM.
    pub place: Place,
    /// From start to end, boot included.
    pub timeout: Duration,
    /// Debian kernel package, or a metapackage that depends on one.
    pub kernel: String,
    /// qemu accelerator.
    pub accelerator: String,
    /// Memory of the guest in MiB.
    pub memory_mib: u64,
    /// Give the steps the terminal.
    pub interactive: bool,
}

/// Runs `steps` one after the other and returns the exit status of each.
pub fn run(steps: Vec<Step>, options: &Options) -> Result<Vec<i32>, Error> {
    let missing = match options.place {
        Place::Vm => vec!["not asked"],
        Place::Auto | Place::Native => native::missing(),
    };
    if missing.is_empty() {
        return Ok(native::run(&job(steps, options, Path::new("/"))?, options.timeout)?);
    }
    if options.place == Place::Native {
        return Err(Error::NotNative(missing.join(", ")));
    }
    let kernel = Kernel::prepare(&cache()?, &options.kernel, |step| eprintln!("lab: {step}"))?;
    let machine = qemu::Machine {
        cpus: std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)),
        memory_mib: options.memory_mib,
        accelerator: options.accelerator.clone(),
        timeout: options.timeout,
    };
    Ok(qemu::boot(&kernel, &machine, &job(steps, options, &kernel.modules_root)?)?)
}

/// Makes sure there is a kernel to boot, and says which.
pub fn prepare(options: &Options) -> Result<String, Error> {
    Ok(Kernel::prepare(&cache()?, &options.kernel, |step| eprintln!("lab: {step}"))?.version)
}

/// Folders a run may write and the host must not see; each is covered with tmpfs in the guest if it exists.
const SCRATCH: &[&str] =
    &["/run", "/tmp", "/var/tmp", "/var/lib/cni", "/etc/cni", "/var/lib/kube-router", "/mnt"];

fn job(steps: Vec<Step>, options: &Options, modules_root: &Path) -> Result<Job, Error> {
    let mut keep = vec![repository()?, cache()?, modules_root.to_owned()];
    keep.extend(std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    keep.extend(beside(&std::env::current_exe().map_err(Error::Here)?));
    for step in &steps {
        keep.push(step.cwd.clone());
        keep.extend(step.argv.first().and_then(|program| beside(Path::new(program))));
    }
    keep.retain(|path| path.exists() && path != Path::new("/"));
    keep.sort();
    keep.dedup();
    Ok(Job {
        steps,
        env: std::env::vars().collect(),
        modules: job::MODULES.iter().map(|&name| name.to_owned()).collect(),
        modules_root: modules_root.to_owned(),
        scratch: SCRATCH.iter().map(PathBuf::from).collect(),
        keep,
        interactive: options.interactive,
        size: options.interactive.then(terminal_size).flatten(),
    })
}

/// What must be visible for a program to run: its folder, because programs start their neighbours, but the file alone
/// where the folder is one of the scratch folders. Nothing for a program found on PATH.
fn beside(program: &Path) -> Option<PathBuf> {
    let folder = program.parent().filter(|folder| folder.is_absolute())?;
    let scratch = SCRATCH.iter().any(|scratch| folder == Path::new(scratch));
    Some(if scratch { program } else { folder }.to_owned())
}

/// A step that runs `argv` where this process runs.
pub fn step(argv: Vec<String>) -> Result<Step, Error> {
    Ok(Step { title: None, argv, cwd: std::env::current_dir().map_err(Error::Here)?, env: Vec::new() })
}

/// Whether this process has a terminal to lend.
pub fn has_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Rows and columns of this process's terminal, if it has one.
pub fn terminal_size() -> Option<(u16, u16)> {
    let text = crate::process::run_on_terminal(crate::process::command("stty").arg("size")).ok()?;
    let (rows, columns) = text.trim().split_once(' ')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

/// Kernels are kept in `KUBE_ROUTER_LAB_CACHE`, by default `.cache` of the repository this runs in.
fn cache() -> Result<PathBuf, Error> {
    match std::env::var_os("KUBE_ROUTER_LAB_CACHE") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(repository()?.join(".cache")),
    }
}

/// The nearest folder upwards that holds a `Cargo.lock`, else the current one.
fn repository() -> Result<PathBuf, Error> {
    let here = std::env::current_dir().map_err(Error::Here)?;
    let found = here.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).map(Path::to_owned);
    Ok(found.unwrap_or(here))
}
