//! CMCD (CTA-5004): query, fields and event reports.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::{headers, texts};
use lyceum_http::cmcd::Report;

fuzz_target!(|data: &[u8]| {
    let Some([text, lines]) = texts::<2>(data) else { return };
    let _ = Report::parse(text);
    let _ = Report::of_request(Some(text), &headers(lines));
    assert!(Report::events(text).count() <= text.len() + 1);
});
