//! Sidecar files: SubRip (`.srt`) and WebVTT (`.vtt`), in UTF-8, UTF-16 or Windows-1252.

use super::cue_text::from_tagged;
use crate::webvtt::{Cue, MAX_CUES};

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// Why a file holds no subtitles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("The subtitle file is larger than 8 MiB.")]
    TooLarge,
    /// It has no readable cue.
    #[error("The file holds no subtitles: upload SubRip (.srt) or WebVTT (.vtt).")]
    NoCues,
}

impl FileError {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "subtitles_too_large",
            Self::NoCues => "subtitles_not_readable",
        }
    }
}

/// Reads a file. Damaged cues are left out, as players do.
pub fn parse(bytes: &[u8]) -> Result<Vec<Cue>, FileError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    let text = decode(bytes).replace("\r\n", "\n").replace('\r', "\n");
    let mut cues = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((start_ms, end_ms, settings)) = timing(line) else { continue };
        let mut body = String::new();
        let mut top = false;
        // A cue ends at a blank line or, in damaged files, before the next cue's times.
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty() && timing(line).is_none()) {
            let next_is_timing = lines.peek().is_some_and(|next| timing(next).is_some());
            if next_is_timing && line.trim().bytes().all(|b| b.is_ascii_digit()) {
                break;
            }
            top |= ["{\\an7}", "{\\an8}", "{\\an9}"].iter().any(|mark| line.contains(mark));
            body.push_str(line);
            body.push('\n');
        }
        let text = from_tagged(&body);
        if end_ms > start_ms && !text.is_empty() {
            let settings = if top && settings.is_empty() { "line:0".to_owned() } else { settings };
            cues.push(Cue { start_ms, end_ms, settings, text });
        }
        if cues.len() >= MAX_CUES {
            break;
        }
    }
    if cues.is_empty() { Err(FileError::NoCues) } else { Ok(cues) }
}

/// `00:00:01,000 --> 00:00:02.500 line:0`.
fn timing(line: &str) -> Option<(u64, u64, String)> {
    let (start, rest) = line.split_once("-->")?;
    let mut words = rest.split_whitespace();
    let times = (time(start.trim())?, time(words.next()?)?);
    let settings: Vec<&str> = words.filter(|word| is_setting(word)).take(8).collect();
    Some((times.0, times.1, settings.join(" ")))
}

/// Whether `word` is a WebVTT cue setting. SubRip's coordinates and anything else after the times are not.
fn is_setting(word: &str) -> bool {
    let Some((name, value)) = word.split_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"%.,-".contains(&b);
    ["vertical", "line", "position", "size", "align"].contains(&name)
        && (1..=32).contains(&value.len())
        && value.bytes().all(plain)
}

/// Milliseconds of `[hours:]minutes:seconds[.,]milliseconds`.
fn time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let number = |part: &str| {
        let plain = (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u64>().ok()).flatten()
    };
    let mut parts = whole.split(':').rev();
    let (seconds, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let hours = parts.next().map_or(Some(0), number)?;
    if parts.next().is_some() || seconds > 59 || minutes > 59 {
        return None;
    }
    number(fraction)?;
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + number(&digits)?)
}

/// Decodes UTF-8, UTF-16 with a byte order mark, or Windows-1252.
fn decode(bytes: &[u8]) -> String {
    let pairs = |bytes: &[u8], from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).filter_map(|pair| Some(from(pair.try_into().ok()?))).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => pairs(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => pairs(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
        },
    }
}

/// The characters 0x80 to 0x9f of Windows-1252, where it differs from ISO 8859-1; five are unassigned.
const WINDOWS_1252_HIGH: &str = "€\u{fffd}‚ƒ„…†‡ˆ‰Š‹Œ\u{fffd}Ž\u{fffd}\u{fffd}‘’“”•–—˜™š›œ\u{fffd}žŸ";

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252_HIGH.chars().nth(usize::from(byte - 0x80)).unwrap_or('\u{fffd}'),
        other => char::from(other),
    }
}
