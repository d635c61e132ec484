//! Keys of the entries in memory.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use crate::inline_bytes::InlineBytes;

/// The longest key that lies in the `Key` itself: a segment's path fits.
const INLINE_KEY_BYTES: usize = 62;

/// The key of a stored response. Hashes and compares as its text.
#[derive(Clone, Debug)]
pub(super) struct Key(InlineBytes<INLINE_KEY_BYTES>);

impl Key {
    pub(super) fn as_str(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(self.bytes()).unwrap_or("")
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// Look-ups are by bytes, so that no key is checked for UTF-8 again.
impl Borrow<[u8]> for Key {
    #[inline]
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
