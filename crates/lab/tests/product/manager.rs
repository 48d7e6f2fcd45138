//! systemd itself on a node: first process of its own PID namespace, with the shipped unit installed as the docs say.
//!
//! A node has its own mounts, so the machine around gets none of it: the folders that are installed to are covered on the
//! node, and systemd has temporary folders and devices of its own; the machine's sysctls it sees read-only, but those of
//! the network, which are the node's. Of other units there are the targets that every unit is ordered by, and they are
//! empty: neither journal nor D-Bus, which `systemctl` does not need either. What systemd says goes to a file, by the way
//! of its kernel log.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use lab::cluster::eventually;
use lab::node::Node;
use lab::probe::ONCE;
use lab::process::{self, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroups::Group;
use crate::{agent, root};

const UNIT: &str = "kube-router.service";
const AGENT: &str = "/usr/local/bin/kube-router";
/// Here are units of an operator, and what `systemctl enable` makes.
const UNITS: &str = "/etc/systemd/system";
/// What the lab gives systemd besides; a node's /run is its own.
const OURS: &str = "/run/systemd-lab";
/// Targets of a running system, without what they bring up on a real one.
const TARGETS: [&str; 5] = ["sysinit", "basic", "multi-user", "network-online", "shutdown"];

/// Run by the first process of the new namespaces, with the group, the log and systemd's command line.
const BOOT: &str = r#"set -e
echo 0 >"$1/cgroup.procs"
for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
mount -t tmpfs -o mode=755 tmpfs /dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 /dev/${device%:*} c 1 ${device#*:}; done
mknod -m 666 /dev/tty c 5 0
ln -s "$2" /dev/kmsg
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
shift 2
exec unshare --cgroup sh -c 'umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' sh "$@"
"#;

/// systemd at work on a node. Dropping it kills everything it has started.
pub(crate) struct Systemd {
    node: Arc<Node>,
    manager: Child,
    reader: Child,
    /// After the processes: only an empty group can be removed.
    group: Group,
    log: PathBuf,
}

impl Systemd {
    /// Installs the agent, its unit and these flags, and starts systemd; nothing of ours runs yet. Logs go to `folder`.
    pub(crate) async fn start(node: &Arc<Node>, flags: &str, folder: &Path) -> Self {
        let (program, flags) = (agent(), format!("KUBE_ROUTER_FLAGS={flags}\n"));
        node.namespace().run(move || install(&program, &flags)).unwrap();
        let log = folder.join("systemd.log");
        let to = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let errors = to.try_clone().unwrap();
        let reader = node.namespace().run(move || read_log(to)).unwrap();
        let group = Group::new(node.namespace());
        let path = group.path().to_owned();
        let manager = node.namespace().run(move || boot(&path, errors)).unwrap();
        let mut systemd = Self { node: Arc::clone(node), manager, reader, group, log };
        systemd.is_up().await;
        systemd
    }

    async fn is_up(&mut self) {
        let (node, group, log) = (&self.node, &self.group, &self.log);
        let manager = &mut self.manager;
        let up = || {
            if let Some(status) = manager.try_wait().unwrap() {
                panic!("systemd has ended with {}:\n{}", process::exit_code(status), text(log));
            }
            let said = systemctl(node, group, "is-active multi-user.target");
            async { said.map_err(|error| format!("systemd is up ({error}):\n{}", text(log))) }
        };
        eventually(ONCE, up).await.unwrap();
    }

    /// Runs `systemctl` and returns what it prints.
    pub(crate) fn ctl(&self, line: &str) -> String {
        systemctl(&self.node, &self.group, line).unwrap_or_else(|error| panic!("{error}\n{}", self.account()))
    }

    /// One of the unit's properties.
    pub(crate) fn property(&self, name: &str) -> String {
        self.ctl(&format!("show {UNIT} --property={name} --value")).trim().to_owned()
    }

    /// The agent's process, by its id here; none before it is there, or while something is prepared for it.
    pub(crate) fn agent(&self) -> Option<u32> {
        let own =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(AGENT));
        self.group.processes(&format!("system.slice/{UNIT}")).into_iter().find(own)
    }

    /// What the agent and systemd have said, for a message of a test that fails.
    pub(crate) fn account(&self) -> String {
        format!("{}\n{}", self.said(), text(&self.log))
    }

    /// What the agent has printed in all its lives.
    pub(crate) fn said(&self) -> String {
        let read = || fs::read_to_string(format!("{OURS}/agent.log")).unwrap_or_default();
        self.node.namespace().run(read).unwrap()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With the first process all others of its namespace end. The one that waits for it has to be there to do so; where
        // there is no first process yet, it is the one to be killed.
        let first = self.group.processes("init.scope").first().copied().unwrap_or(self.manager.id());
        let _ = kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL);
        let _ = self.manager.wait();
        let _ = self.reader.kill();
        let _ = self.reader.wait();
    }
}

fn text(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// systemd answers to processes only of which it sees the id.
fn systemctl(node: &Node, group: &Group, line: &str) -> Result<String, String> {
    let first = group.processes("init.scope").first().ok_or("systemd has not set up its groups")?.to_string();
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let work = move || {
        let mut enter = command("nsenter");
        enter.args(["--target", &first, "--pid", "--mount", "--", "systemctl", "--no-pager"]).args(words);
        process::run(&mut enter).map_err(|error| error.to_string())
    };
    node.namespace().run(work).unwrap()
}

/// The commands of docs/packaging.md, on covered folders. Call inside the node's namespaces.
fn install(program: &Path, flags: &str) {
    let run = |name: &str, words: &[&str]| process::run(command(name).args(words)).unwrap();
    for folder in ["/usr/local/bin", UNITS, "/etc/default"] {
        fs::create_dir_all(folder).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", folder]);
    }
    // A copy of a debug build takes its time in the VM.
    File::create(AGENT).unwrap().set_permissions(Permissions::from_mode(0o755)).unwrap();
    run("mount", &["--bind", program.to_str().unwrap(), AGENT]);
    fs::copy(root().join("packaging").join(UNIT), Path::new(UNITS).join(UNIT)).unwrap();
    fs::write("/etc/default/kube-router", flags).unwrap();

    let units = Path::new(OURS).join("units");
    fs::create_dir_all(&units).unwrap();
    for target in TARGETS {
        let text =
            format!("[Unit]\nDescription={target} of the lab\nDefaultDependencies=no\nAllowIsolate=yes\n");
        fs::write(units.join(format!("{target}.target")), text).unwrap();
    }
    // There is no journal to read what the agent says from.
    let more = units.join(format!("{UNIT}.d"));
    fs::create_dir_all(&more).unwrap();
    let output = format!("append:{OURS}/agent.log");
    fs::write(more.join("log.conf"), format!("[Service]\nStandardOutput={output}\nStandardError={output}\n"))
        .unwrap();
    // An id that is missing systemd would write into the machine's file.
    let id = Path::new(OURS).join("machine-id");
    fs::write(&id, "6c61620000000000000000006c616200\n").unwrap();
    run("mount", &["--bind", id.to_str().unwrap(), "/etc/machine-id"]);
    run("mkfifo", &[&format!("{OURS}/kmsg")]);
}

/// Call inside the node's namespaces, as what follows.
fn read_log(to: File) -> Child {
    // Opened for writing, too: it then neither waits for a writer nor ends with one.
    let fifo = OpenOptions::new().read(true).write(true).open(format!("{OURS}/kmsg")).unwrap();
    process::spawn(process::tied("cat").stdin(fifo).stdout(to)).unwrap()
}

fn boot(group: &Path, errors: File) -> Child {
    let mut boot = process::tied("unshare");
    // Mounts are shared as on a real system: a unit's own namespace follows those of its machine.
    boot.args([
        "--fork",
        "--kill-child",
        "--pid",
        "--mount-proc",
        "--propagation",
        "shared",
        "--uts",
        "--ipc",
    ])
    .args(["sh", "-c", BOOT, "sh"])
    .arg(group)
    .arg(format!("{OURS}/kmsg"))
    .args(["/lib/systemd/systemd", "--system", "--unit=multi-user.target"])
    .args(["--show-status=no", "--log-target=kmsg"])
    .env_clear()
    .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    .env("container", "lab")
    .env("SYSTEMD_UNIT_PATH", format!("{UNITS}:{OURS}/units"))
    // Programs that make units of what a machine has: there are none.
    .env("SYSTEMD_GENERATOR_PATH", format!("{OURS}/generators"));
    process::spawn(boot.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors)).unwrap()
}
