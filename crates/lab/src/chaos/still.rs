//! A process that is there and does nothing: what the kernel tells it waits, and what others do stays done.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use super::stage::SOON;
use crate::cluster::eventually;

/// A process held by SIGSTOP until this is dropped.
#[derive(Debug)]
pub(super) struct Still(Pid);

impl Still {
    /// Holds it; when this returns, every thread stands still.
    pub(super) async fn new(process: u32) -> Result<Still, Error> {
        let still = Still(Pid::from_raw(i32::try_from(process).map_err(|_| Errno::ESRCH)?));
        kill(still.0, Signal::SIGSTOP)?;
        let look = || async {
            match still.running() {
                None => Ok(()),
                Some(thread) => Err(format!("{} stands still", thread.display())),
            }
        };
        eventually(SOON, look).await?;
        Ok(still)
    }

    /// Numbers of its sockets, as `/proc/net` has them.
    pub(super) fn sockets(&self) -> Vec<String> {
        let socket = |target: PathBuf| {
            let number = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(number.to_owned())
        };
        let open = fs::read_dir(format!("/proc/{}/fd", self.0)).into_iter().flatten().flatten();
        open.filter_map(|entry| socket(fs::read_link(entry.path()).ok()?)).collect()
    }

    /// A thread that is not stopped (state `T`, proc_pid_stat(5)); one that has ended is none.
    fn running(&self) -> Option<PathBuf> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten().flatten();
        threads.map(|thread| thread.path()).find(|thread| {
            let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            // The name before the state may have blanks and brackets in it.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T'))
        })
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
