//! A pod as its manifest describes it, in the words of `ctr`: image, command, environment, mounts, capabilities, read-only
//! root, the runtime's own seccomp profile, the node's network. What `ctr` has no word for is a failure.
//!
//! What the kubelet adds is here, too: host paths, files of ConfigMaps, the account, the variables of the API's Service.

use std::path::{Path, PathBuf};

use serde_json::Value;

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

/// What the kubelet gives every container, whatever its pod asks for: the way to the API server through its Service.
pub(super) const API_SERVICE: (&str, &str) = ("10.96.0.1", "443");
/// Where a container finds what belongs to its pod's account.
pub(super) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Of modules. A kernel that needs none has no such folder, and a pod wants it.
const MODULES: &str = "/lib/modules";

/// A pod, and the ConfigMaps in its namespace.
pub(super) struct Pod {
    spec: Value,
    maps: Vec<Value>,
    /// Token and authority of its account.
    account: PathBuf,
    /// Where the files of ConfigMaps are.
    folder: tempfile::TempDir,
}

impl Pod {
    /// That of the DaemonSet, or the Pod, among these documents.
    pub(super) fn of(documents: &[Value], account: &Path) -> Self {
        let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
        let set = of_kind("DaemonSet").next().map(|set| &set["spec"]["template"]);
        let spec = set.or_else(|| of_kind("Pod").next()).unwrap()["spec"].clone();
        let maps = of_kind("ConfigMap").cloned().collect();
        Self { spec, maps, account: account.to_owned(), folder: tempfile::tempdir().unwrap() }
    }

    /// Its containers, those that prepare first.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Value> {
        ["initContainers", "containers"].into_iter().filter_map(|key| self.spec[key].as_array()).flatten()
    }

    /// One of them.
    pub(super) fn container(&self, name: &str) -> &Value {
        self.containers().find(|container| container["name"] == name).unwrap()
    }

    /// Arguments of `ctr` that run a container of it on a node.
    pub(super) fn run(&self, name: &str, node: &str) -> Vec<String> {
        let container = self.container(name);
        assert_eq!(self.spec["hostNetwork"], true);
        let mut words: Vec<String> =
            ["run", "--rm", "--snapshotter=overlayfs", "--net-host"].map(str::to_owned).into();
        words.extend(privileges(&container["securityContext"]));
        words.push(format!("--env=KUBERNETES_SERVICE_HOST={}", API_SERVICE.0));
        words.push(format!("--env=KUBERNETES_SERVICE_PORT={}", API_SERVICE.1));
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
            (Some(MODULES), _) if !Path::new(MODULES).exists() => self.made("modules"),
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

    /// What the kubelet gives a pod of its ServiceAccount.
    fn account(&self) -> Option<String> {
        if self.spec["automountServiceAccountToken"] == false {
            return None;
        }
        assert_eq!(self.spec["serviceAccountName"], "kube-router");
        Some(format!("--mount=type=bind,src={},dst={ACCOUNT},options=rbind:ro", self.account.display()))
    }

    /// The host paths that the kubelet makes before it starts anything.
    pub(super) fn made_by_the_kubelet(&self) -> (Vec<String>, Vec<String>) {
        let of = |kind: &str| {
            let volumes = self.spec["volumes"].as_array().unwrap().iter();
            let paths = volumes.map(|volume| &volume["hostPath"]).filter(|host| host["type"] == kind);
            paths.map(|host| host["path"].as_str().unwrap().to_owned()).collect()
        };
        (of("DirectoryOrCreate"), of("FileOrCreate"))
    }

    fn write(&self, name: &str, items: &[Value]) -> String {
        let map = self.maps.iter().find(|map| map["metadata"]["name"] == name);
        let data = map.unwrap_or_else(|| panic!("there is no ConfigMap {name}"))["data"].as_object().unwrap();
        let folder = self.made(name);
        for item in items {
            let text = data[item["key"].as_str().unwrap()].as_str().unwrap();
            std::fs::write(Path::new(&folder).join(item["path"].as_str().unwrap()), text).unwrap();
        }
        folder
    }

    /// A folder of this pod.
    fn made(&self, name: &str) -> String {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
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
