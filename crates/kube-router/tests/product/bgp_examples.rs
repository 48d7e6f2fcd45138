//! `docs/bgp.md`: what its examples say is what the binary reads, without a refusal or an objection, and every flag and
//! annotation of BGP has an example. What becomes of some of them is shown by routers, in the lab's suite `routes`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kube_router::annotations::{RoutingAnnotations, ServiceAnnotations, node, service};
use kube_router::objection::ObjectRef;
use kube_router::options::{Options, unbuilt};
use serde_json::Value;

use crate::file;

/// Kind, name, key and value of an annotation; none where it is taken away.
type Annotated = (String, String, String, Option<String>);

/// Language and text of every code block; lines that go on are joined.
fn blocks() -> Vec<(String, String)> {
    let page = file("docs/bgp.md");
    let fenced = page.split("\n```").skip(1).step_by(2);
    let parts = fenced.map(|block| block.split_once('\n').unwrap());
    parts.map(|(language, code)| (language.to_owned(), code.replace("\\\n", " "))).collect()
}

/// The words of a line as a shell tells them: quotes hold a word together, a hash sign begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_with(String::new);
            }
            None if c == '#' && word.is_none() => break,
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_with(String::new).push(c),
        }
    }
    assert!(quote.is_none(), "a quote does not end: {line}");
    words.extend(word);
    words
}

/// The flags of the agent in a block: of a command line, or of a manifest's list of arguments.
fn flags(code: &str) -> Vec<String> {
    let mut flags = Vec::new();
    for words in code.lines().map(words) {
        let begins = words.first().is_some_and(|word| word == "-" || word == "kube-router");
        if begins && words.get(1).is_some_and(|word| word.starts_with("--")) {
            flags.extend(words.into_iter().skip(1));
        }
    }
    flags
}

/// What `kubectl annotate KIND NAME… KEY=VALUE…` does in a block, and what YAML of an object's metadata says there.
fn annotated(language: &str, code: &str) -> Vec<Annotated> {
    let mut all = Vec::new();
    for words in code.lines().map(words) {
        let [kubectl, annotate, kind, rest @ ..] = words.as_slice() else { continue };
        if (kubectl.as_str(), annotate.as_str()) != ("kubectl", "annotate") {
            continue;
        }
        let (keys, names): (Vec<&String>, Vec<&String>) =
            rest.iter().partition(|word| word.contains("kube-router.io/"));
        for name in names.into_iter().filter(|name| !name.starts_with("--")) {
            for key in &keys {
                let (key, value) = match key.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (key.strip_suffix('-').expect("a value, or a minus sign"), None),
                };
                all.push((kind.clone(), name.clone(), key.to_owned(), value));
            }
        }
    }
    if language == "yaml" && code.starts_with("metadata:") {
        let object: Value = serde_saphyr::from_str(code).unwrap();
        for (key, value) in object["metadata"]["annotations"].as_object().expect("annotations") {
            let kind = if service::ALL.contains(&key.as_str()) { "service" } else { "node" };
            let value = value.as_str().expect("values are texts").to_owned();
            all.push((kind.to_owned(), "here".to_owned(), key.clone(), Some(value)));
        }
    }
    all
}

/// Reads the annotations of one object as the agent does.
fn read(kind: &str, annotations: &BTreeMap<String, String>, code: &str) {
    let get = |key: &str| annotations.get(key).map(String::as_str);
    let objections = if kind == "node" {
        let object = ObjectRef { kind: "Node", namespace: String::new(), name: "node-1".to_owned() };
        RoutingAnnotations::read(&object, get).1
    } else {
        ServiceAnnotations::read(&ObjectRef::service("default", "web"), get).1
    };
    assert!(objections.is_empty(), "{objections:#?} in {code}");
    for net in [node::POD_CIDR, node::POD_CIDRS].into_iter().filter_map(get).flat_map(|text| text.split(','))
    {
        assert!(net.parse::<IpNet>().is_ok(), "{net} in {code}");
    }
}

#[test]
fn examples_are_what_the_binary_reads() {
    let mut seen = (0, 0);
    for (language, code) in blocks() {
        let flags = flags(&code);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let options = Options::from_flags(&flags).unwrap_or_else(|refusal| panic!("{refusal} in {code}"));
        assert!(unbuilt(&options).is_empty(), "{:?} in {code}", unbuilt(&options));
        let mut objects: BTreeMap<(String, String), BTreeMap<String, String>> = BTreeMap::new();
        for (kind, name, key, value) in annotated(&language, &code) {
            let known = match kind.as_str() {
                "node" => node::ALL.contains(&key.as_str()),
                "service" => service::ALL.contains(&key.as_str()),
                other => panic!("annotations of a {other} in {code}"),
            };
            assert!(known, "{kind} {key} in {code}");
            let of_object = objects.entry((kind, name)).or_default();
            of_object.extend(value.map(|value| (key, value)));
        }
        objects.iter().for_each(|((kind, _), annotations)| read(kind, annotations, &code));
        seen = (seen.0 + flags.len(), seen.1 + objects.len());
    }
    assert!(seen.0 > 30 && seen.1 > 10, "flags and objects: {seen:?}");
}

#[test]
fn every_flag_and_annotation_has_an_example() {
    let guide = file("docs/user-guide.md");
    let (_, section) = guide.split_once("\n## Flags: BGP\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|row| row.starts_with("| `--") && !row.contains("not built"));
    let rows = rows.map(|row| row.split('`').nth(1).unwrap().to_owned());
    let mut wanted: BTreeSet<String> = rows.collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    let of_services = service::ALL.into_iter().filter(|key| key.contains("advertise"));
    let of_services = of_services.chain([service::LOCAL, service::SKIP_LOAD_BALANCER_IPS]);
    wanted.extend(node::ALL.into_iter().chain(of_services).map(str::to_owned));
    for (language, code) in blocks() {
        for flag in flags(&code) {
            wanted.remove(flag.split('=').next().unwrap());
        }
        for (_, _, key, value) in annotated(&language, &code) {
            if value.is_some() {
                wanted.remove(&key);
            }
        }
    }
    assert!(wanted.is_empty(), "without an example in docs/bgp.md: {wanted:?}");
}
