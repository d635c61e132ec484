//! Keys of the table in memory.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// As much text as lies beside its length: a segment's path. Then a key is one place in memory and not two, and among
/// many objects a look-up waits for memory more than for anything else.
const INLINE: usize = 62;

/// The key of a stored response. Hashes and compares as its text.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Inline(u8, [u8; INLINE]),
    Apart(Box<str>),
}

impl Key {
    pub(super) fn as_str(&self) -> &str {
        match self {
            // It was text when it was put there.
            Self::Inline(length, text) => {
                text.get(..usize::from(*length)).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("")
            }
            Self::Apart(text) => text,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, text) => text.get(..usize::from(*length)).unwrap_or_default(),
            Self::Apart(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Inline(length, inline)
            }
            _ => Self::Apart(text.into()),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// What is looked up: bytes, so that no text is checked again.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::BuildHasher as _;

    proptest! {
        #[test]
        fn a_key_is_its_text(text in "\\PC{0,80}", other in "[a-c]{0,3}") {
            let (key, hasher) = (Key::from(text.as_str()), std::hash::RandomState::new());
            prop_assert_eq!(key.as_str(), &text);
            prop_assert_eq!(hasher.hash_one(&key), hasher.hash_one(text.as_bytes()));
            prop_assert_eq!(key == Key::from(other.as_str()), text == other);
        }
    }
}
