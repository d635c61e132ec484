//! Ways into the parts that a signature stands before, for fuzzing alone.

use super::claims::{self, Client, Parsed};
use super::container::{Patterns, Uri};
use super::scope::Scope;
use super::{ClaimKey, jwe};
use lyceum_http::path::CleanPath;

/// Reads a payload and asks its scope for a path.
pub fn payload(bytes: &[u8], path: &str) {
    let Ok(mut parsed) = claims::object(bytes).and_then(Parsed::read) else { return };
    if let Some(Client::Sealed(sealed)) = &parsed.client {
        let _ = jwe::open(sealed, &[] as &[ClaimKey]);
    }
    let scope = Scope::new(&mut parsed);
    if let Ok(path) = CleanPath::check(path) {
        let uri = Uri { secure: true, host: "edge.example", query: Some("a=%41") };
        let _ = scope.holds(path, &uri, &Patterns::new());
    }
}
