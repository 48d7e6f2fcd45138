//! containerd and runc inside of a node, and containers in them.
//!
//! containerd is the real one; what the kubelet would tell it is told by `ctr`, in the words that [`super::pod`] finds.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;

use super::SOON;
use super::pod::Pod;
use crate::{cgroups, image};
use lab::cluster::eventually;
use lab::node::Node;
use lab::process::{self, command};

const SOCKET: &str = "/run/containerd-lab/socket";

/// A container runtime on a node. Dropping it ends its containers.
pub(super) struct Containerd {
    node: Arc<Node>,
    daemon: Child,
}

impl Containerd {
    /// Starts it and hands it the images of this build. One is unpacked when it is run first: that is dear in the VM.
    pub(super) async fn start(node: &Arc<Node>) -> Self {
        let image = image::archive();
        let archive = image.path().join("image.tar");
        let daemon = node.namespace().run(daemon).unwrap();
        let containerd = Self { node: Arc::clone(node), daemon };
        let answers = || async { containerd.ctr(&["version".to_owned()]).map_err(|error| error.to_string()) };
        eventually(SOON, answers).await.unwrap();
        let import = ["images", "import", "--no-unpack", "--base-name=docker.io/library/kube-router"];
        let import = import.iter().map(|word| (*word).to_owned()).chain([archive.display().to_string()]);
        containerd.ctr(&import.collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error}"));
        containerd
    }

    fn ctr(&self, arguments: &[String]) -> Result<String, process::Error> {
        let arguments = arguments.to_vec();
        let work = move || process::run(command("ctr").args(["--address", SOCKET]).args(arguments));
        self.node.namespace().run(work).unwrap()
    }

    /// Runs a container to its end and returns what it printed.
    pub(super) fn run(&self, pod: &Pod, name: &str) -> Result<String, process::Error> {
        self.ctr(&pod.run(name, self.node.name()))
    }

    /// Starts a container that stays; its output goes to `log`.
    pub(super) fn spawn(&self, pod: &Pod, name: &str, log: &std::path::Path) -> Child {
        let arguments = pod.run(name, self.node.name());
        let output = std::fs::File::create(log).unwrap();
        let errors = output.try_clone().unwrap();
        let work = move || {
            let mut ctr = process::tied("ctr");
            ctr.args(["--address", SOCKET])
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors);
            process::spawn(&mut ctr)
        };
        self.node.namespace().run(work).unwrap().unwrap()
    }

    /// The process of a running container.
    pub(super) fn pid(&self, name: &str) -> Result<u32, String> {
        let tasks = self.ctr(&["tasks".to_owned(), "ls".to_owned()]).map_err(|error| error.to_string())?;
        let task = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let task =
            task.into_iter().find(|words| words.first() == Some(&name) && words.get(2) == Some(&"RUNNING"));
        task.and_then(|words| words.get(1)?.parse().ok()).ok_or(format!("{name} does not run:\n{tasks}"))
    }
}

/// Starts the daemon in the calling thread's namespaces.
fn daemon() -> Child {
    cgroups::as_around();
    let folder = PathBuf::from("/run/containerd-lab");
    std::fs::create_dir_all(&folder).unwrap();
    let config = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\naddress = '{SOCKET}'\n",
        folder.display()
    );
    std::fs::write(folder.join("config.toml"), config).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut daemon = process::tied("containerd");
    daemon.arg("--config").arg(folder.join("config.toml"));
    process::spawn(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)).unwrap()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let names = self.ctr(&["tasks".to_owned(), "ls".to_owned(), "-q".to_owned()]).unwrap_or_default();
        for name in names.lines() {
            let kill = ["tasks", "rm", "--force", name].map(str::to_owned);
            let _ = self.ctr(&kill);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
