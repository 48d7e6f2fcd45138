//! Label and field selectors, as `labelSelector=` and `fieldSelector=` carry them and as objects hold them.

use serde_json::Value;

use super::object::{at, items, text};
use super::{ApiError, Resource};

/// One requirement on a label (`metav1.LabelSelectorRequirement`).
#[derive(Clone, PartialEq, Eq, Debug)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// All requirements must hold; none hold for everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(input: &str) -> Result<Self, ApiError> {
        let parts = split_outside_parentheses(input);
        parts.into_iter().map(parse_requirement).collect::<Result<_, _>>().map(Self)
    }

    /// A plain map of labels, as in `Service.spec.selector`.
    pub(crate) fn from_map(selector: &Value) -> Self {
        let pairs = selector.as_object().into_iter().flatten();
        let equal = |(key, value): (&String, &Value)| {
            Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()])
        };
        Self(pairs.map(equal).collect())
    }

    /// A `metav1.LabelSelector` object with `matchLabels` and `matchExpressions`.
    pub(crate) fn from_object(selector: &Value) -> Self {
        let mut requirements = selector.get("matchLabels").map(Self::from_map).unwrap_or_default().0;
        for expression in items(selector, &["matchExpressions"]) {
            let key = text(expression, &["key"]).to_owned();
            let values = items(expression, &["values"]).iter().filter_map(Value::as_str);
            let values = values.map(str::to_owned).collect();
            requirements.push(match text(expression, &["operator"]) {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                // No operator of the API: nothing meets it.
                _ => Requirement::In(key, Vec::new()),
            });
        }
        Self(requirements)
    }

    /// Whether the object's `metadata.labels` meet every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = at(object, &["metadata", "labels"]);
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        })
    }

    /// Whether it matches everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn split_outside_parentheses(input: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let at_top = |character: char| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    input.split(at_top).map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn parse_requirement(part: &str) -> Result<Requirement, ApiError> {
    let refused = || ApiError::BadRequest(format!("unable to parse requirement: {part}"));
    let key_of = |key: &str| {
        let key = key.trim().to_owned();
        if key.is_empty() || key.contains(char::is_whitespace) { Err(refused()) } else { Ok(key) }
    };
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(refused)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => Ok(Requirement::In(key_of(key)?, values)),
            Some((key, "notin")) => Ok(Requirement::NotIn(key_of(key)?, values)),
            _ => Err(refused()),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key_of(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value).trim();
        return Ok(Requirement::In(key_of(key)?, vec![value.to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(key_of(key)?)),
        None => Ok(Requirement::Exists(key_of(part)?)),
    }
}

/// `path=value` and `path!=value` terms; all must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct FieldSelector(Vec<(Vec<String>, bool, String)>);

impl FieldSelector {
    /// Parses the selector for a kind; a field the kind cannot be selected by is refused, as by the real server.
    pub(crate) fn parse(resource: Resource, input: &str) -> Result<Self, ApiError> {
        let parts = input.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| parse_field(resource, part)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether every term holds; an absent field is the empty string.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, expected)| {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let same = match at(object, &path) {
                Some(Value::Bool(value)) => value.to_string() == *expected,
                Some(value) => value.as_str().unwrap_or_default() == expected,
                None => expected.is_empty() || expected == "false",
            };
            same == *equal
        })
    }

    /// Whether it matches everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_field(resource: Resource, part: &str) -> Result<(Vec<String>, bool, String), ApiError> {
    let (field, equal, value) = match (part.split_once("!="), part.split_once('=')) {
        (Some((field, value)), _) => (field, false, value),
        (None, Some((field, value))) => (field, true, value.strip_prefix('=').unwrap_or(value)),
        _ => return Err(ApiError::BadRequest(format!("invalid selector: '{part}'"))),
    };
    if !selectable(resource, field) {
        return Err(ApiError::BadRequest(format!("field label not supported: {field}")));
    }
    Ok((field.split('.').map(str::to_owned).collect(), equal, value.to_owned()))
}

fn selectable(resource: Resource, field: &str) -> bool {
    let own: &[&str] = match resource {
        Resource::Pods => &["spec.nodeName", "status.phase", "spec.restartPolicy", "status.podIP"],
        Resource::Nodes => &["spec.unschedulable"],
        Resource::Namespaces => &["status.phase"],
        Resource::Services => &["spec.clusterIP", "spec.type"],
        Resource::Secrets => &["type"],
        Resource::Events => &["reason", "type", "source"],
        Resource::EventsV1 => &["reason", "type"],
        _ => &[],
    };
    let reference = match resource {
        Resource::Events => field.strip_prefix("involvedObject."),
        Resource::EventsV1 => field.strip_prefix("regarding."),
        _ => None,
    };
    const REFERENCE: [&str; 7] =
        ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    matches!(field, "metadata.name" | "metadata.namespace")
        || own.contains(&field)
        || reference.is_some_and(|field| REFERENCE.contains(&field))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).unwrap().matches(&json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn each_label_operator_selects_as_documented() {
        let labels = || json!({"app": "web", "tier": "front"});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("zone!=a", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("zone notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!zone", true),
            ("app in (web),tier", true),
        ] {
            assert_eq!(holds(selector, labels()), expected, "{selector}");
        }
        for broken in ["app in (a", "a b", "=x"] {
            assert!(LabelSelector::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn selector_objects_join_labels_and_expressions() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]},
                                 {"key": "old", "operator": "DoesNotExist"}],
        }));
        assert!(selector.matches(&json!({"metadata": {"labels": {"app": "web", "tier": "front"}}})));
        assert!(!selector.matches(&json!({"metadata": {"labels": {"app": "web"}}})));
        assert!(
            !selector.matches(&json!({"metadata": {"labels": {"app": "web", "tier": "front", "old": ""}}}))
        );
    }

    #[test]
    fn fields_select_by_path_and_unknown_fields_are_refused() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let holds = |selector| FieldSelector::parse(Resource::Pods, selector).unwrap().matches(&pod);
        assert!(holds("metadata.name=a,spec.nodeName==n1"));
        assert!(!holds("status.phase!=Running"));
        assert!(holds("status.podIP="));
        assert!(FieldSelector::parse(Resource::Pods, "spec.hostNetwork=true").is_err());
        assert!(FieldSelector::parse(Resource::Services, "spec.nodeName=a").is_err());
        assert!(FieldSelector::parse(Resource::Events, "involvedObject.name=a").is_ok());
    }
}
