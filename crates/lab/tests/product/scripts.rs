//! `install-cni`, by the shell of the image: what it writes, what it leaves, what it says.

use std::fs;
use std::path::Path;

use lab::process::{command, run};
use serde_json::Value;

use crate::root;

const OURS: &str = "10-kuberouter.conflist";
/// Where Debian's package has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

struct Place {
    etc: tempfile::TempDir,
    bin: tempfile::TempDir,
    /// Stands for the agent.
    agent: tempfile::NamedTempFile,
}

impl Place {
    fn new() -> Self {
        let agent = tempfile::NamedTempFile::new().unwrap();
        run(command("chmod").arg("755").arg(agent.path())).unwrap();
        Self { etc: tempfile::tempdir().unwrap(), bin: tempfile::tempdir().unwrap(), agent }
    }

    /// Exit status and all that was printed.
    fn install(&self, text: &Path) -> (bool, String) {
        let mut script = command("busybox");
        script
            .arg("sh")
            .arg(root().join("packaging/image/install-cni"))
            .arg(text)
            .arg(PLUGINS)
            .arg(self.bin.path())
            .arg(self.agent.path());
        let output = script.env("KUBE_ROUTER_CNI_CONF_FILE", self.etc.path().join(OURS)).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.etc.path().join(name)).ok()
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.etc.path().join(name), text).unwrap();
    }
}

#[test]
fn an_empty_node_gets_configuration_and_plugins() {
    let (place, text) = (Place::new(), root().join("cni/10-kuberouter.conflist"));
    let (done, said) = place.install(&text);
    assert!(done, "{said}");
    assert_eq!(place.read(OURS).unwrap(), fs::read_to_string(&text).unwrap());
    for plugin in ["bridge", "host-local", "portmap", "loopback"] {
        let version = run(command(place.bin.path().join(plugin)).env("CNI_COMMAND", "VERSION"));
        assert!(serde_json::from_str::<Value>(&version.unwrap()).unwrap()["supportedVersions"].is_array());
    }
    let left: Vec<_> =
        fs::read_dir(place.etc.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [OURS], "nothing half-written stays");
    let (done, said) = place.install(&text);
    assert!(done && said.is_empty(), "a second time: {said}");
}

#[test]
fn what_is_there_stays() {
    let (place, text) = (Place::new(), root().join("cni/10-kuberouter.conflist"));
    place.put(OURS, "{\"mine\": true}");
    fs::write(place.bin.path().join("bridge"), "theirs").unwrap();
    run(command("chmod").arg("755").arg(place.bin.path().join("bridge"))).unwrap();
    assert!(place.install(&text).0);
    assert_eq!(place.read(OURS).unwrap(), "{\"mine\": true}");
    assert_eq!(fs::read_to_string(place.bin.path().join("bridge")).unwrap(), "theirs");
}

/// Our own older form would be read first and goes; another program's file stays and is named.
#[test]
fn a_file_that_comes_first_is_named() {
    let (place, text) = (Place::new(), root().join("cni/10-kuberouter.conflist"));
    place.put("10-kuberouter.conf", "{}");
    place.put("05-other.conflist", "{}");
    let (done, said) = place.install(&text);
    assert!(done, "{said}");
    assert_eq!((place.read("10-kuberouter.conf"), place.read("05-other.conflist").is_some()), (None, true));
    assert!(said.contains("05-other.conflist") && said.contains("remove one of them"), "{said}");
}

#[test]
fn without_a_text_it_says_what_to_mount() {
    let (done, said) = Place::new().install(Path::new("/nonexistent/cni-conf.json"));
    assert!(!done && said.contains("kube-router-cfg"), "{said}");
}

/// The agent's own plugin is replaced when the image is a newer one.
#[test]
fn our_own_plugin_follows_the_agent() {
    let (place, text) = (Place::new(), root().join("cni/10-kuberouter.conflist"));
    let plugin = place.bin.path().join("kube-router-cni");
    for version in ["first", "second"] {
        fs::write(place.agent.path(), version).unwrap();
        assert!(place.install(&text).0);
        assert_eq!(fs::read_to_string(&plugin).unwrap(), version);
    }
    assert_eq!(place.install(&text).1, "");
}
