//! The state that an idle HTTP/2 connection keeps: it does not depend on how the frames are split, and nothing is added to
//! the frames that pass.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_server::fuzzing::track_http2;

fuzz_target!(|data: &[u8]| {
    let Some(([pieces, part], frames)) = data.split_first_chunk::<2>().map(|(head, rest)| (*head, rest)) else {
        return;
    };
    let (received, sent) = frames.split_at(frames.len() * usize::from(part) / 256);
    let whole = track_http2(received, sent, usize::MAX);
    assert_eq!(track_http2(received, sent, usize::from(pieces)), whole);
    assert!(whole.passed.len() <= received.len());
});
