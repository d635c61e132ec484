//! Identifiers: `[a-z0-9]{1,32}`, safe in a path, a file name and a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest identifier, in bytes.
pub const MAX_LEN: usize = 32;

/// An identifier of anything: lesson, course, version, upload, session, key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Box<str>);

/// The text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to 32 of the characters a to z and 0 to 9")]
pub struct InvalidId;

impl Id {
    /// Parses an identifier.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=MAX_LEN).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId)
        }
    }

    /// A new one of 20 characters, about 103 random bits.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = String::with_capacity(20);
        while text.len() < 20 {
            for byte in random_bytes::<32>() {
                // 252 = 7 × 36: above it the remainder would favour the first letters.
                if byte < 252
                    && text.len() < 20
                    && let Some(c) = ALPHABET.get(usize::from(byte % 36))
                {
                    text.push(char::from(*c));
                }
            }
        }
        Self(text.into())
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes from the system's generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // aws-lc seeds itself from the kernel and has no failure that a caller could answer.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for Id {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse(text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.into()
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_what_is_safe_in_a_path() {
        assert!(Id::parse("a1").is_ok());
        for bad in ["", "A", "a/b", "..", "a-b", "é", &"a".repeat(33)] {
            assert_eq!(Id::parse(bad), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn random_ids_parse_and_differ() {
        let (a, b) = (Id::random(), Id::random());
        assert_ne!(a, b);
        assert_eq!(Id::parse(a.as_str()).as_ref(), Ok(&a));
    }
}
