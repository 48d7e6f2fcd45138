//! The guest's first process: makes the host's files safe to stand on, runs the steps, says how they ended.
//!
//! It runs as PID 1 on the host's root file system, so it covers everything tests write with tmpfs before anything
//! else happens, and reaps whatever the steps leave behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use super::job::{Job, Step, Verdict};
use crate::process::{self, command};

/// Step that failed before the first command could run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job file.
    #[error("cannot read the job {path}: {source}")]
    Job {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A mount.
    #[error("cannot mount {target}: {source}")]
    Mount {
        /// Where.
        target: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A port to the host.
    #[error("cannot open the port {port}: {source}")]
    Port {
        /// Which.
        port: String,
        /// Why not.
        source: io::Error,
    },
    /// A tool of the guest.
    #[error(transparent)]
    Tool(#[from] process::Error),
}

/// Runs the job file and powers the machine off. Returns only when even that fails.
pub fn main(job: &Path) {
    let verdict = match work(job) {
        Ok(statuses) => Verdict::Done(statuses),
        Err(error) => Verdict::Broken(error.to_string()),
    };
    nix::unistd::sync();
    if let (Ok(mut control), Ok(text)) = (port("control"), serde_json::to_string(&verdict)) {
        let _ = control.write_all(format!("{text}\n").as_bytes());
    }
    let _ = fs::write("/proc/sysrq-trigger", "o");
    // The first process must not end before the machine does.
    loop {
        thread::park();
    }
}

fn work(path: &Path) -> Result<Vec<i32>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Job { path: path.to_owned(), source })?;
    let job: Job = serde_json::from_str(&text)
        .map_err(|error| Error::Job { path: path.to_owned(), source: error.into() })?;
    prepare_mounts(&job)?;
    let _ = fs::write("/proc/sys/kernel/hostname", "lab-vm");
    process::run(command("ip").args(["link", "set", "lo", "up"]))?;
    let streams = Streams::open(job.interactive)?;
    load_modules(&job, &streams);
    Ok(job.steps.iter().map(|step| run(step, &job, &streams)).collect())
}

fn prepare_mounts(job: &Job) -> Result<(), Error> {
    filesystem("proc", Path::new("/proc"), "")?;
    filesystem("sysfs", Path::new("/sys"), "")?;
    for folder in ["/dev/pts", "/dev/shm"] {
        make(Path::new(folder))?;
    }
    filesystem("devpts", Path::new("/dev/pts"), "mode=0620,gid=5,ptmxmode=0666")?;
    filesystem("tmpfs", Path::new("/dev/shm"), "")?;
    let _ = filesystem("cgroup2", Path::new("/sys/fs/cgroup"), "");
    // Handles first: once the scratch folders are covered, the paths lead nowhere.
    let modules = handle(&job.modules_root.join("lib/modules"))?;
    let kept = job.keep.iter().map(|path| Ok((path, handle(path)?))).collect::<Result<Vec<_>, Error>>()?;
    let covered =
        |scratch: &&PathBuf| !job.keep.iter().any(|path| scratch.starts_with(path)) && scratch.is_dir();
    let scratch: Vec<&PathBuf> = job.scratch.iter().filter(covered).collect();
    for folder in &scratch {
        filesystem("tmpfs", folder, "mode=1777")?;
    }
    for (path, handle) in
        kept.iter().filter(|(path, _)| scratch.iter().any(|folder| path.starts_with(folder)))
    {
        stand_in(handle, path)?;
        bind(handle, path)?;
    }
    bind(&modules, Path::new("/lib/modules"))
}

fn handle(path: &Path) -> Result<File, Error> {
    let options = nix::fcntl::OFlag::O_PATH.bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(options)
        .open(path)
        .map_err(|source| Error::Mount { target: path.to_owned(), source })
}

fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::Mount { target: path.to_owned(), source })
}

/// Something of the same kind to mount on.
fn stand_in(handle: &File, path: &Path) -> Result<(), Error> {
    let fail = |source| Error::Mount { target: path.to_owned(), source };
    if handle.metadata().map_err(fail)?.is_dir() {
        return make(path);
    }
    make(path.parent().unwrap_or(path))?;
    File::create(path).map(drop).map_err(fail)
}

fn filesystem(kind: &str, target: &Path, options: &str) -> Result<(), Error> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .map_err(|errno| Error::Mount { target: target.to_owned(), source: errno.into() })
}

fn bind(source: &File, target: &Path) -> Result<(), Error> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| Error::Mount { target: target.to_owned(), source: errno.into() })
}

/// Modules a kernel does not have are named on standard error: the tests that need them will fail by themselves.
fn load_modules(job: &Job, streams: &Streams) {
    if let Err(error) = process::run(command("modprobe").arg("-a").args(&job.modules)) {
        streams.say(&format!("lab: {error}\n"));
    }
}

/// Where the steps' output goes.
enum Streams {
    Ports { stdout: File, stderr: File },
    Console(File),
}

impl Streams {
    fn open(interactive: bool) -> Result<Self, Error> {
        match interactive {
            true => Ok(Self::Console(device("/dev/hvc0")?)),
            false => Ok(Self::Ports { stdout: port("stdout")?, stderr: port("stderr")? }),
        }
    }

    fn say(&self, text: &str) {
        let (Self::Ports { stderr: to, .. } | Self::Console(to)) = self;
        let mut to = to;
        let _ = to.write_all(text.as_bytes());
    }
}

fn device(path: &str) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| Error::Port { port: path.to_owned(), source })
}

/// Ports are found by name: their device numbers depend on the order the kernel met them.
fn port(name: &str) -> Result<File, Error> {
    let wanted = format!("lab.{name}");
    let entries = fs::read_dir("/sys/class/virtio-ports")
        .map_err(|source| Error::Port { port: name.to_owned(), source })?;
    for entry in entries.flatten() {
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim() == wanted {
            return device(&format!("/dev/{}", entry.file_name().to_string_lossy()));
        }
    }
    Err(Error::Port { port: name.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// Runs one step to its end, with its exit status as a shell reports it; 127 if it did not start.
fn run(step: &Step, job: &Job, streams: &Streams) -> i32 {
    let Some((program, arguments)) = step.argv.split_first() else { return 127 };
    if let Some(title) = &step.title {
        streams.say(&format!("{title}\n"));
    }
    let mut command = match streams {
        Streams::Ports { .. } => command(program),
        // A session of its own with the console as its terminal, so that ^C and job control work.
        Streams::Console(_) => terminal(program, job.size),
    };
    command.args(arguments).current_dir(&step.cwd).env_clear();
    command.envs(job.env.iter().chain(&step.env).map(|(name, value)| (name, value)));
    match start(&mut command, streams) {
        Ok((pid, pumps)) => {
            let status = reap_until(pid);
            // A daemon left behind may hold the pipes open for ever; what was written before is already on its way.
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(2);
            while pumps.iter().any(|pump| !pump.is_finished()) && std::time::Instant::now() < limit {
                thread::sleep(std::time::Duration::from_millis(5));
            }
            status
        }
        Err(error) => {
            streams.say(&format!("lab: {error}\n"));
            127
        }
    }
}

fn terminal(program: &str, size: Option<(u16, u16)>) -> Command {
    let (rows, columns) = size.unwrap_or((24, 80));
    let mut command = command("setsid");
    let script = format!("stty rows {rows} cols {columns} 2>/dev/null; exec \"$@\"");
    command.args(["-c", "sh", "-c", &script, "sh", program]);
    command
}

type Pumps = Vec<thread::JoinHandle<()>>;

/// Starts the command; its streams go through pipes because a port can be open only once, and programs that open
/// /dev/stdout would fail.
fn start(command: &mut Command, streams: &Streams) -> Result<(Pid, Pumps), process::Error> {
    let lost = |source| process::Error::Lost { command: "the guest's console".to_owned(), source };
    let mut pumps = Vec::new();
    let child = match streams {
        Streams::Console(console) => {
            let copy = || console.try_clone().map(Stdio::from).map_err(lost);
            process::spawn(command.stdin(copy()?).stdout(copy()?).stderr(copy()?))?
        }
        Streams::Ports { stdout, stderr } => {
            let mut child =
                process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
            if let (Some(from), Ok(to)) = (child.stdout.take(), stdout.try_clone()) {
                pumps.push(thread::spawn(move || pump(from, to)));
            }
            if let (Some(from), Ok(to)) = (child.stderr.take(), stderr.try_clone()) {
                pumps.push(thread::spawn(move || pump(from, to)));
            }
            child
        }
    };
    Ok((Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), pumps))
}

fn pump(mut from: impl Read, mut to: File) {
    let mut buffer = [0u8; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { return };
        if to.write_all(bytes).is_err() {
            return;
        }
    }
}

/// Reaps every child, ours and orphans, until `pid` has ended.
fn reap_until(pid: Pid) -> i32 {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(ended, status)) if ended == pid => return status,
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => return 128 + signal as i32,
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return 1,
        }
    }
}
