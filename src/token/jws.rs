//! Signed tokens in compact serialization (JWS; RFC 7515).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::algorithm::Algorithm;
use crate::denied::Denied;
use crate::jwks::VerifyingKey;
use crate::strict_json;

/// The longest token that is accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// The compact serialization (RFC 7515, section 7.1).
pub(super) struct CompactJws<'a> {
    pub(super) header: &'a str,
    pub(super) payload: &'a str,
    signature: &'a str,
    signed: &'a [u8],
}

impl<'a> CompactJws<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, Denied> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        let filled = !header.is_empty() && !payload.is_empty() && !signature.is_empty();
        if !filled || payload.contains('.') {
            return Err(Denied::Malformed);
        }
        Ok(Self { header, payload, signature, signed: signed.as_bytes() })
    }

    /// Whether `key` signed it. The key decides on the algorithm and the token has to agree (RFC 8725, section 3.1).
    pub(super) fn is_signed_by(&self, key: &VerifyingKey, header: &JoseHeader) -> bool {
        let agrees = header.algorithm == key.algorithm.name()
            || (key.algorithm == Algorithm::EdDsa && header.algorithm == "Ed25519");
        agrees
            && jsonwebtoken::crypto::verify(self.signature, self.signed, &key.decoding, key.algorithm.for_library())
                .unwrap_or(false)
    }
}

/// The bytes of a part in base64url.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, Denied> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed)
}

/// The JOSE header (RFC 7515, section 4).
pub(super) struct JoseHeader {
    algorithm: String,
    pub(super) kid: Option<String>,
    /// The first field that changes what is signed or has to be understood, and is not supported.
    pub(super) unsupported: Option<&'static str>,
}

impl JoseHeader {
    pub(super) fn read(part: &str) -> Result<Self, Denied> {
        let map = strict_json::object(&decode(part)?)?;
        let text = |name: &str| map.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let kid = text("kid");
        if map.contains_key("kid") && kid.is_none() {
            return Err(Denied::Malformed);
        }
        // RFC 7515, section 4.1.11, and RFC 7797.
        let unsupported = ["crit", "b64"].into_iter().find(|name| map.contains_key(*name));
        Ok(Self { algorithm: text("alg").ok_or(Denied::Malformed)?, kid, unsupported })
    }
}
