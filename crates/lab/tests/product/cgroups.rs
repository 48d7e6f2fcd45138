//! Control groups inside of a node, whose own sysfs shows none.
//!
//! A container runtime gets them as they are on the machine around, of either version. systemd gets a group of its own in
//! version 2: a first process takes the root of what it sees, and the machine's root is not the lab's to give.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lab::node::Namespace;
use lab::process::{self, command};

const ROOT: &str = "/sys/fs/cgroup";
/// Of groups of a test's own; the id of its process follows.
const NAME: &str = "kube-router-lab-";
/// Processes that were killed leave their groups when the kernel is done with them.
const GONE: Duration = Duration::from_secs(10);

fn mount(words: &[&str]) {
    process::run(command("mount").args(words)).unwrap();
}

fn version_2() {
    mount(&["-t", "cgroup2", "cgroup2", ROOT]);
}

/// Mounts them as on the machine around. Call inside the node's namespaces.
pub(crate) fn as_around() {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let first: Vec<&str> =
        groups.lines().filter_map(|line| line.split(':').nth(1)).filter(|c| !c.is_empty()).collect();
    if first.is_empty() {
        return version_2();
    }
    mount(&["-t", "tmpfs", "tmpfs", ROOT]);
    for controllers in first {
        let folder = format!("{ROOT}/{}", controllers.trim_start_matches("name="));
        std::fs::create_dir(&folder).unwrap();
        mount(&["-t", "cgroup", "-o", controllers, "cgroup", &folder]);
    }
}

/// A group of version 2, seen by one node. Dropping it removes it; who is in there has to have ended.
pub(crate) struct Group {
    namespace: Arc<Namespace>,
    path: PathBuf,
}

impl Group {
    pub(crate) fn new(namespace: &Arc<Namespace>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{ROOT}/{NAME}{}-{number}", std::process::id()));
        let made = path.clone();
        let make = move || {
            version_2();
            sweep();
            std::fs::create_dir(made).unwrap();
        };
        namespace.run(make).unwrap();
        Self { namespace: Arc::clone(namespace), path }
    }

    /// Its folder on the node.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Processes of a group below it, by the ids they have in the lab's own namespace.
    pub(crate) fn processes(&self, below: &str) -> Vec<u32> {
        let file = self.path.join(below).join("cgroup.procs");
        let text = self.namespace.run(move || std::fs::read_to_string(file).unwrap_or_default()).unwrap();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let path = self.path.clone();
        let remove = move || {
            let end = Instant::now() + GONE;
            while remove_all(&path).is_err() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let _ = self.namespace.run(remove);
    }
}

/// Groups are removed like empty folders, those below first; the files in them are the kernel's.
fn remove_all(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// What tests have left that were killed.
fn sweep() {
    for entry in std::fs::read_dir(ROOT).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = remove_all(&entry.path());
        }
    }
}
