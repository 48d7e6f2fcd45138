//! Containers as a manifest describes them, run by containerd and runc inside of a node.
//!
//! containerd is the real one; what the kubelet would tell it is told by `ctr`: image, command, environment, mounts,
//! capabilities, read-only root, the runtime's own seccomp profile, the node's network.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lab::cluster::eventually;
use lab::node::Node;
use lab::process::{self, command};
use serde_json::{Map, Value};

use crate::{cgroups, image};

const SOCKET: &str = "/run/containerd-lab/socket";
const SOON: Duration = Duration::from_secs(120);

/// What a runtime gives a container that asks for nothing (containerd's `defaultUnixCaps`).
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A container runtime on a node. Dropping it ends its containers.
pub(crate) struct Containerd {
    node: Arc<Node>,
    daemon: Child,
}

impl Containerd {
    /// Starts it and hands it a tag of the image of this build.
    pub(crate) async fn start(node: &Arc<Node>, tag: &str) -> Self {
        let image = image::archive(tag);
        let archive = image.path().join("image.tar");
        let daemon = node.namespace().run(daemon).unwrap();
        let containerd = Self { node: Arc::clone(node), daemon };
        let answers = || async { containerd.ctr(&["version".to_owned()]).map_err(|error| error.to_string()) };
        eventually(SOON, answers).await.unwrap();
        let import =
            ["images", "import", "--snapshotter=native", "--base-name=docker.io/library/kube-router"];
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
    pub(crate) fn run(&self, pod: &Pod, name: &str) -> Result<String, process::Error> {
        self.ctr(&pod.run(name, self.node.name()))
    }

    /// Starts a container that stays; its output goes to `log`.
    pub(crate) fn spawn(&self, pod: &Pod, name: &str, log: &std::path::Path) -> Child {
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
    pub(crate) fn pid(&self, name: &str) -> Result<u32, String> {
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

/// The pod of a DaemonSet, and the ConfigMaps beside it.
pub(crate) struct Pod {
    spec: Value,
    maps: Vec<Value>,
    /// Where the files of ConfigMaps are.
    folder: tempfile::TempDir,
}

impl Pod {
    /// Of these documents.
    pub(crate) fn of(documents: Vec<Value>) -> Self {
        let (sets, rest): (Vec<Value>, Vec<Value>) =
            documents.into_iter().partition(|document| document["kind"] == "DaemonSet");
        let maps = rest.into_iter().filter(|document| document["kind"] == "ConfigMap").collect();
        let spec = sets[0]["spec"]["template"]["spec"].clone();
        Self { spec, maps, folder: tempfile::tempdir().unwrap() }
    }

    /// Its containers, those that prepare first.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Value> {
        ["initContainers", "containers"].into_iter().filter_map(|key| self.spec[key].as_array()).flatten()
    }

    /// One of them.
    pub(crate) fn container(&self, name: &str) -> &Value {
        self.containers().find(|container| container["name"] == name).unwrap()
    }

    /// Arguments of `ctr` that run a container of it on a node.
    fn run(&self, name: &str, node: &str) -> Vec<String> {
        let container = self.container(name);
        assert_eq!(self.spec["hostNetwork"], true);
        let mut words: Vec<String> =
            ["run", "--rm", "--snapshotter=native", "--net-host"].map(str::to_owned).into();
        words.extend(privileges(&container["securityContext"]));
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
                Value::String(path) if path == "spec.nodeName" => node,
                Value::Null => variable["value"].as_str().unwrap(),
                other => panic!("{other}"),
            };
            words.push(format!("--env={}={value}", variable["name"].as_str().unwrap()));
        }
        words.extend(
            container["volumeMounts"].as_array().into_iter().flatten().map(|mount| self.mount(mount)),
        );
        words.extend(self.account());
        words.push(format!("docker.io/library/{}", container["image"].as_str().unwrap()));
        words.push(name.to_owned());
        let own = |key: &str| {
            let list = container[key].as_array().into_iter().flatten();
            list.map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let command = own("command");
        words.extend(if command.is_empty() {
            vec!["/usr/local/bin/kube-router".to_owned()]
        } else {
            command
        });
        words.extend(own("args"));
        words
    }

    fn mount(&self, mount: &Value) -> String {
        let volumes = self.spec["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let (host, map) = (&volume["hostPath"], &volume["configMap"]);
        let source = match (host["path"].as_str(), map["name"].as_str()) {
            (Some(path), _) => path.to_owned(),
            (None, Some(name)) => self.write(name, map["items"].as_array().unwrap()),
            _ => panic!("{volume}"),
        };
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        format!(
            "--mount=type=bind,src={source},dst={},options=rbind:{access}",
            mount["mountPath"].as_str().unwrap()
        )
    }

    /// What the kubelet gives a pod of its ServiceAccount. The lab's API server asks for no token, and no certificate.
    fn account(&self) -> Option<String> {
        if self.spec["automountServiceAccountToken"] == false {
            return None;
        }
        assert_eq!(self.spec["serviceAccountName"], "kube-router");
        let folder = self.folder.path().join("account");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), "a-token").unwrap();
        std::fs::copy("/etc/ssl/certs/ca-certificates.crt", folder.join("ca.crt")).unwrap();
        let inside = "/var/run/secrets/kubernetes.io/serviceaccount";
        Some(format!("--mount=type=bind,src={},dst={inside},options=rbind:ro", folder.display()))
    }

    /// The host paths that the kubelet makes before it starts anything.
    pub(crate) fn made_by_the_kubelet(&self) -> (Vec<String>, Vec<String>) {
        let of = |kind: &str| {
            let volumes = self.spec["volumes"].as_array().unwrap().iter();
            let paths = volumes.map(|volume| &volume["hostPath"]).filter(|host| host["type"] == kind);
            paths.map(|host| host["path"].as_str().unwrap().to_owned()).collect()
        };
        (of("DirectoryOrCreate"), of("FileOrCreate"))
    }

    fn write(&self, name: &str, items: &[Value]) -> String {
        let map = self.maps.iter().find(|map| map["metadata"]["name"] == name).unwrap();
        let data: &Map<String, Value> = map["data"].as_object().unwrap();
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for item in items {
            let text = data[item["key"].as_str().unwrap()].as_str().unwrap();
            std::fs::write(folder.join(item["path"].as_str().unwrap()), text).unwrap();
        }
        folder.display().to_string()
    }
}

/// The security context in `ctr`'s words; one it has no word for is a failure, not something to leave out.
fn privileges(context: &Value) -> Vec<String> {
    let mut words = Vec::new();
    for (key, value) in context.as_object().unwrap() {
        match (key.as_str(), value) {
            ("privileged", Value::Bool(true)) => words.push("--privileged".to_owned()),
            ("readOnlyRootFilesystem", Value::Bool(true)) => words.push("--read-only".to_owned()),
            // What ctr does unless it is told otherwise.
            ("allowPrivilegeEscalation", Value::Bool(false)) => {}
            ("seccompProfile", profile) if profile["type"] == "RuntimeDefault" => {
                words.push("--seccomp".to_owned());
            }
            ("capabilities", capabilities) => {
                let list = |key: &str| {
                    let names = capabilities[key].as_array().into_iter().flatten();
                    names.map(|name| name.as_str().unwrap()).collect::<Vec<_>>()
                };
                assert_eq!(list("drop"), ["ALL"]);
                let add = list("add");
                let dropped = USUAL.iter().filter(|name| !add.contains(name));
                words.extend(dropped.map(|name| format!("--cap-drop=CAP_{name}")));
                words.extend(
                    add.iter()
                        .filter(|name| !USUAL.contains(name))
                        .map(|name| format!("--cap-add=CAP_{name}")),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    words
}
