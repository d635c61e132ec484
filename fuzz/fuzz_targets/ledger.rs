//! HTTP/2 frames as an idle connection's ledger reads them: it knows the same however they are cut, and adds nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::keep_ledger;

fuzz_target!(|data: &[u8]| {
    let Some(([pieces, part], frames)) = data.split_first_chunk::<2>().map(|(head, rest)| (*head, rest)) else { return };
    let (heard, said) = frames.split_at(frames.len() * usize::from(part) / 256);
    let whole = keep_ledger(heard, said, usize::MAX);
    assert_eq!(keep_ledger(heard, said, usize::from(pieces).max(1)), whole);
    assert!(whole.4.len() <= heard.len());
});
