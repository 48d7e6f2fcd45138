//! Starting programs: the only place in this project that does.
//!
//! Decided here: that a program gets its input whole, that its output is read while it runs, that it is killed when its
//! time is over, and that every start is counted. What to run, and what a failure means, is the caller's.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Bytes of standard error that are kept, from its end.
const STDERR_TAIL: usize = 4096;

/// What a program that ended with status 0 said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, whole.
    pub stdout: Vec<u8>,
    /// The last 4 KiB of standard error, as text.
    pub stderr: String,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such program in `PATH`.
    #[error("{program}: not found{}", package.map(|name| format!("; Debian package {name} has it")).unwrap_or_default())]
    NotFound {
        /// Program.
        program: String,
        /// Debian package that brings it, if known.
        package: Option<&'static str>,
    },
    /// It could not be started or waited for.
    #[error("{program}: {source}")]
    Start {
        /// Program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// It ran for too long and was killed.
    #[error("{program}: killed after {timeout:?}{}", tail(stderr))]
    Timeout {
        /// Program.
        program: String,
        /// Time it had.
        timeout: Duration,
        /// Standard error until then, its last 4 KiB.
        stderr: String,
    },
    /// It ended with another status than 0.
    #[error("{program}: {status}{}", tail(stderr))]
    Failed {
        /// Program.
        program: String,
        /// Exit status or signal.
        status: ExitStatus,
        /// Its last 4 KiB of standard error.
        stderr: String,
    },
}

fn tail(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Programs started by this process so far, by name.
pub fn started() -> BTreeMap<String, u64> {
    let counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    counters.iter().map(|(program, count)| (program.clone(), count.load(Ordering::Relaxed))).collect()
}

static COUNTERS: Mutex<BTreeMap<String, Arc<AtomicU64>>> = Mutex::new(BTreeMap::new());

/// Runs remembered until somebody asks how long they took; more are forgotten.
const MOST_TIMES: usize = 256;

static TIMES: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// How long each program ran that has ended since the last call, whether well or not; those killed for their time are left
/// out. By any caller in this process.
pub fn take_times() -> Vec<(String, Duration)> {
    std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner))
}

fn remember(program: &str, took: Duration) {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    if times.len() < MOST_TIMES {
        times.push((program.to_owned(), took));
    }
}

/// Process ids of programs that are remembered after their start.
const MOST_STARTED: usize = 64;

static STARTED: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());

/// Whether the process with this id was started here, among the last 64. A program is known before it can have done anything.
pub fn has_started(id: u32) -> bool {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
}

fn count(program: &str) {
    let counter = {
        let mut counters = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
        counters.entry(program.to_owned()).or_default().clone()
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs `program` (looked up in `PATH`) to its end, with `stdin` as its whole input, in the calling thread's network
/// namespace.
///
/// # Errors
/// See [`Error`]. After [`Error::Timeout`] the program and what it started are dead, and it is reaped.
pub fn run(program: &str, args: &[&str], stdin: &[u8], timeout: Duration) -> Result<Output, Error> {
    let begun = Instant::now();
    let deadline = begun + timeout;
    let start = |source| Error::Start { program: program.to_owned(), source };
    let mut child = spawn(program, args)?;
    count(program);
    feed(&mut child, stdin.to_vec()).map_err(start)?;
    let stdout = collect(child.stdout.take()).map_err(start)?;
    let stderr = collect(child.stderr.take()).map_err(start)?;
    let left = || deadline.saturating_duration_since(Instant::now());
    let output = stdout.recv_timeout(left()).ok();
    let said = stderr.recv_timeout(left()).ok();
    let ended = match (&output, &said) {
        // Both streams are closed: it is exiting, unless it runs on in the background of its own output.
        (Some(_), Some(_)) => wait(&mut child, deadline).map_err(start)?,
        _ => None,
    };
    let Some(status) = ended else {
        kill(&mut child).map_err(start)?;
        // Dead, it holds no stream open any more; what it wrote until then arrives at once.
        let stderr = said.or_else(|| stderr.recv_timeout(Duration::from_secs(1)).ok()).unwrap_or_default();
        return Err(Error::Timeout { program: program.to_owned(), timeout, stderr: last(&stderr) });
    };
    remember(program, begun.elapsed());
    let stderr = last(&said.unwrap_or_default());
    if status.success() {
        Ok(Output { stdout: output.unwrap_or_default(), stderr })
    } else {
        Err(Error::Failed { program: program.to_owned(), status, stderr })
    }
}

#[allow(clippy::disallowed_methods)] // this module is where processes are started
fn spawn(program: &str, args: &[&str]) -> Result<Child, Error> {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Held during the start: who hears of what the program does asks for its id, and waits here until it is noted.
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            Error::NotFound { program: program.to_owned(), package: debian_package(program) }
        }
        _ => Error::Start { program: program.to_owned(), source },
    })?;
    if started.len() == MOST_STARTED {
        started.pop_front();
    }
    started.push_back(child.id());
    Ok(child)
}

/// Writes the input beside reading the output, so that neither side waits for the other's full pipe.
fn feed(child: &mut Child, input: Vec<u8>) -> io::Result<()> {
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input to the end says why by its status; the broken pipe adds nothing.
        thread::Builder::new().name("feed".to_owned()).spawn(move || pipe.write_all(&input))?;
    }
    Ok(())
}

/// Reads a stream to its end on a thread of its own.
fn collect(stream: Option<impl Read + Send + 'static>) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (whole, receiver) = mpsc::channel();
    if let Some(mut stream) = stream {
        thread::Builder::new().name("collect".to_owned()).spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is all there is to have; the receiver may have given up meanwhile.
            let _ = stream.read_to_end(&mut bytes);
            let _ = whole.send(bytes);
        })?;
    }
    Ok(receiver)
}

/// Waits for the end until the deadline. A process whose streams are closed is gone within microseconds, so the pauses
/// start small.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(100);
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() >= deadline => return Ok(None),
            None => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Kills the process group, so that a wrapper script does not leave the real program holding its lock.
fn kill(child: &mut Child) -> io::Result<()> {
    if let Ok(id) = i32::try_from(child.id()) {
        // Not yet reaped, so the id is still its; ESRCH means the group ended this instant.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    child.wait().map(drop)
}

fn last(stderr: &[u8]) -> String {
    let tail = stderr.get(stderr.len().saturating_sub(STDERR_TAIL)..).unwrap_or_default();
    String::from_utf8_lossy(tail).into_owned()
}

/// Debian 12 packages of the programs kube-router may run.
fn debian_package(program: &str) -> Option<&'static str> {
    let name = program.rsplit('/').next().unwrap_or(program);
    match name {
        "modprobe" => Some("kmod"),
        "nft" => Some("nftables"),
        "ip" | "bridge" => Some("iproute2"),
        "ipset" => Some("ipset"),
        "ipvsadm" => Some("ipvsadm"),
        "conntrack" => Some("conntrack"),
        _ if name.starts_with("iptables") || name.starts_with("ip6tables") || name.starts_with("xtables") => {
            Some("iptables")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn input_larger_than_a_pipe_comes_back_whole() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(run("cat", &[], &input, LONG).unwrap().stdout, input);
    }

    #[test]
    fn failure_has_status_and_the_end_of_stderr() {
        let script = "yes padding | head -n 5000 >&2; echo the reason >&2; exit 3";
        match run("sh", &["-c", script], b"unread", LONG) {
            Err(Error::Failed { status, stderr, .. }) => {
                assert_eq!(status.code(), Some(3));
                assert!(stderr.ends_with("the reason\n") && stderr.len() <= STDERR_TAIL);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn timeout_kills_the_program_and_its_children() {
        let begun = Instant::now();
        let script = "echo started >&2; sleep 600 & wait";
        match run("sh", &["-c", script], b"", Duration::from_secs(3)) {
            Err(Error::Timeout { stderr, .. }) => assert_eq!(stderr, "started\n"),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn missing_program_names_its_package() {
        assert_eq!(debian_package("/usr/sbin/iptables-nft-restore"), Some("iptables"));
        match run("no-such-program-here", &[], b"", LONG) {
            Err(Error::NotFound { program, package: None }) => assert_eq!(program, "no-such-program-here"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn starts_are_counted() {
        run("true", &[], b"", LONG).unwrap();
        run("true", &[], b"", LONG).unwrap();
        assert_eq!(started().get("true"), Some(&2));
    }
}
