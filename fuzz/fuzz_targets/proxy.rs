//! PROXY headers: read as a listener does, they end, and never take a byte that is not theirs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_http::proxy_protocol::{Parsed, parse};

fuzz_target!(|data: &[u8]| {
    let mut have = 0;
    while let Some(bytes) = data.get(..have) {
        match parse(bytes) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > have && more <= 16 + 2048, "{have} {more}");
                have = more;
            }
            Ok(Parsed::Whole { .. }) | Err(_) => return,
        }
    }
});
