//! What the ledger keeps of frames that pass.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client that has asked once, and was answered with 300 bytes.
fn used(pieces: usize) -> Ledger {
    let mut ledger = Ledger::new();
    let settings = [setting(4, 70_000), setting(99, 1), setting(4, 80_000)].concat();
    let heard = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &settings),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 4, 0]),
        frame(HEADERS, 4, 1, b"\x82\x86"),
        frame(SETTINGS, ACK, 0, &[]),
        frame(DATA, 0, 1, &[0; 77]),
        frame(DATA, END_STREAM, 1, &[0; 3]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 8, 0]),
    ];
    let said = [
        frame(SETTINGS, 0, 0, &setting(3, 100)),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 2, 0]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(HEADERS, 4, 1, b"\x88"),
        frame(DATA, END_STREAM, 1, &[0; 300]),
    ];
    heard.concat().chunks(pieces).for_each(|piece| ledger.hear(piece));
    assert!(!ledger.is_quiet(), "a stream is open");
    said.concat().chunks(pieces).for_each(|piece| ledger.say(piece));
    ledger
}

/// Asks and lets the client say that it has forgotten.
fn cleared(ledger: &mut Ledger) {
    assert!(ledger.clearing().is_some());
    ledger.asked_to_clear();
    let mut passed = BytesMut::new();
    for piece in frame(SETTINGS, ACK, 0, &[]).repeat(2).chunks(4) {
        assert!(!ledger.is_clear() && ledger.sifts());
        ledger.sift(piece, &mut passed);
    }
    assert!(ledger.is_clear() && passed.is_empty() && ledger.is_quiet());
}

#[test]
fn a_new_connection_is_told_what_the_old_one_knew() {
    for pieces in 1..60 {
        let mut ledger = used(pieces);
        assert!(ledger.is_quiet(), "in pieces of {pieces}");
        cleared(&mut ledger);
        let window = frame(WINDOW_UPDATE, 0, 0, &(1024_u32 - 300).to_be_bytes());
        let told = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &setting(4, 80_000)), frame(SETTINGS, ACK, 0, &[]), window];
        assert_eq!(ledger.retold(), told.concat());
        let settings = frame(SETTINGS, 0, 0, &setting(3, 100));
        let grant = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 2, 0]);
        let acknowledged = frame(SETTINGS, ACK, 0, &[]);
        assert!(ledger.taken_up(&[settings.clone(), grant, acknowledged].concat()));
        // What the client has sent was not given back to it.
        let (missing, bytes) = ledger.missing().expect("80 bytes are missing");
        assert_eq!((missing.to_vec(), bytes), (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 80]), 80));
        ledger.granted(bytes);
        assert!(ledger.missing().is_none());
        assert!(!ledger.taken_up(&settings), "a client that was not heard");
    }
}

#[test]
fn late_frames_of_old_streams_are_kept_from_a_new_connection() {
    let late = [
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(DATA, END_STREAM, 1, &[0; 50]),
    ];
    let new = [
        frame(PING, 0, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(HEADERS, END_STREAM, 3, b"\x20\x82"),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    ];
    for pieces in 1..80 {
        let mut ledger = used(pieces);
        cleared(&mut ledger);
        ledger.taken_up(&[]);
        let mut passed = BytesMut::new();
        for piece in [late.concat(), new.concat()].concat().chunks(pieces) {
            // Once there is a new stream, a connection knows that lower ones are old.
            if ledger.sifts() { ledger.sift(piece, &mut passed) } else { passed.extend_from_slice(piece) }
        }
        assert_eq!(passed, new.concat(), "in pieces of {pieces}");
        assert!(!ledger.sifts());
    }
}

#[test]
fn what_could_not_be_told_keeps_a_connection() {
    for (what, heard, said) in [
        ("half a frame", frame(PING, ACK, 0, &[0; 8])[..12].to_vec(), vec![]),
        ("half a head", vec![0], vec![]),
        ("half a frame of ours", vec![], frame(PING, 0, 0, &[0; 8])[..12].to_vec()),
        ("a ping without an answer", frame(PING, 0, 0, &[0; 8]), vec![]),
        ("settings without an answer", frame(SETTINGS, 0, 0, &[]), vec![]),
        ("a request", frame(HEADERS, END_STREAM, 3, &[0x82]), vec![]),
        ("a client that goes", frame(GOAWAY, 0, 0, &[0; 8]), vec![]),
        ("a farewell of ours", vec![], frame(GOAWAY, 0, 0, &[0; 8])),
        ("a window that is narrower than at first", vec![], frame(DATA, 0, 1, &[0; 2000])),
    ] {
        let mut ledger = used(1000);
        assert!(ledger.is_quiet());
        ledger.hear(&heard);
        ledger.say(&said);
        assert!(!ledger.is_quiet(), "{what}");
    }
    // What was answered or given up does not.
    let mut ledger = used(1000);
    ledger.hear(&frame(PING, 0, 0, &[0; 8]));
    ledger.say(&frame(PING, ACK, 0, &[0; 8]));
    ledger.hear(&frame(HEADERS, END_STREAM, 3, &[0x82]));
    ledger.hear(&frame(HEADERS, 0, 5, &[0x82]));
    ledger.hear(&frame(RST_STREAM, 0, 3, &[0; 4]));
    ledger.say(&frame(RST_STREAM, 0, 5, &[0; 4]));
    assert!(ledger.is_quiet());
}

#[test]
fn a_request_uses_the_table_again() {
    let mut ledger = used(1000);
    cleared(&mut ledger);
    assert!(ledger.clearing().is_none(), "there is nothing to forget");
    ledger.hear(&frame(HEADERS, END_STREAM, 3, &[0x82]));
    assert!(!ledger.is_clear() && ledger.clearing().is_some());
}

/// Frames of any kind, some of them cut short or of the wrong length.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let one = (0_u8..11, any::<u8>(), 0_u32..8, prop::collection::vec(any::<u8>(), 0..24), 0_usize..4);
    let one = one.prop_map(|(kind, flags, stream, payload, short)| {
        let mut frame = frame(kind, flags, stream, &payload);
        frame.truncate(frame.len() - if short == 0 { 1 } else { 0 });
        frame
    });
    prop::collection::vec(one, 0..12).prop_map(|frames| frames.concat())
}

proptest! {
    #[test]
    fn it_knows_the_same_however_the_bytes_come(heard in any_frames(), said in any_frames(), pieces in 1_usize..40) {
        let run = |pieces: usize| {
            let mut ledger = Ledger::new();
            ledger.hear(PREFACE);
            ledger.asked_to_clear();
            let mut passed = BytesMut::new();
            heard.chunks(pieces).for_each(|piece| ledger.sift(piece, &mut passed));
            said.chunks(pieces).for_each(|piece| ledger.say(piece));
            (ledger.is_quiet(), ledger.is_clear(), ledger.sifts(), ledger.requests(), ledger.retold(), passed)
        };
        let whole = run(usize::MAX);
        prop_assert!(whole.5.len() <= heard.len());
        prop_assert_eq!(run(pieces), whole);
    }
}
