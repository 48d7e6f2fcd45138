//! A plugin that follows all others in the list: added at the end with its type alone, taken out whatever else is said of
//! it. One that is there already stays where and as it is.

use serde_json::{Value, json};

use super::Error;

/// Whether a plugin of this type is in the list.
pub fn is_chained(text: &str, kind: &str) -> bool {
    let file: Result<Value, _> = serde_json::from_str(text);
    let plugins = file.ok().and_then(|file| file.get("plugins")?.as_array().cloned());
    plugins.is_some_and(|plugins| plugins.iter().any(|plugin| is_of(plugin, kind)))
}

/// The text with a plugin of this type, unless it has one.
///
/// # Errors
/// When the text is no list of plugins.
pub fn chain(text: &str, kind: &str) -> Result<Option<String>, Error> {
    let mut file: Value = serde_json::from_str(text)?;
    let plugins = list(&mut file)?.ok_or(Error::NoList)?;
    if plugins.iter().any(|plugin| is_of(plugin, kind)) {
        return Ok(None);
    }
    plugins.push(json!({ "type": kind }));
    Ok(Some(file.to_string()))
}

/// The text without plugins of this type, unless it has none.
///
/// # Errors
/// When the text is not JSON, or its list is none.
pub fn unchain(text: &str, kind: &str) -> Result<Option<String>, Error> {
    let mut file: Value = serde_json::from_str(text)?;
    let Some(plugins) = list(&mut file)? else { return Ok(None) };
    let before = plugins.len();
    plugins.retain(|plugin| !is_of(plugin, kind));
    Ok((plugins.len() != before).then(|| file.to_string()))
}

fn list(file: &mut Value) -> Result<Option<&mut Vec<Value>>, Error> {
    match file.get_mut("plugins") {
        None => Ok(None),
        Some(plugins) => plugins.as_array_mut().map(Some).ok_or(Error::Form("\"plugins\"")),
    }
}

fn is_of(plugin: &Value, kind: &str) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_added_last_once_and_taken_out() {
        let list =
            r#"{"cniVersion":"0.3.1","name":"mynet","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#;
        let chained = chain(list, "wait").unwrap().expect("a change");
        let value: Value = serde_json::from_str(&chained).unwrap();
        assert_eq!(value["plugins"][2], json!({ "type": "wait" }));
        assert!(is_chained(&chained, "wait") && !is_chained(list, "wait"));
        assert_eq!(chain(&chained, "wait").unwrap(), None);
        // Written by hand, with settings and in another place: its author's.
        let own = r#"{"plugins":[{"type":"bridge"},{"type":"wait","timeout":"9s"},{"type":"portmap"}]}"#;
        assert_eq!(chain(own, "wait").unwrap(), None);
        let without: Value = serde_json::from_str(&unchain(own, "wait").unwrap().expect("a change")).unwrap();
        assert_eq!(without, json!({ "plugins": [{ "type": "bridge" }, { "type": "portmap" }] }));
        assert_eq!(unchain(list, "wait").unwrap(), None);
    }

    #[test]
    fn a_single_plugin_has_no_place_for_another() {
        let single = r#"{"type":"bridge","ipam":{}}"#;
        assert!(chain(single, "wait").unwrap_err().to_string().contains(".conflist"));
        assert_eq!(unchain(single, "wait").unwrap(), None);
        assert!(chain(r#"{"plugins":{}}"#, "wait").unwrap_err().to_string().contains("\"plugins\""));
        assert!(!is_chained("{", "wait"));
    }
}
