//! Asking a running agent for an explanation.

use std::path::Path;

use super::{Explanation, Question};
use crate::status::client::{self, ClientError};

/// What the agent behind this socket says.
///
/// # Errors
/// [`ClientError`]; with what stands against answering as [`ClientError::Answer`].
pub async fn explain(path: &Path, question: &Question) -> Result<Explanation, ClientError> {
    let mut target = String::from("/v1/explain?");
    let mut add = |name: &str, value: &str| {
        target.push_str(&format!("{name}={}&", escaped(value)));
    };
    add("from", &question.from);
    add("to", &question.to);
    if let Some(port) = question.port {
        add("port", &port.to_string());
    }
    if let Some(protocol) = &question.protocol {
        add("protocol", protocol);
    }
    Ok(serde_json::from_slice(&client::get(path, &target).await?)?)
}

/// Percent-encoded, but for what is unreserved (RFC 3986).
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_user_writes_is_one_value() {
        assert_eq!(super::escaped("pod/a-b.c"), "pod%2Fa-b.c");
        assert_eq!(super::escaped("fd00::1&to=x ü"), "fd00%3A%3A1%26to%3Dx%20%C3%BC");
    }
}
