//! Cases as files: what `crates/lab/testdata/policy/README.md` describes, read and taken apart. Nothing here touches a
//! cluster.

use std::collections::BTreeMap;
use std::path::Path;

use lab::policy::{Member, Port, Question, Truth};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default)]
    ask: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

/// Labels to set; null removes one.
pub(crate) type Labels = BTreeMap<String, Option<String>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    pub(crate) apply: BTreeMap<String, Value>,
    pub(crate) delete: Vec<String>,
    pub(crate) pods: BTreeMap<String, Labels>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    /// Namespaces that begin, and their labels.
    pub(crate) begin: BTreeMap<String, BTreeMap<String, String>>,
    /// Namespaces that end, with all that is in them.
    pub(crate) end: Vec<String>,
    pub(crate) create: BTreeMap<String, NewPod>,
    pub(crate) remove: Vec<String>,
    expect: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPod {
    pub(crate) node: usize,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

impl Case {
    /// All cases of the files whose name begins with `prefix`, in the order of files.
    pub(crate) fn read(prefix: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/policy");
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let is_case = |path: &std::path::PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(prefix) && name.ends_with(".yaml")
        };
        let mut files: Vec<_> = files.filter(is_case).collect();
        files.sort();
        let cases = files.iter().flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let cases: Vec<Self> =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            cases
        });
        let cases: Vec<_> = cases.collect();
        assert!(!cases.is_empty(), "no case in {}/{prefix}*", folder.display());
        cases
    }

    pub(crate) fn ports(&self) -> Vec<Port> {
        let read = |text: &String| text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        match self.ask.is_empty() {
            true => vec!["80/TCP".parse().unwrap()],
            false => self.ask.iter().map(read).collect(),
        }
    }
}

impl Step {
    /// Whether it says by hand what passes.
    pub(crate) fn is_stated(&self) -> bool {
        self.expect.is_some()
    }

    /// The table stated by hand, if the step has one.
    pub(crate) fn stated(&self, members: &[Member], ports: &[Port]) -> Option<Truth> {
        let lines: Vec<Statement> = self.expect.as_ref()?.iter().map(|line| Statement::read(line)).collect();
        for statement in &lines {
            for side in [&statement.from, &statement.to] {
                assert!(members.iter().any(|member| is_in(&member.name, side)), "nobody is in {side:?}");
            }
        }
        let holds = |question: &Question| {
            let (from, to) = (&members[question.from].name, &members[question.to].name);
            let last = lines.iter().rfind(|line| line.fits(question.port, from, to));
            last.is_none_or(|line| line.allows)
        };
        Some(Truth::new(members, ports, holds))
    }
}

/// `deny 81/TCP x/a > *`.
struct Statement {
    allows: bool,
    port: Option<Port>,
    from: String,
    to: String,
}

impl Statement {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, port, from, to) = match words[..] {
            [verb, from, ">", to] => (verb, None, from, to),
            [verb, port, from, ">", to] => (verb, Some(port.parse().unwrap()), from, to),
            _ => panic!("{line:?} is not like `deny 81/TCP x/a > *`"),
        };
        let allows = match verb {
            "allow" => true,
            "deny" => false,
            _ => panic!("{line:?} begins with neither allow nor deny"),
        };
        Self { allows, port, from: from.to_owned(), to: to.to_owned() }
    }

    fn fits(&self, port: Port, from: &str, to: &str) -> bool {
        self.port.is_none_or(|own| own == port) && is_in(from, &self.from) && is_in(to, &self.to)
    }
}

/// Whether a pod is meant by `*`, its namespace or its name.
fn is_in(pod: &str, whom: &str) -> bool {
    whom == "*" || pod == whom || pod.split_once('/').is_some_and(|(namespace, _)| namespace == whom)
}

/// A policy's spec with `$x/b` and `$x/b/4` replaced by addresses and networks: a peer for each family.
pub(crate) fn resolve(mut spec: Value, members: &[Member]) -> Value {
    let rules = ["ingress", "egress"].map(|direction| spec.get_mut(direction).map(Value::take));
    for (direction, rules) in ["ingress", "egress"].into_iter().zip(rules) {
        let Some(Value::Array(mut rules)) = rules else { continue };
        for rule in &mut rules {
            for key in ["from", "to"] {
                if let Some(Value::Array(peers)) = rule.get_mut(key) {
                    *peers = peers.drain(..).flat_map(|peer| each_family(&peer, members)).collect();
                }
            }
        }
        spec[direction] = Value::Array(rules);
    }
    spec
}

fn each_family(peer: &Value, members: &[Member]) -> Vec<Value> {
    let is_symbolic = peer["ipBlock"]["cidr"].as_str().is_some_and(|cidr| cidr.starts_with('$'));
    if !is_symbolic {
        return vec![peer.clone()];
    }
    let network = |text: &Value, family: usize| Value::from(network(text.as_str().unwrap(), members, family));
    let families = members[0].addresses.len();
    let written = (0..families).map(|family| {
        let mut peer = peer.clone();
        let block = &mut peer["ipBlock"];
        block["cidr"] = network(&block["cidr"], family);
        for except in block.get_mut("except").and_then(Value::as_array_mut).into_iter().flatten() {
            *except = network(except, family);
        }
        peer
    });
    written.collect()
}

/// `$x/b` or `$x/b/4` in one family.
fn network(text: &str, members: &[Member], family: usize) -> String {
    let parts: Vec<&str> = text.strip_prefix('$').unwrap_or_else(|| panic!("{text}")).split('/').collect();
    let name = parts[..2].join("/");
    let member = members.iter().find(|member| member.name == name).unwrap_or_else(|| panic!("no pod {name}"));
    let address = member.addresses[family];
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = parts.get(2).map_or(full, |length| length.parse().unwrap());
    ipnet::IpNet::new(address, length).unwrap().trunc().to_string()
}
