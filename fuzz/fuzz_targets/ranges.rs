//! Range: what is satisfied lies inside, in bounds, and says where it lies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_http::range::{self, RequestedRange};

fuzz_target!(|data: (u64, &str)| {
    let (length, field) = data;
    if let RequestedRange::Spans(spans) = range::wanted(field, length) {
        assert!(!spans.is_empty());
        for span in spans {
            assert!(span.first <= span.last && span.last < length, "{span:?} of {length}");
            assert_eq!(span.length(), span.last - span.first + 1);
            assert_eq!(range::content_range(&span.content_range(length)).map(|(_, whole)| whole), Some(length));
        }
    }
    let _ = range::content_range(field);
    let _ = range::first_byte(field);
});
