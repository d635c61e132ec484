//! The frames that an idle HTTP/2 connection keeps account of: however they are split, the account is the same, and
//! nothing is added to what passes.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Private in its crate.
#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../src/server/ledger.rs"]
mod ledger;

/// What is known after a client's frames and a server's, which come in pieces of so many bytes, and the frames that pass.
fn keep_ledger(heard: &[u8], said: &[u8], pieces: usize) -> (bool, bool, u64, Vec<u8>, Vec<u8>) {
    let (mut ledger, mut passed) = (ledger::Ledger::new(), bytes::BytesMut::new());
    ledger.hear(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    ledger.asked_to_clear();
    heard.chunks(pieces).for_each(|piece| ledger.sift(piece, &mut passed));
    said.chunks(pieces).for_each(|piece| ledger.say(piece));
    (ledger.is_quiet(), ledger.is_clear(), ledger.requests(), ledger.retold().to_vec(), passed.to_vec())
}

fuzz_target!(|data: &[u8]| {
    let Some(([pieces, part], frames)) = data.split_first_chunk::<2>().map(|(head, rest)| (*head, rest)) else { return };
    let (heard, said) = frames.split_at(frames.len() * usize::from(part) / 256);
    let whole = keep_ledger(heard, said, usize::MAX);
    assert_eq!(keep_ledger(heard, said, usize::from(pieces).max(1)), whole);
    assert!(whole.4.len() <= heard.len());
});
