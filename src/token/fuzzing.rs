//! Ways into the parts that a signature stands before, for fuzzing alone.

use super::claims::{self, ClientBinding, ParsedClaims};
use super::scope::Scope;
use super::uri_container::{PatternCache, RequestUri};
use super::{ClaimKey, jwe};
use lyceum_http::path::CleanPath;

/// Reads a payload and asks its scope for a path.
pub fn payload(bytes: &[u8], path: &str) {
    let Ok(mut parsed) = claims::object(bytes).and_then(ParsedClaims::read) else { return };
    if let Some(ClientBinding::Sealed(sealed)) = &parsed.client {
        let _ = jwe::open(sealed, &[] as &[ClaimKey]);
    }
    let scope = Scope::new(&mut parsed);
    if let Ok(path) = CleanPath::check(path) {
        let uri = RequestUri { secure: true, host: "edge.example", query: Some("a=%41") };
        let _ = scope.holds(path, &uri, &PatternCache::new());
    }
}
