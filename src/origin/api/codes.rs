//! The codes of errors, as the API's description lists them: stable names of what `refusal` tells clients.

/// All codes, sorted.
pub(super) const CODES: &[&str] = &[
    "body_exceeds_upload",
    "body_incomplete",
    "body_too_large",
    "busy",
    "checksum_mismatch",
    "conflict",
    "cross_site",
    "database_unavailable",
    "draining",
    "forbidden",
    "idempotency_key_reused",
    "internal",
    "invalid_header",
    "invalid_request",
    "last_admin",
    "lease_lost",
    "length_mismatch",
    "method_not_allowed",
    "not_entitled",
    "not_failed",
    "not_found",
    "not_planned",
    "not_playable",
    "not_ready",
    "nothing_to_retry",
    "offset_mismatch",
    "precondition_failed",
    "quota_exceeded",
    "range_not_satisfiable",
    "session_revoked",
    "store_full",
    "store_unavailable",
    "subtitles_not_readable",
    "subtitles_too_large",
    "too_many_attempts",
    "too_many_requests",
    "too_many_secrets",
    "too_many_streams",
    "too_many_uploads",
    "too_many_waiting",
    "tus_version",
    "unauthenticated",
    "unprocessable",
    "unsupported_media_type",
    "upload_gone",
    "upload_lost",
    "upload_not_found",
    "upload_not_writable",
    "upload_superseded",
    "upload_too_large",
    "upload_type_refused",
    "upload_under_way",
    "wrong_part",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes that a source file tells clients: each stands behind a status.
    fn told(source: &str) -> Vec<&str> {
        let shipped = source.split("#[cfg(test)]").next().unwrap();
        let words: Vec<&str> = shipped.split('"').collect();
        let behind_a_status = |before: &str| {
            let before = before.trim_end().trim_end_matches(',');
            let name = before.rsplit([' ', '(', '\n']).next().unwrap();
            name.starts_with("S::") || name.contains("StatusCode::") || before.ends_with("checksum_mismatch()")
        };
        words.windows(2).filter(|pair| behind_a_status(pair[0])).map(|pair| pair[1]).collect()
    }

    #[test]
    fn each_code_that_a_client_may_get_is_listed() {
        assert!(CODES.is_sorted(), "{CODES:?}");
        let told: Vec<&str> = [told(include_str!("refusal.rs")), told(include_str!("mod.rs"))].concat();
        assert!(told.len() > 40, "{told:?}");
        for code in told {
            assert!(CODES.contains(&code), "{code} is missing in CODES");
        }
    }
}
