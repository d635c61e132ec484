//! The path of a request, and the token in it: whatever passes has one reading, also for who decodes it twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::semantics::{carrier, path::CleanPath};
use lyceum_fuzz::{headers, texts};

fn structure(path: &[u8]) -> usize {
    path.iter().filter(|byte| matches!(byte, b'/' | b'\\' | b'.')).count()
}

fuzz_target!(|data: &[u8]| {
    let Some([target, lines]) = texts::<2>(data) else { return };
    let Ok(uri) = target.parse::<http::Uri>() else { return };
    let headers = headers(lines);
    let found = carrier::in_path(uri.path());
    let rest = found.map_or(uri.path(), |(_, rest)| rest);
    if let Ok(path) = CleanPath::check(rest) {
        let once: Vec<u8> = percent_encoding::percent_decode_str(rest).collect();
        let twice: Vec<u8> = percent_encoding::percent_decode(&once).collect();
        assert_eq!(structure(rest.as_bytes()), structure(&once), "{rest}");
        assert_eq!(structure(&once), structure(&twice), "{rest}");
        assert!(!once.split(|b| *b == b'/').any(|s| s == b"." || s == b".."), "{rest}");
        assert!(!once.windows(2).any(|pair| pair == b"//"), "{rest}");
        assert!(path.is_under("/"));
    }
    if let Some((token, rest)) = found {
        assert!(!token.contains('/') && rest.starts_with('/'));
    }
    let _ = carrier::elsewhere(uri.query(), &headers);
    if let Some(left) = uri.query().and_then(carrier::without_token) {
        assert_eq!(carrier::elsewhere(Some(&left), &http::HeaderMap::new()), None);
    }
});
