//! Entry points behind the signature check, for fuzzing alone.

use super::claims::{ClientBinding, ParsedClaims};
use super::jwe::{self, ClaimKey};
use super::scope::Scope;
use super::strict_json;
use super::uri_container::{PatternCache, RequestUri};
use lyceum_http::path::CleanPath;

/// Reads a payload and asks its scope for a path.
pub fn payload(bytes: &[u8], path: &str) {
    let Ok(mut parsed) = strict_json::object(bytes).and_then(ParsedClaims::read) else { return };
    if let Some(ClientBinding::Encrypted(claim)) = &parsed.client {
        let _ = jwe::decrypt(claim, &[] as &[ClaimKey]);
    }
    let scope = Scope::new(&mut parsed);
    if let Ok(path) = CleanPath::check(path) {
        let uri = RequestUri { secure: true, host: "edge.example", query: Some("a=%41") };
        let _ = scope.holds(path, &uri, &PatternCache::new());
    }
}
