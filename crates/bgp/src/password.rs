//! The key of a session's TCP segments, which must not appear in logs, errors or `Debug` output.

use std::fmt;

/// The longest key Linux takes (`TCP_MD5SIG_MAXKEYLEN` in `linux/tcp.h`).
pub const PASSWORD_MAX: usize = 80;

/// A key of 1 to 80 octets for TCP MD5 signatures (RFC 2385). There is no `Display`, and `Debug` shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<[u8]>);

/// Why a text cannot be a key. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// An empty key would sign nothing.
    #[error("the password is empty; leave it out for a peer without one")]
    Empty,
    /// Longer than the kernel takes.
    #[error("the password has {0} octets, the kernel takes at most 80")]
    TooLong(usize),
}

impl Password {
    /// Hides `text`.
    ///
    /// # Errors
    /// It is empty, or longer than 80 octets.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, PasswordError> {
        match text.as_ref() {
            [] => Err(PasswordError::Empty),
            text if text.len() > PASSWORD_MAX => Err(PasswordError::TooLong(text.len())),
            text => Ok(Password(text.into())),
        }
    }

    /// The key itself, for the one place that sets the socket option.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_not_shown() {
        assert_eq!(Password::new(""), Err(PasswordError::Empty));
        assert_eq!(Password::new([b'x'; 81]), Err(PasswordError::TooLong(81)));
        let longest = Password::new([b'x'; 80]).unwrap();
        assert_eq!(longest.reveal().len(), 80);
        assert_eq!(format!("{:?}", Some(longest)), "Some(***)");
    }
}
