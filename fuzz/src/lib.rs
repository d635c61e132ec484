//! The parsers under fuzzing, taken from the product's sources by path: a fuzz build then needs neither its data
//! stores nor its HTTP stack, and takes a minute.
#![allow(dead_code, unreachable_pub, missing_docs)]

#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/semantics/mod.rs"]
pub mod semantics;
#[path = "../../src/time.rs"]
pub mod time;
#[path = "../../src/token/mod.rs"]
pub mod token;

#[path = "../../src/edge/cut.rs"]
mod cut;
#[path = "../../src/front/ledger.rs"]
mod ledger;

/// Cuts `text` as HLS and as DASH, as the edge does.
pub fn cut_playlist(text: &str, max_height: Option<u32>, preview_ms: Option<u64>) {
    let limits = cut::Limits { max_height, preview_ms };
    for kind in [cut::Playlist::Hls, cut::Playlist::Dash] {
        let once = cut::cut(kind, text, limits);
        // A preview's end and a manifest's figures are all that is ever added.
        assert!(once.len() <= text.len() + 64 * (1 + text.len() / 8), "{} from {}", once.len(), text.len());
        if !limits.any() {
            // Lines end anew; a carriage return in front of the end belongs to it.
            let lines = |text| str::lines(text).map(|line| line.trim_end_matches('\r'));
            assert!(lines(&once).eq(lines(text)), "{once:?} from {text:?}");
        }
    }
}

/// What a ledger knows after a client's frames and a server's, which come in pieces of so many bytes, and the frames
/// that it let pass.
pub fn keep_ledger(heard: &[u8], said: &[u8], pieces: usize) -> (bool, bool, u64, Vec<u8>, Vec<u8>) {
    let (mut ledger, mut passed) = (ledger::Ledger::new(), bytes::BytesMut::new());
    ledger.hear(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    ledger.asked_to_clear();
    heard.chunks(pieces).for_each(|piece| ledger.sift(piece, &mut passed));
    said.chunks(pieces).for_each(|piece| ledger.say(piece));
    (ledger.is_quiet(), ledger.is_clear(), ledger.requests(), ledger.retold().to_vec(), passed.to_vec())
}

/// Splits fuzz input into texts at its zero bytes.
pub fn texts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    let mut texts = [""; N];
    for text in &mut texts {
        *text = std::str::from_utf8(parts.next()?).ok()?;
    }
    Some(texts)
}

/// Header fields out of `name: value` lines.
pub fn headers(lines: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.lines().take(64).filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
}
