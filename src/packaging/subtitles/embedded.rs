//! Embedded subtitles from the packets of a demuxer; text needs no decoder.

use super::cue_text::{from_ass, from_plain, from_tagged};
use crate::webvtt::Cue;

/// The longest that a cue without a duration is shown, in milliseconds.
const MAX_OPEN_CUE_MS: u64 = 5_000;

/// One packet: its start in milliseconds (negative before the lesson's start), its duration in milliseconds (0 where not
/// given), its bytes.
pub type Packet = (i64, u64, Vec<u8>);

/// The cues of a stream of `codec` (FFmpeg's name). An empty packet ends the cue before it, as in timed text.
pub fn cues(codec: &str, packets: &[Packet]) -> Vec<Cue> {
    let mut out = Vec::new();
    let mut packets = packets.iter().peekable();
    while let Some((start, length, bytes)) = packets.next() {
        let text = text_of(codec, bytes);
        let next = packets.peek().map_or(i64::MAX, |(next, _, _)| *next);
        let open_end = start.saturating_add_unsigned(MAX_OPEN_CUE_MS).min(next);
        let end = if *length > 0 { start.saturating_add_unsigned(*length) } else { open_end };
        let (start_ms, end_ms) = (u64::try_from(*start).unwrap_or(0), u64::try_from(end).unwrap_or(0));
        if end_ms > start_ms && !text.is_empty() {
            out.push(Cue { start_ms, end_ms, settings: String::new(), text });
        }
    }
    out
}

fn text_of(codec: &str, bytes: &[u8]) -> String {
    match codec {
        // ISO/IEC 14496-17 (3GPP TS 26.245): a length of 16 bits, text, then boxes for style.
        "mov_text" => match bytes {
            [high, low, rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
                from_plain(&String::from_utf8_lossy(rest.get(..length).unwrap_or_default()))
            }
            _ => String::new(),
        },
        // Matroska's fields: ReadOrder, Layer, Style, Name, three margins, Effect, Text.
        "ass" | "ssa" => {
            let event = String::from_utf8_lossy(bytes);
            from_ass(event.splitn(9, ',').nth(8).unwrap_or_default())
        }
        "subrip" | "webvtt" => from_tagged(&String::from_utf8_lossy(bytes)),
        _ => from_plain(&String::from_utf8_lossy(bytes)),
    }
}
