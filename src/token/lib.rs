//! Playback tokens: key files, signing, and the checks that make a [`Grant`].
//!
//! A token is a signed JWT (RFC 7519, RFC 7515; RFC 8037 for EdDSA). `paths`, `max_height` and `preview` are claims of our
//! own; the others are those of RFC 9246. Beyond reading key files this crate does no I/O, and the time is passed to it.
//! It must not know of routes or caches, and of HTTP only where a request holds its token.
//!
//! Delivery takes a [`Grant`], and nothing outside this crate can make one.
#![forbid(unsafe_code)]

pub mod extract;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod key_files;

mod algorithm;
mod claims;
mod denied;
mod grant;
mod issuer;
mod jwe;
mod jwks;
mod jws;
mod key_error;
mod renewal;
mod revocations;
mod scope;
mod signer;
mod strict_json;
mod uri_container;
mod verified_cache;
mod verify;

pub use algorithm::Algorithm;
pub use claims::Claims;
pub use denied::{Denied, IssuerIndex};
pub use grant::{CLOCK_SKEW_SECONDS, Grant, VerifiedToken};
pub use issuer::Issuer;
pub use jwe::ClaimKey;
pub use jwks::{KeySet, Trust};
pub use jws::MAX_TOKEN_BYTES;
pub use key_error::KeyError;
pub use renewal::{RenewedToken, Renewer};
pub use revocations::Revocations;
pub use signer::Signer;
pub use uri_container::RequestUri;
pub use verify::{Facts, Verifier, VerifierConfig};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
