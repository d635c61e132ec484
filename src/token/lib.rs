//! Who may have what: key files, signing, and the checks that make a [`Grant`].
//!
//! A token is a signed JWT (RFC 7519, RFC 7515; RFC 8037 for EdDSA) in the profile of the design's section 5,
//! which takes its claims for scope from RFC 9246. This module reads key files; beyond that it does no I/O, and
//! it is told the time. It must not know of HTTP, routes or caches.
//!
//! Delivery takes a [`Grant`], and nothing outside this module can make one.
#![forbid(unsafe_code)]

pub mod key_files;

mod claims;
pub mod extract;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jwe;
mod jwks;
mod renewal;
mod revocations;
mod scope;
mod signer;
mod uri_container;
mod verified_cache;
mod verify;

pub use claims::Claims;
pub use jwe::ClaimKey;
pub use jwks::{KeyError, KeySet, Trust};
pub use renewal::{RenewedToken, Renewer};
pub use revocations::Revocations;
pub use signer::Signer;
pub use uri_container::RequestUri;
pub use verify::{Denied, Facts, Grant, Issuer, IssuerIndex, VerifiedToken, Verifier, VerifierConfig};

/// The longest token that is read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// How far the clocks of issuer and edge may differ, in seconds.
pub const CLOCK_SKEW_SECONDS: i64 = 30;

/// The signature algorithms that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA over P-256 with SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// HMAC with SHA-256: only from a key file of an issuer that was configured for it.
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

    fn for_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = KeyError;

    /// Takes the names of the algorithms that key files are made for.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "EdDSA" => Ok(Self::EdDsa),
            "ES256" => Ok(Self::Es256),
            _ => Err(KeyError::Unsupported(format!("the algorithm is EdDSA or ES256, not \"{text}\""))),
        }
    }
}

#[cfg(test)]
mod tests;
