//! Whole-segment encryption of HLS (RFC 8216bis, section 4.4.4.4, method `AES-128`): its part of plans and tasks.
//!
//! Keys are made, sealed and served elsewhere. A plan names only where players get the key; the key itself is only in
//! a task's description, put there by whoever hands out the task ([`TaskSpec::set_key`](crate::task::TaskSpec::set_key)). A protected task
//! without its key fails: segments are never left unencrypted by mistake. The IV of a segment is its number
//! (media sequence number), and init segments stay in the clear.
//!
//! To protect a lesson: `plan(…)`, then [`Plan::protect`](crate::plan::Plan::protect) with the URI that its media playlists name (relative to
//! `{version}/{track}/`, such as `../keys/k1`, so that a token in the path goes along); before a task goes out,
//! `spec.set_key(&key)`. Playlists then carry `EXT-X-KEY`; there are no I-frame playlists and no DASH manifest.

use std::fmt;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// A 128-bit key. Written as 32 hexadecimal digits; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey([u8; 16]);

impl ContentKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, as a key server answers with them.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(…)")
    }
}

impl Serialize for ContentKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for ContentKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        let bytes: Option<Vec<u8>> = digits
            .filter(|d| d.len() == 32)
            .map(|digits| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect());
        let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("a key is 32 hexadecimal digits"))
    }
}

/// How a lesson is protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Where players get the key, as media playlists name it.
    pub key_uri: String,
}

/// How a task protects the segments that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Protection {
    /// Not at all.
    #[default]
    Clear,
    /// AES-128 in CBC mode over each whole segment, padded as PKCS #7 has it.
    Aes128 {
        /// The key; missing until the task is handed out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<ContentKey>,
    },
}

impl Protection {
    /// Whether segments stay in the clear.
    pub fn is_clear(&self) -> bool {
        *self == Self::Clear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_serialised_in_hex_and_hidden_from_debug() {
        let key = ContentKey::new(*b"0123456789abcdef");
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, "\"30313233343536373839616263646566\"");
        assert_eq!(serde_json::from_str::<ContentKey>(&text).unwrap(), key);
        assert_eq!(format!("{key:?}"), "ContentKey(…)");
        for wrong in ["\"\"", "\"30\"", "\"3031323334353637383961626364656g\"", "\"303132333435363738396162636465666\""]
        {
            assert!(serde_json::from_str::<ContentKey>(wrong).is_err(), "{wrong}");
        }
    }
}
