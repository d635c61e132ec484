//! Entry points for the fuzz targets. Not part of the API.

use bytes::BytesMut;

use crate::http2::peer_state;

/// The client connection preface (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known of an HTTP/2 connection after frames of its client and of its server.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Nothing is under way that could not be replayed to a new connection.
    pub is_idle: bool,
    /// The client's header compression table is known to be empty.
    pub is_table_empty: bool,
    /// Requests so far.
    pub requests: u64,
    /// Frames that would be replayed to a new connection.
    pub replay: Vec<u8>,
    /// Frames of the client that were passed on.
    pub passed: Vec<u8>,
}

/// Tracks a connection whose bytes arrive in pieces of `piece_bytes` in each direction; `received` begins behind the
/// preface.
pub fn track_http2(received: &[u8], sent: &[u8], piece_bytes: usize) -> PeerState {
    let (mut peer, mut passed) = (peer_state::PeerState::new(), BytesMut::new());
    peer.record_received(PREFACE);
    peer.record_clear_requested();
    received.chunks(piece_bytes.max(1)).for_each(|piece| peer.filter_received(piece, &mut passed));
    sent.chunks(piece_bytes.max(1)).for_each(|piece| peer.record_sent(piece));
    PeerState {
        is_idle: peer.is_idle(),
        is_table_empty: peer.is_table_empty(),
        requests: peer.requests(),
        replay: peer.replay().to_vec(),
        passed: passed.to_vec(),
    }
}
