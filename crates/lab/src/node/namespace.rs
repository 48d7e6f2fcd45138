//! A network namespace, or a network and mount namespace, held by a thread that lives in it.
//!
//! The thread is the whole life of the namespace: nothing is pinned in the file system, so a lab that is killed leaves
//! none behind. Work is done inside by handing the thread a closure ([`Namespace::run`]), or on a thread of its own
//! ([`Namespace::enter`]) when it takes long. Processes started from the first kind die with the namespace.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use nix::unistd::gettid;

use super::Error;
use super::mounts;
use crate::process::{command, run_with_input};

type Task = Box<dyn FnOnce() + Send>;

/// Handle to the namespace; dropping it ends the thread, the processes tied to it and so the namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    thread: i32,
    tasks: Option<mpsc::Sender<Task>>,
    joined: Option<JoinHandle<()>>,
    mounts: bool,
}

impl Namespace {
    /// A network namespace with its loopback up. Mounts are the host's.
    pub fn network(name: &str) -> Result<Self, Error> {
        Self::start(name, false)
    }

    /// A network and mount namespace with the private folders of a node (see [`mounts`]).
    pub fn machine(name: &str) -> Result<Self, Error> {
        Self::start(name, true)
    }

    fn start(name: &str, machine: bool) -> Result<Self, Error> {
        let (tasks, inbox) = mpsc::channel::<Task>();
        let (ready, started) = mpsc::channel();
        let body = move || {
            let settled = settle(machine).map(|()| gettid().as_raw());
            let stay = settled.is_ok();
            if ready.send(settled).is_ok() && stay {
                inbox.iter().for_each(|task| task());
            }
        };
        let failed = |source| Error::Namespace { name: name.to_owned(), source };
        let joined = thread::Builder::new().name(name.to_owned()).spawn(body).map_err(failed)?;
        let gone = || failed(io::ErrorKind::BrokenPipe.into());
        let thread = started.recv().map_err(|_| gone())?.map_err(failed)?;
        let tasks = Some(tasks);
        let begun = Self { name: name.to_owned(), thread, tasks, joined: Some(joined), mounts: machine };
        begun.sysctls(LISTENING)?;
        Ok(begun)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/proc/…/task/…` of the holding thread: `ns/net` and `ns/mnt` in it are what nsenter and CNI want.
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/task/{}", std::process::id(), self.thread))
    }

    /// Path of the network namespace, for CNI plugins and `ip link set … netns`.
    pub fn net_path(&self) -> PathBuf {
        self.proc_path().join("ns/net")
    }

    /// Runs `work` on the holding thread and waits for it. One at a time: for short work, and for starting processes
    /// that must not outlive the namespace. A panic in it continues in the caller.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Error> {
        let (sender, receiver) = mpsc::channel();
        let task: Task = Box::new(move || {
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.tasks.as_ref().and_then(|tasks| tasks.send(task).ok()).ok_or_else(|| self.gone())?;
        match receiver.recv().map_err(|_| self.gone())? {
            Ok(result) => Ok(result),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// [`Namespace::run`] for asynchronous callers: does not block the caller's thread.
    pub async fn run_async<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let task: Task = Box::new(move || {
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.tasks.as_ref().and_then(|tasks| tasks.send(task).ok()).ok_or_else(|| self.gone())?;
        match receiver.await.map_err(|_| self.gone())? {
            Ok(result) => Ok(result),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs `work` on a new thread inside the namespaces, side by side with others.
    pub fn enter<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>, Error> {
        let failed = |source| Error::Namespace { name: self.name.clone(), source };
        let open = |kind: &str| File::open(self.proc_path().join("ns").join(kind)).map_err(failed);
        let net = open("net")?;
        let mnt = if self.mounts { Some(open("mnt")?) } else { None };
        let (ready, started) = mpsc::channel();
        let body = move || -> Option<R> {
            let entered = join(&net, mnt.as_ref());
            let inside = entered.is_ok();
            ready.send(entered).ok()?;
            inside.then(work)
        };
        let inner = thread::Builder::new().name(self.name.clone()).spawn(body).map_err(failed)?;
        started.recv().map_err(|_| self.gone())?.map_err(failed)?;
        let name = self.name.clone();
        let outer = move || match inner.join() {
            Ok(Some(result)) => result,
            Ok(None) => unreachable!("{name}: the thread said it was inside"),
            Err(panic) => resume_unwind(panic),
        };
        thread::Builder::new().spawn(outer).map_err(failed)
    }

    /// Runs lines of `ip -batch` inside, one process for all of them.
    pub fn ip(&self, lines: &str) -> Result<(), Error> {
        let input = lines.to_owned();
        self.run(move || run_with_input(command("ip").args(["-batch", "-"]), &input))??;
        Ok(())
    }

    /// Writes sysctls inside (`net/ipv4/ip_forward`); one that this kernel does not have is an error, unless its name
    /// starts with `-`.
    pub fn sysctls(&self, values: &[(&str, &str)]) -> Result<(), Error> {
        let values: Vec<(String, String)> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.run(move || values.iter().try_for_each(|(key, value)| sysctl(key, value)))?
    }

    fn gone(&self) -> Error {
        Error::Namespace { name: self.name.clone(), source: io::ErrorKind::BrokenPipe.into() }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.joined.take() {
            let _ = thread.join();
        }
    }
}

/// What a namespace begins with (tcp(7)). Where a machine stands still for a second, SYNs come again and queues of listeners
/// fill up; a kernel that answers by cookie then may reset the connection it has just offered, since the second SYN's answer
/// has another sequence number than the first one's. Packets wait instead: a story's connections are lost by what it tells of.
const LISTENING: &[(&str, &str)] =
    &[("-net/ipv4/tcp_syncookies", "0"), ("-net/ipv4/tcp_max_syn_backlog", "4096")];

/// Moves this thread into new namespaces.
fn settle(machine: bool) -> io::Result<()> {
    let flags = match machine {
        true => CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS,
        false => CloneFlags::CLONE_NEWNET,
    };
    unshare(flags)?;
    if machine {
        mounts::privatise()?;
    }
    loopback_up()
}

fn join(net: &File, mnt: Option<&File>) -> io::Result<()> {
    setns(net, CloneFlags::CLONE_NEWNET)?;
    if let Some(mnt) = mnt {
        // A mount namespace can be entered only by a thread that shares its root and folder with no other.
        unshare(CloneFlags::CLONE_FS)?;
        setns(mnt, CloneFlags::CLONE_NEWNS)?;
    }
    Ok(())
}

fn sysctl(key: &str, value: &str) -> Result<(), Error> {
    let (key, optional) = match key.strip_prefix('-') {
        Some(key) => (key, true),
        None => (key, false),
    };
    let path = Path::new("/proc/sys").join(key);
    match std::fs::write(&path, value) {
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::File { path, source }),
    }
}

/// Sets `lo` up with one RTM_NEWLINK (rtnetlink(7)) instead of a process: there is one namespace per pod, and starting
/// a process costs 70 ms in the VM.
fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACK: u16 = 0x1 | 0x4;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // ifinfomsg: family, padding, type
    message.extend(1i32.to_ne_bytes()); // index of lo in every namespace
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which of them change
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    use std::os::fd::AsRawFd;
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0u8; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsgerr: the error follows the header, negative, zero for an acknowledgement.
    let error = answer.get(16..20).filter(|_| length >= 20).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    match error.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
