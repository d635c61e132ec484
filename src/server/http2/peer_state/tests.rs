//! What is kept of frames that pass.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// After one request, whose response had 300 bytes.
fn used(pieces: usize) -> PeerState {
    let mut peer = PeerState::new();
    let settings = [encode_setting(4, 70_000), encode_setting(99, 1), encode_setting(4, 80_000)].concat();
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
        frame(SETTINGS, 0, 0, &encode_setting(3, 100)),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 2, 0]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(HEADERS, 4, 1, b"\x88"),
        frame(DATA, END_STREAM, 1, &[0; 300]),
    ];
    heard.concat().chunks(pieces).for_each(|piece| peer.record_received(piece));
    assert!(!peer.is_idle(), "a stream is open");
    said.concat().chunks(pieces).for_each(|piece| peer.record_sent(piece));
    peer
}

/// Asks the client to empty its table, and acknowledges for it.
fn cleared(peer: &mut PeerState) {
    assert!(peer.table_clear_request().is_some());
    peer.record_clear_requested();
    let mut passed = BytesMut::new();
    for piece in frame(SETTINGS, ACK, 0, &[]).repeat(2).chunks(4) {
        assert!(!peer.is_table_empty() && peer.needs_filter());
        peer.filter_received(piece, &mut passed);
    }
    assert!(peer.is_table_empty() && passed.is_empty() && peer.is_idle());
}

#[test]
fn a_replay_tells_a_new_connection_what_the_old_one_knew() {
    for pieces in 1..60 {
        let mut peer = used(pieces);
        assert!(peer.is_idle(), "in pieces of {pieces}");
        cleared(&mut peer);
        let window = frame(WINDOW_UPDATE, 0, 0, &(1024_u32 - 300).to_be_bytes());
        let told =
            [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &encode_setting(4, 80_000)), frame(SETTINGS, ACK, 0, &[]), window];
        assert_eq!(peer.replay(), told.concat());
        let settings = frame(SETTINGS, 0, 0, &encode_setting(3, 100));
        let grant = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 2, 0]);
        let acknowledged = frame(SETTINGS, ACK, 0, &[]);
        assert!(peer.finish_replay(&[settings.clone(), grant, acknowledged].concat()));
        // The window for what the client has sent was not returned.
        let (missing, bytes) = peer.unreturned_window().expect("80 bytes are missing");
        assert_eq!((missing.to_vec(), bytes), (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 80]), 80));
        peer.record_window_returned(bytes);
        assert!(peer.unreturned_window().is_none());
        assert!(!peer.finish_replay(&settings), "settings without an acknowledgement");
    }
}

#[test]
fn late_frames_of_old_streams_do_not_reach_a_new_connection() {
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
        let mut peer = used(pieces);
        cleared(&mut peer);
        peer.finish_replay(&[]);
        let mut passed = BytesMut::new();
        for piece in [late.concat(), new.concat()].concat().chunks(pieces) {
            // Once there is a new stream, a connection knows that lower ones are old.
            if peer.needs_filter() { peer.filter_received(piece, &mut passed) } else { passed.extend_from_slice(piece) }
        }
        assert_eq!(passed, new.concat(), "in pieces of {pieces}");
        assert!(!peer.needs_filter());
    }
}

#[test]
fn state_that_can_not_be_replayed_keeps_a_connection() {
    for (what, heard, said) in [
        ("half a frame", frame(PING, ACK, 0, &[0; 8])[..12].to_vec(), vec![]),
        ("half a frame header", vec![0], vec![]),
        ("half a frame of the server", vec![], frame(PING, 0, 0, &[0; 8])[..12].to_vec()),
        ("a ping without an answer", frame(PING, 0, 0, &[0; 8]), vec![]),
        ("settings without an answer", frame(SETTINGS, 0, 0, &[]), vec![]),
        ("a request", frame(HEADERS, END_STREAM, 3, &[0x82]), vec![]),
        ("a GOAWAY of the client", frame(GOAWAY, 0, 0, &[0; 8]), vec![]),
        ("a GOAWAY of the server", vec![], frame(GOAWAY, 0, 0, &[0; 8])),
        ("a window smaller than the initial one", vec![], frame(DATA, 0, 1, &[0; 2000])),
    ] {
        let mut peer = used(1000);
        assert!(peer.is_idle());
        peer.record_received(&heard);
        peer.record_sent(&said);
        assert!(!peer.is_idle(), "{what}");
    }
    // Acknowledged frames and reset streams do not keep it.
    let mut peer = used(1000);
    peer.record_received(&frame(PING, 0, 0, &[0; 8]));
    peer.record_sent(&frame(PING, ACK, 0, &[0; 8]));
    peer.record_received(&frame(HEADERS, END_STREAM, 3, &[0x82]));
    peer.record_received(&frame(HEADERS, 0, 5, &[0x82]));
    peer.record_received(&frame(RST_STREAM, 0, 3, &[0; 4]));
    peer.record_sent(&frame(RST_STREAM, 0, 5, &[0; 4]));
    assert!(peer.is_idle());
}

#[test]
fn a_request_may_fill_the_table_again() {
    let mut peer = used(1000);
    cleared(&mut peer);
    assert!(peer.table_clear_request().is_none(), "the table is empty");
    peer.record_received(&frame(HEADERS, END_STREAM, 3, &[0x82]));
    assert!(!peer.is_table_empty() && peer.table_clear_request().is_some());
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
    fn the_state_does_not_depend_on_how_bytes_are_split(heard in any_frames(), said in any_frames(), pieces in 1_usize..40) {
        let run = |pieces: usize| {
            let mut peer = PeerState::new();
            peer.record_received(PREFACE);
            peer.record_clear_requested();
            let mut passed = BytesMut::new();
            heard.chunks(pieces).for_each(|piece| peer.filter_received(piece, &mut passed));
            said.chunks(pieces).for_each(|piece| peer.record_sent(piece));
            (peer.is_idle(), peer.is_table_empty(), peer.needs_filter(), peer.requests(), peer.replay(), passed)
        };
        let whole = run(usize::MAX);
        prop_assert!(whole.5.len() <= heard.len());
        prop_assert_eq!(run(pieces), whole);
    }
}
