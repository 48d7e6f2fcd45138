//! The real binary as a CNI plugin, called as a container runtime calls it: what it prints and with which status it ends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A folder with the plugin and a place for an agent's socket.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("kube-router-cni");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kube-router"), program).unwrap();
        Place { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Exit status, standard output and standard error.
    #[allow(clippy::disallowed_methods, reason = "the binary under test is a process")]
    fn call(&self, verb: &str, configuration: &Value) -> (i32, String, String) {
        let mut plugin = Command::new(self.folder.path().join("kube-router-cni"))
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", "/proc/self/ns/net")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        plugin.stdin.take().unwrap().write_all(configuration.to_string().as_bytes()).unwrap();
        let done = plugin.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    fn configuration(&self, more: Value) -> Value {
        let mut configuration = json!({
            "cniVersion": "0.4.0", "name": "mynet", "type": "kube-router-cni",
            "socket": self.socket(), "timeout": "300ms",
            "prevResult": {
                "cniVersion": "0.4.0",
                "interfaces": [{ "name": "veth1" }, { "name": "eth0", "sandbox": "/proc/self/ns/net" }],
                "ips": [{ "version": "4", "interface": 1, "address": "10.244.1.5/24" }],
            },
        });
        for (key, value) in more.as_object().unwrap() {
            configuration[key] = value.clone();
        }
        configuration
    }

    fn records(&self) -> Vec<Value> {
        let entries = std::fs::read_dir(self.folder.path().join("pods"));
        let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
        paths.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
    }
}

fn error(output: &str) -> (u64, String) {
    let error: Value = serde_json::from_str(output).unwrap();
    assert!(error["cniVersion"].is_string(), "{error}");
    (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
}

#[test]
fn versions_and_errors_are_those_of_the_specification() {
    let place = Place::new();
    let (status, output, _) = place.call("VERSION", &json!({ "cniVersion": "1.0.0" }));
    let told: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, &told["cniVersion"]), (0, &json!("1.0.0")));
    assert_eq!(told["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    for (verb, configuration, code, says) in [
        ("ADD", place.configuration(json!({ "cniVersion": "2.0.0" })), 1, "is not spoken"),
        ("REMOVE", place.configuration(json!({})), 4, "CNI_COMMAND is none of"),
        ("STATUS", place.configuration(json!({ "timeout": "1s" })), 50, "no agent is there"),
        ("ADD", json!(5), 6, "cannot be read"),
        ("ADD", place.configuration(json!({ "onTimeout": "ajar" })), 7, "\"open\""),
        (
            "ADD",
            place.configuration(json!({ "prevResult": null })),
            7,
            "comes after the plugin that wires pods",
        ),
    ] {
        let (status, output, _) = place.call(verb, &configuration);
        let (told, text) = error(&output);
        assert!(status == 1 && told == code && text.contains(says), "{status} {output}");
    }
    assert!(place.records().is_empty());
}

#[test]
fn without_an_agent_it_is_closed_or_open_in_time() {
    let place = Place::new();
    let start = Instant::now();
    let (status, output, _) = place.call("ADD", &place.configuration(json!({})));
    let (code, text) = error(&output);
    assert!(status == 1 && code == 11 && text.contains("is it running on this node"), "{output}");
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "an agent may be about to come: {:?}",
        start.elapsed()
    );
    assert_eq!(place.records()[0]["addresses"], json!(["10.244.1.5"]));
    assert_eq!(place.records()[0]["host_interface"], "veth1");

    let open = place.configuration(json!({ "onTimeout": "open" }));
    let (status, output, log) = place.call("ADD", &open);
    let result: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, &result), (0, &open["prevResult"]));
    assert!(log.contains("let go without its rules"), "{log}");

    // A removal needs no agent, no result of plugins before, and no record.
    for _ in 0..2 {
        assert_eq!(place.call("DEL", &place.configuration(json!({ "prevResult": null }))).0, 0);
        assert!(place.records().is_empty());
    }
}

/// An agent that cannot reach its API server: it answers, but knows no pod. Killed when dropped.
struct Agent(Child);

impl Agent {
    #[allow(clippy::disallowed_methods, reason = "the binary under test is a process")]
    fn start(socket: &Path) -> Agent {
        let flags = [
            "--master=http://127.0.0.1:1",
            "--hostname-override=n",
            "--run-service-proxy=false",
            "--health-port=0",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_kube-router"));
        command.args(flags).env("KUBE_ROUTER_SOCKET", socket).stdin(Stdio::null()).stderr(Stdio::null());
        let agent = Agent(command.spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < end, "the agent opens no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_says_what_it_waits_for() {
    let place = Place::new();
    let _agent = Agent::start(&place.socket());
    for verb in ["ADD", "CHECK"] {
        let (status, output, _) = place.call(verb, &place.configuration(json!({ "timeout": "5s" })));
        let (code, text) = error(&output);
        assert!(status == 1 && code == 11 && text.contains("network policy plans nothing yet"), "{output}");
    }
    assert_eq!(place.call("DEL", &place.configuration(json!({}))), (0, String::new(), String::new()));
}
