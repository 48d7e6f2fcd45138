use std::fs;
use std::sync::Arc;

use super::*;
use crate::lane::{Change, Lane};
use crate::row::{Key, Row};

const LIST: &str = r#"{"cniVersion":"0.3.0","name":"mynet","plugins":[{"type":"tuning"},
  {"name":"kubernetes","type":"bridge","bridge":"kube-bridge","isDefaultGateway":true,"ipam":{"type":"host-local"}},
  {"type":"portmap"}]}"#;

fn config(subnets: &[&str], mtu: Option<u32>) -> CniConfig {
    CniConfig { subnets: subnets.iter().map(|net| net.parse().unwrap()).collect(), mtu }
}

fn revised(text: &str, wanted: &CniConfig) -> String {
    revise(text, wanted).unwrap().expect("a change")
}

#[test]
fn what_is_written_is_read() {
    for wanted in [
        config(&["10.244.1.0/24"], None),
        config(&["10.244.1.0/24", "fd00:10::/64"], Some(1500)),
        config(&[], Some(9000)),
    ] {
        let text = revised(LIST, &wanted);
        assert_eq!(read(&text).unwrap(), wanted);
        assert_eq!(revise(&text, &wanted).unwrap(), None, "a second time changes nothing");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["plugins"][0]["type"], "tuning");
        assert_eq!(value["plugins"][1]["isDefaultGateway"], true);
        assert_eq!(value["plugins"][2]["type"], "portmap");
    }
}

#[test]
fn upstreams_files_are_taken_over() {
    // A subnet of the old form, in a file that is one plugin.
    let old = r#"{"type":"bridge","ipam":{"type":"host-local","subnet":"10.244.1.7/24"}}"#;
    let wanted = config(&["10.244.1.0/24", "fd00:10::/64"], None);
    assert_eq!(read(old).unwrap(), config(&["10.244.1.0/24"], None));
    let value: Value = serde_json::from_str(&revised(old, &wanted)).unwrap();
    assert_eq!(
        value["ipam"],
        json!({"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:10::/64"}]]})
    );
    // A prefix that is not the node's any more.
    let stale =
        r#"{"type":"bridge","ipam":{"ranges":[[{"subnet":"10.244.9.0/24"}],[{"subnet":"10.244.1.5/24"}]]}}"#;
    let text = revised(stale, &wanted);
    assert_eq!(read(&text).unwrap(), wanted);
    assert!(!text.contains("10.244.9.0"), "{text}");
}

#[test]
fn ranges_with_more_than_a_subnet_are_their_authors() {
    let own = r#"{"type":"bridge","mtu":1400,"ipam":{"ranges":[[{"subnet":"10.244.1.0/24","rangeStart":"10.244.1.20"}],[{"subnet":"10.9.0.0/24"},{"subnet":"10.9.1.0/24"}]]}}"#;
    let text = revised(own, &config(&["10.244.1.0/24", "fd00:10::/64"], None));
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["ipam"]["ranges"].as_array().unwrap().len(), 3, "{text}");
    assert_eq!(value["ipam"]["ranges"][2], json!([{"subnet":"fd00:10::/64"}]));
    assert_eq!(value["mtu"], 1400);
}

#[test]
fn what_is_no_bridge_says_what_it_lacks() {
    for (text, what) in [
        ("{", "is not JSON"),
        (r#"{"type":"ptp"}"#, "no plugin of type \"bridge\""),
        (r#"{"plugins":[{"type":"ptp"}]}"#, "no plugin of type \"bridge\""),
        (r#"{"plugins":{}}"#, "\"plugins\""),
        (r#"{"type":"bridge"}"#, "no \"ipam\""),
        (r#"{"type":"bridge","ipam":{"ranges":{}}}"#, "\"ranges\""),
        ("[]", "no plugin"),
    ] {
        let error = revise(text, &config(&["10.0.0.0/24"], None)).unwrap_err().to_string();
        assert!(error.contains(what), "{text}: {error}");
    }
}

#[test]
fn the_lane_changes_the_file_in_place() {
    let folder = std::env::temp_dir().join(format!("cni-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("10-kuberouter.conflist");
    let mut lane = CniLane::new(vec![folder.join("10-kuberouter.conf"), path.clone()]);
    let wanted = Row::CniConfig(Arc::new(config(&["10.244.1.0/24"], Some(1450))));
    let change = Change { key: Key::CniConfig, from: None, to: Some(wanted.clone()), after: Vec::new() };
    assert!(lane.read().unwrap().is_empty());
    let refusal = lane.apply(std::slice::from_ref(&change)).pop().unwrap().unwrap_err();
    assert!(refusal.reason.contains("10-kuberouter.conf:"), "{refusal}");

    fs::write(&path, LIST).unwrap();
    lane.apply(&[change]).pop().unwrap().unwrap();
    assert_eq!(lane.read().unwrap(), [(Key::CniConfig, wanted.clone())]);
    // An MTU we did not ask for and a range with a gateway are no drift; a lost prefix is.
    let file = fs::read_to_string(&path).unwrap();
    let edited = file
        .replace(r#"[{"subnet":"10.244.1.0/24"}]"#, r#"[{"gateway":"10.244.1.9","subnet":"10.244.1.0/24"}]"#);
    assert_ne!(edited, file);
    fs::write(&path, edited).unwrap();
    assert_eq!(lane.read().unwrap(), [(Key::CniConfig, wanted.clone())]);
    fs::write(&path, LIST).unwrap();
    assert_ne!(lane.read().unwrap(), [(Key::CniConfig, wanted)]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_plugin_is_chained_once_its_program_is_there() {
    let folder = std::env::temp_dir().join(format!("cni-plugin-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("10-kuberouter.conflist");
    fs::write(&path, LIST).unwrap();
    let mut lane = CniLane::new(vec![path.clone()]).with_plugin("wait".into(), vec![folder.clone()]);
    let key = Key::CniPlugin("wait".into());
    let change = |to| Change { key: key.clone(), from: None, to, after: Vec::new() };
    let refusal = lane.apply(&[change(Some(Row::CniPlugin))]).pop().unwrap().unwrap_err();
    assert!(refusal.reason.contains("there is no program wait in"), "{refusal}");
    assert_eq!(fs::read_to_string(&path).unwrap(), LIST);
    fs::write(folder.join("wait"), "").unwrap();
    lane.apply(&[change(Some(Row::CniPlugin))]).pop().unwrap().unwrap();
    assert!(lane.read().unwrap().contains(&(key.clone(), Row::CniPlugin)));
    // Beside it, prefixes and MTU are written as ever.
    let wanted = Row::CniConfig(Arc::new(config(&["10.244.1.0/24"], None)));
    let prefixes = Change { key: Key::CniConfig, from: None, to: Some(wanted), after: Vec::new() };
    lane.apply(&[prefixes]).pop().unwrap().unwrap();
    assert_eq!(lane.read().unwrap().len(), 2);
    lane.apply(&[change(None)]).pop().unwrap().unwrap();
    assert_eq!(lane.read().unwrap().len(), 1);
    fs::remove_dir_all(&folder).unwrap();
}
