//! Label selectors.

use std::fmt::Display;

use super::Lenient;
use super::reading::Reading;
use crate::kube::model::{Operator, Requirement, Selector};
use crate::kube::wire;

/// A selector as far as it could be read. One of which a requirement is missing selects too much.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) selector: Selector,
    /// Every requirement could be read.
    pub(super) whole: bool,
}

/// The selector in a field; `None` if there is none. `remedy` says what a broken one means for its owner.
pub(super) fn selector(
    reading: &mut Reading<'_>,
    field: impl Display,
    wire: Lenient<wire::LabelSelector>,
    remedy: &str,
) -> Option<Found> {
    let wire = match wire {
        Lenient::Absent => return None,
        Lenient::Found(wire) => wire,
        Lenient::Refused { found, .. } => {
            reading.object_to(&field, found, "is not a label selector", remedy);
            return Some(Found::default());
        }
    };
    let mut requirements = Vec::new();
    let mut whole = true;
    match wire.match_labels {
        Lenient::Absent => {}
        Lenient::Found(labels) => {
            for (key, value) in labels {
                let Lenient::Found(value) = value else {
                    reading.object_to(format_args!("{field}.matchLabels[{key}]"), "", "has no text", remedy);
                    whole = false;
                    continue;
                };
                let values = [reading.shared(&value)];
                let key = reading.shared(&key);
                requirements.push(Requirement { key, operator: Operator::of_values(true, values) });
            }
        }
        Lenient::Refused { found, .. } => {
            reading.object_to(format_args!("{field}.matchLabels"), found, "is not a map of labels", remedy);
            whole = false;
        }
    }
    let list = match wire.match_expressions {
        Lenient::Absent => Vec::new(),
        Lenient::Found(list) => list,
        Lenient::Refused { found, .. } => {
            reading.object_to(format_args!("{field}.matchExpressions"), found, "is not a list", remedy);
            whole = false;
            Vec::new()
        }
    };
    for (place, expression) in list.into_iter().enumerate() {
        let field = format_args!("{field}.matchExpressions[{place}]");
        let expression = match expression {
            Lenient::Found(expression) => expression,
            _ => wire::LabelExpression::default(),
        };
        match requirement(reading, field, expression, remedy) {
            Some(requirement) => requirements.push(requirement),
            None => whole = false,
        }
    }
    Some(Found { selector: requirements.into_iter().collect(), whole })
}

/// `In` and `NotIn` have values, the others have none (`metav1.LabelSelectorAsSelector`).
fn requirement(
    reading: &mut Reading<'_>,
    field: impl Display,
    wire: wire::LabelExpression,
    remedy: &str,
) -> Option<Requirement> {
    let key = wire.key.found().unwrap_or_default();
    if key.is_empty() {
        reading.object_to(format_args!("{field}.key"), "", "is empty", remedy);
        return None;
    }
    let listed = match wire.values {
        Lenient::Absent => Vec::new(),
        Lenient::Found(values) => values,
        Lenient::Refused { .. } => vec![Lenient::Absent],
    };
    let given = listed.len();
    let values: Vec<String> = listed.into_iter().filter_map(Lenient::found).collect();
    let operator = wire.operator.found().unwrap_or_default();
    let sound = match operator.as_str() {
        "In" | "NotIn" => !values.is_empty() && values.len() == given,
        "Exists" | "DoesNotExist" => given == 0,
        _ => {
            let reason = "is not In, NotIn, Exists or DoesNotExist";
            reading.object_to(format_args!("{field}.operator"), operator, reason, remedy);
            return None;
        }
    };
    if !sound {
        let reason = format!("do not go with operator {operator}");
        reading.object_to(format_args!("{field}.values"), values.join(","), reason, remedy);
        return None;
    }
    let values: Vec<_> = values.iter().map(|value| reading.shared(value)).collect();
    let operator = match operator.as_str() {
        "In" => Operator::of_values(true, values),
        "NotIn" => Operator::of_values(false, values),
        "Exists" => Operator::Exists,
        _ => Operator::DoesNotExist,
    };
    Some(Requirement { key: reading.shared(&key), operator })
}
