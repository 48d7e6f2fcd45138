//! An error as a line for a person.

use std::error::Error;

/// The error with all that caused it. Many say their cause themselves, so what was said is not said again.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading: {source}")]
    struct Outer {
        source: Middle,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("a program failed")]
    struct Middle {
        source: std::io::Error,
    }

    #[test]
    fn each_cause_is_said_once() {
        let error = Outer { source: Middle { source: std::io::Error::other("no room") } };
        assert_eq!(with_causes(&error), "reading: a program failed: no room");
    }
}
