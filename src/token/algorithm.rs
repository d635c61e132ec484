//! Signature algorithms (RFC 7518, RFC 8037).

use crate::key_error::KeyError;

/// The signature algorithms of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA over P-256 with SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// HMAC with SHA-256 (RFC 7518, section 3.2): only with a local key file of an issuer that is configured for it.
    Hs256,
}

impl Algorithm {
    /// The name in a token's header and a key's `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Hs256 => "HS256",
        }
    }

    /// The library's name for it.
    pub(super) fn for_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = KeyError;

    /// Takes the algorithms that key files can be made for.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "EdDSA" => Ok(Self::EdDsa),
            "ES256" => Ok(Self::Es256),
            _ => Err(KeyError::Unsupported(format!("the algorithm is EdDSA or ES256, not \"{text}\""))),
        }
    }
}
