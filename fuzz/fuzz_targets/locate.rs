//! The path of a request, and the token in it: whatever passes has one reading, also for who decodes it twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::{headers, texts};
use lyceum_http::path::CleanPath;
use lyceum_token::extract;

fn structure(path: &[u8]) -> usize {
    path.iter().filter(|byte| matches!(byte, b'/' | b'\\' | b'.')).count()
}

fuzz_target!(|data: &[u8]| {
    let Some([target, lines]) = texts::<2>(data) else { return };
    let Ok(uri) = target.parse::<http::Uri>() else { return };
    let headers = headers(lines);
    let names = extract::TokenNames::try_from("URISigningPackage".to_owned()).expect("a name");
    let found = extract::in_path(uri.path());
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
    if extract::leads_with_token(uri.path()) {
        let text = uri.path();
        assert!(found.map_or(text.strip_prefix("/t/"), |(token, _)| Some(token)).is_some_and(extract::looks_signed));
    }
    for value in headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok()) {
        if let Some(left) = names.cookie_without_token(value) {
            let left = http::HeaderMap::from_iter([(http::header::COOKIE, left.parse().expect("still a value"))]);
            assert_eq!(names.cookie(&left), None, "{value}");
        }
    }
    let _ = names.outside_path(uri.query(), &headers);
    if let Some(left) = uri.query().and_then(|query| names.query_without_token(query)) {
        assert_eq!(names.outside_path(Some(&left), &http::HeaderMap::new()), None);
    }
});
