//! Media playlists (RFC 8216, sections 4.3.2 and 4.3.3).

use std::sync::Arc;
use std::time::Duration;

use super::attributes::{Attributes, integer, seconds};
use super::line::{Line, MAX_ENTRIES};

/// The segments of one rendition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Media {
    /// No segment is longer, rounded to the second.
    pub target_duration: Duration,
    /// The number of the first segment.
    pub media_sequence: u64,
    /// `VOD`, `EVENT`, or none: then segments may go away at the front.
    pub kind: Option<PlaylistType>,
    /// `EXT-X-ENDLIST`: nothing will be added.
    pub ended: bool,
    /// Where a player should begin.
    pub start: Option<Start>,
    /// Each segment is one key frame.
    pub iframes_only: bool,
    /// In order of play.
    pub segments: Vec<Segment>,
}

/// `EXT-X-PLAYLIST-TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaylistType {
    /// Never changes.
    Vod,
    /// Grows at its end alone.
    Event,
}

/// `EXT-X-START`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// From the front, or from the end when `from_end`.
    pub offset: Duration,
    /// The offset was negative.
    pub from_end: bool,
}

/// One segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// As written.
    pub uri: String,
    /// Where it begins, counted from the playlist's first segment.
    pub start: Duration,
    /// `EXTINF`.
    pub duration: Duration,
    /// A part of the resource.
    pub byte_range: Option<ByteRange>,
    /// The URI of the init segment that goes before it.
    pub map: Option<Arc<(String, Option<ByteRange>)>>,
    /// What it is encrypted with.
    pub key: Option<Arc<Key>>,
    /// Time stamps or coding change before it.
    pub discontinuity: bool,
    /// It is missing on purpose.
    pub gap: bool,
}

impl Segment {
    /// Where the next one begins.
    pub fn end(&self) -> Duration {
        self.start.saturating_add(self.duration)
    }
}

/// `EXT-X-BYTERANGE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Bytes.
    pub length: u64,
    /// From the start of the resource.
    pub offset: u64,
}

/// `EXT-X-KEY` of a method other than `NONE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `AES-128`, `SAMPLE-AES` and others.
    pub method: String,
    /// As written.
    pub uri: String,
}

impl Media {
    /// The sum of all segments.
    pub fn duration(&self) -> Duration {
        self.segments.last().map_or(Duration::ZERO, Segment::end)
    }

    /// Whether `next` may follow `self` at the same address: an EVENT playlist only grows, and a VOD one stays.
    pub fn may_become(&self, next: &Self) -> Result<(), String> {
        if self.kind == Some(PlaylistType::Event) && next.kind.is_none() {
            return Err("the playlist was an EVENT and is none any more".into());
        }
        let kept = self.segments.iter().zip(&next.segments);
        let changed = kept.clone().position(|(a, b)| a.uri != b.uri || a.duration != b.duration);
        match changed {
            _ if self.media_sequence != next.media_sequence => Err("segments went away at the front".into()),
            _ if next.segments.len() < self.segments.len() => {
                Err(format!("it shrank from {} to {} segments", self.segments.len(), next.segments.len()))
            }
            Some(index) => Err(format!("segment {index} changed")),
            None if self.ended && next != self => Err("it changed after EXT-X-ENDLIST".into()),
            None => Ok(()),
        }
    }
}

/// Collects lines.
#[derive(Default)]
pub(super) struct Builder {
    playlist: Media,
    version: Option<u64>,
    target: Option<u64>,
    begun: bool,
    has_sequence: bool,
    longest: Duration,
    // What the next URI takes along.
    extinf: Option<Duration>,
    fractional: bool,
    range: Option<(u64, Option<u64>)>,
    map: Option<Arc<(String, Option<ByteRange>)>>,
    key: Option<Arc<Key>>,
    discontinuity: bool,
    gap: bool,
}

impl Builder {
    /// Whether a tag of media playlists was seen.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Takes a line if it is one of this kind of playlist.
    pub(super) fn take(&mut self, line: &Line<'_>) -> Result<bool, String> {
        let taken = match line {
            Line::Uri(uri) => match self.extinf.take() {
                Some(duration) => self.segment(uri, duration).map(|()| true)?,
                None => false,
            },
            // A tag of both kinds says nothing about which this is.
            Line::Tag { name: "EXT-X-VERSION", value } => {
                let version = integer(value.unwrap_or_default()).map_err(|what| format!("EXT-X-VERSION: {what}"))?;
                if self.version.replace(version).is_some() {
                    return Err("EXT-X-VERSION comes twice".into());
                }
                return Ok(false);
            }
            Line::Tag { name: "EXT-X-START", value } => {
                self.playlist.start = Some(start(value.unwrap_or_default())?);
                return Ok(false);
            }
            Line::Tag { name, value } => self.tag(name, *value)?,
        };
        self.begun |= taken;
        Ok(taken)
    }

    fn tag(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        if self.playlist.ended && name == "EXTINF" {
            return Err("a segment behind EXT-X-ENDLIST".into());
        }
        let text = value.unwrap_or_default();
        let wrap = |what| format!("{name}: {what}");
        match name {
            "EXTINF" => {
                let number = text.split_once(',').map_or(text, |(number, _title)| number);
                self.fractional |= number.contains('.');
                if self.extinf.replace(seconds(number).map_err(wrap)?).is_some() {
                    return Err("EXTINF twice for one segment".into());
                }
            }
            "EXT-X-TARGETDURATION" => {
                if self.target.replace(integer(text).map_err(wrap)?).is_some() {
                    return Err("EXT-X-TARGETDURATION comes twice".into());
                }
            }
            "EXT-X-MEDIA-SEQUENCE" => {
                if self.has_sequence || !self.playlist.segments.is_empty() {
                    return Err("EXT-X-MEDIA-SEQUENCE comes once, before the first segment".into());
                }
                self.has_sequence = true;
                self.playlist.media_sequence = integer(text).map_err(wrap)?;
            }
            "EXT-X-PLAYLIST-TYPE" => {
                let kind = match text {
                    "VOD" => PlaylistType::Vod,
                    "EVENT" => PlaylistType::Event,
                    other => {
                        return Err(format!("EXT-X-PLAYLIST-TYPE is VOD or EVENT, not {other:?}"));
                    }
                };
                if self.playlist.kind.replace(kind).is_some() {
                    return Err("EXT-X-PLAYLIST-TYPE comes twice".into());
                }
            }
            "EXT-X-ENDLIST" => self.playlist.ended = true,
            "EXT-X-I-FRAMES-ONLY" => self.playlist.iframes_only = true,
            "EXT-X-DISCONTINUITY" => self.discontinuity = true,
            "EXT-X-GAP" => self.gap = true,
            "EXT-X-BYTERANGE" => self.range = Some(range(text).map_err(wrap)?),
            "EXT-X-MAP" => self.map = Some(Arc::new(map(text).map_err(wrap)?)),
            "EXT-X-KEY" => self.key = key(text).map_err(wrap)?.map(Arc::new),
            "EXT-X-PROGRAM-DATE-TIME" | "EXT-X-DISCONTINUITY-SEQUENCE" | "EXT-X-BITRATE" | "EXT-X-DATERANGE" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn segment(&mut self, uri: &str, duration: Duration) -> Result<(), String> {
        if self.playlist.segments.len() >= MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} segments"));
        }
        let byte_range = match self.range.take() {
            None => None,
            Some((length, Some(offset))) => Some(ByteRange { length, offset }),
            Some((length, None)) => {
                let before = self.playlist.segments.last().filter(|before| before.uri == uri);
                let before = before
                    .and_then(|before| before.byte_range)
                    .ok_or("EXT-X-BYTERANGE without an offset, and no range before it")?;
                let offset = before.offset.checked_add(before.length).ok_or("EXT-X-BYTERANGE is out of range")?;
                Some(ByteRange { length, offset })
            }
        };
        self.longest = self.longest.max(duration);
        self.playlist.segments.push(Segment {
            uri: uri.into(),
            start: self.playlist.duration(),
            duration,
            byte_range,
            map: self.map.clone(),
            key: self.key.clone(),
            discontinuity: std::mem::take(&mut self.discontinuity),
            gap: std::mem::take(&mut self.gap),
        });
        Ok(())
    }

    /// The playlist, if it hangs together.
    pub(super) fn finish(mut self) -> Result<Media, String> {
        if self.extinf.is_some() {
            return Err("EXTINF has no URI behind it".into());
        }
        let target = self.target.ok_or("a media playlist needs EXT-X-TARGETDURATION")?;
        // "Rounded to the nearest integer" (section 4.3.3.1): 4.4 s fits a target of 4, 4.5 s does not.
        let rounded = (self.longest + Duration::from_millis(500)).as_secs();
        if rounded > target {
            return Err(format!("a segment of {:?} is longer than EXT-X-TARGETDURATION:{target}", self.longest));
        }
        if self.fractional && self.version.unwrap_or(1) < 3 {
            return Err("fractions of a second in EXTINF need EXT-X-VERSION:3".into());
        }
        if self.playlist.kind == Some(PlaylistType::Vod) && !self.playlist.ended {
            return Err("a VOD playlist without EXT-X-ENDLIST".into());
        }
        self.playlist.target_duration = Duration::from_secs(target);
        Ok(self.playlist)
    }
}

fn start(text: &str) -> Result<Start, String> {
    let attributes = Attributes::parse(text).map_err(|what| format!("EXT-X-START: {what}"))?;
    let offset = attributes.bare("TIME-OFFSET")?.ok_or("EXT-X-START without TIME-OFFSET")?;
    let (from_end, number) = offset.strip_prefix('-').map_or((false, offset), |number| (true, number));
    Ok(Start { offset: seconds(number)?, from_end })
}

fn range(text: &str) -> Result<(u64, Option<u64>), String> {
    match text.split_once('@') {
        Some((length, offset)) => Ok((integer(length)?, Some(integer(offset)?))),
        None => Ok((integer(text)?, None)),
    }
}

fn map(text: &str) -> Result<(String, Option<ByteRange>), String> {
    let attributes = Attributes::parse(text)?;
    let uri = attributes.quoted("URI")?.ok_or("no URI")?;
    let part = attributes.quoted("BYTERANGE")?.map(|text| range(&text)).transpose()?;
    Ok((uri, part.map(|(length, offset)| ByteRange { length, offset: offset.unwrap_or(0) })))
}

fn key(text: &str) -> Result<Option<Key>, String> {
    let attributes = Attributes::parse(text)?;
    match (attributes.bare("METHOD")?, attributes.quoted("URI")?) {
        (None, _) => Err("no METHOD".into()),
        (Some("NONE"), None) => Ok(None),
        (Some("NONE"), Some(_)) => Err("METHOD=NONE with a URI".into()),
        (Some(_), None) => Err("no URI".into()),
        (Some(method), Some(uri)) => Ok(Some(Key { method: method.into(), uri })),
    }
}
