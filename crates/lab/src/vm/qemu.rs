//! One boot of the guest, seen from the host: start qemu, carry the streams, wait for the verdict, bounded.
//!
//! Nothing here knows what the steps are about. Three ports lead out of the guest: standard output, standard error and
//! a control port whose one line is the verdict; the kernel's own messages go to a log file and are shown only when a
//! boot goes wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::fcntl::{Flock, FlockArg};

use super::initramfs;
use super::job::{Job, Verdict};
use super::kernel::Kernel;
use crate::node::RUN_FOLDER;
use crate::process;

/// Step that failed around one boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The initramfs could not be built.
    #[error(transparent)]
    Initramfs(#[from] initramfs::Error),
    /// A file or socket of the run folder.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// qemu did not start.
    #[error(transparent)]
    Start(#[from] process::Error),
    /// The guest started and could not prepare itself.
    #[error("the guest is not usable: {0}")]
    Guest(String),
    /// The guest ended without a verdict.
    #[error("the VM ended without a verdict; last lines of its console:\n{0}")]
    Died(String),
    /// Time was up.
    #[error("the VM was stopped after {seconds} s without a verdict; last lines of its console:\n{console}")]
    TimedOut {
        /// How long it was given.
        seconds: u64,
        /// What the kernel said last.
        console: String,
    },
}

/// What a boot may use.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// Processors of the guest.
    pub cpus: usize,
    /// Memory of the guest in MiB.
    pub memory_mib: u64,
    /// qemu accelerator: `tcg` works anywhere, `kvm` where the host lets it.
    pub accelerator: String,
    /// From start to verdict.
    pub timeout: Duration,
}

/// Boots `kernel`, does `job`, and returns the exit status of each step.
pub(super) fn boot(kernel: &Kernel, machine: &Machine, job: &Job) -> Result<Vec<i32>, Error> {
    let deadline = Instant::now() + machine.timeout;
    let run = Run::prepare(kernel, job)?;
    let ports = Ports::listen(run.folder.path())?;
    let mut qemu = Qemu(process::spawn(&mut run.command(kernel, machine, job)?)?);
    let verdict = ports.carry(job.interactive);
    let left = deadline.saturating_duration_since(Instant::now());
    let verdict = verdict.wait(&mut qemu, left);
    // The guest powers itself off after its verdict; the kill on drop is for one that does not.
    if matches!(verdict, Outcome::Verdict(_)) {
        qemu.wait(Duration::from_secs(10));
    }
    drop(qemu);
    for pump in ports.pumps.into_inner() {
        let _ = pump.join();
    }
    match verdict {
        Outcome::Verdict(Verdict::Done(statuses)) => Ok(statuses),
        Outcome::Verdict(Verdict::Broken(reason)) => Err(Error::Guest(reason)),
        Outcome::Died => Err(Error::Died(run.console())),
        Outcome::TimedOut => {
            Err(Error::TimedOut { seconds: machine.timeout.as_secs(), console: run.console() })
        }
    }
}

/// Files of one boot.
struct Run {
    folder: tempfile::TempDir,
    /// Free once this process is gone: `lab clean` then takes the folder.
    _lock: Flock<fs::File>,
}

impl Run {
    fn prepare(kernel: &Kernel, job: &Job) -> Result<Self, Error> {
        fs::create_dir_all(RUN_FOLDER).map_err(io("create the run folder"))?;
        // The guest mounts its modules here; a host whose kernel has none lacks the folder.
        fs::create_dir_all("/lib/modules").map_err(io("create /lib/modules"))?;
        let folder = tempfile::Builder::new()
            .prefix("vm-")
            .tempdir_in(RUN_FOLDER)
            .map_err(io("create a run folder"))?;
        fs::write(folder.path().join("initrd"), initramfs::build(kernel)?)
            .map_err(io("write the initramfs"))?;
        let text = serde_json::to_string(job).map_err(|error| io("encode the job")(error.into()))?;
        fs::write(folder.path().join("job.json"), text).map_err(io("write the job"))?;
        let lock = fs::File::create(folder.path().join("lock")).map_err(io("lock the run folder"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| io("lock the run folder")(errno.into()))?;
        Ok(Self { folder, _lock: lock })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, kernel: &Kernel, machine: &Machine, job: &Job) -> Result<Command, Error> {
        let lab = std::env::current_exe().map_err(io("find the lab's own binary"))?;
        let mut qemu = process::tied("qemu-system-x86_64");
        let accelerator = match machine.accelerator.as_str() {
            "tcg" => "tcg,thread=multi,tb-size=1024",
            other => other,
        };
        let append = format!(
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr lab.bin={} lab.job={}",
            lab.display(),
            self.path("job.json").display()
        );
        qemu.args([
            "-accel",
            accelerator,
            "-cpu",
            "max",
            "-M",
            "q35",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-smp", &machine.cpus.to_string(), "-m", &format!("{}M", machine.memory_mib)])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(self.path("initrd"))
        .args(["-append", &append])
        .args(["-serial", &format!("file:{}", self.path("console").display())])
        .args(["-fsdev", "local,id=host,path=/,security_model=none,multidevs=remap"])
        .args([
            "-device",
            "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-device",
            "virtio-serial-pci",
        ]);
        for (number, port) in PORTS.iter().enumerate() {
            qemu.args(["-chardev", &format!("socket,id={port},path={}", self.path(port).display())]).args([
                "-device",
                &format!("virtserialport,nr={},chardev={port},name=lab.{port}", number + 1),
            ]);
        }
        match job.interactive {
            true => {
                qemu.args(["-chardev", "stdio,id=tty,signal=off", "-device", "virtconsole,nr=8,chardev=tty"])
            }
            false => qemu.stdin(Stdio::null()).stdout(Stdio::null()),
        };
        Ok(qemu)
    }

    /// The end of the kernel's messages.
    fn console(&self) -> String {
        let text = fs::read(self.path("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
    }
}

fn io(what: &str) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io { what: what.to_owned(), source }
}

/// Ports out of the guest, in the order of their numbers (from 1).
pub(super) const PORTS: [&str; 3] = ["control", "stdout", "stderr"];

struct Ports {
    listeners: Vec<UnixListener>,
    pumps: std::cell::RefCell<Vec<thread::JoinHandle<()>>>,
}

impl Ports {
    fn listen(folder: &Path) -> Result<Self, Error> {
        let listen =
            |port: &&str| UnixListener::bind(folder.join(port)).map_err(io("listen for the guest's output"));
        let listeners = PORTS.iter().map(listen).collect::<Result<_, _>>()?;
        Ok(Self { listeners, pumps: std::cell::RefCell::default() })
    }

    /// Starts to carry the streams; the returned end waits for the verdict.
    fn carry(&self, interactive: bool) -> Pending {
        let (sender, verdict) = mpsc::channel();
        let mut pumps = self.pumps.borrow_mut();
        for (listener, port) in self.listeners.iter().zip(PORTS) {
            let Ok(listener) = listener.try_clone() else { continue };
            let sender = sender.clone();
            let pump = move || {
                let Ok((stream, _)) = listener.accept() else { return };
                match port {
                    "control" => read_verdict(stream, &sender),
                    "stdout" if !interactive => copy(stream, io::stdout()),
                    _ => copy(stream, io::stderr()),
                }
            };
            pumps.push(thread::spawn(pump));
        }
        Pending { verdict }
    }
}

fn read_verdict(stream: UnixStream, sender: &mpsc::Sender<Verdict>) {
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line).is_ok()
        && let Ok(verdict) = serde_json::from_str(&line)
    {
        let _ = sender.send(verdict);
    }
}

/// Copies what arrives at once: a caller watches progress lines.
fn copy(mut from: UnixStream, mut to: impl Write) {
    let mut buffer = [0u8; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { return };
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

struct Pending {
    verdict: mpsc::Receiver<Verdict>,
}

enum Outcome {
    Verdict(Verdict),
    Died,
    TimedOut,
}

impl Pending {
    fn wait(self, qemu: &mut Qemu, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Ok(verdict) = self.verdict.recv_timeout(Duration::from_millis(200)) {
                return Outcome::Verdict(verdict);
            }
            if qemu.ended() {
                // The verdict may have been on its way when the process ended.
                let last = self.verdict.recv_timeout(Duration::from_millis(500));
                return last.map_or(Outcome::Died, Outcome::Verdict);
            }
        }
        Outcome::TimedOut
    }
}

/// The running qemu; killed and reaped on drop.
struct Qemu(Child);

impl Qemu {
    fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
    }

    fn wait(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.ended() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
