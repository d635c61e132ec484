//! Multivariant playlists (RFC 8216, section 4.3.4; there still "master playlists").

use super::attributes::Attributes;
use super::line::{Line, MAX_ENTRIES};

/// What can be chosen from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Multivariant {
    /// In the order of the playlist.
    pub variants: Vec<Variant>,
    /// Alternative audio and text.
    pub renditions: Vec<Rendition>,
}

/// One `EXT-X-STREAM-INF` with its URI.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// As written.
    pub uri: String,
    /// Peak, bits per second, of all renditions together.
    pub bandwidth: u64,
    /// Average, bits per second.
    pub average_bandwidth: Option<u64>,
    /// RFC 6381.
    pub codecs: Option<String>,
    /// Width and height in pixels.
    pub resolution: Option<(u32, u32)>,
    /// Thousandths of a frame per second.
    pub frame_rate: Option<u64>,
    /// The group of audio renditions that goes with it.
    pub audio: Option<String>,
    /// The group of text renditions that goes with it.
    pub subtitles: Option<String>,
}

impl Variant {
    /// The shorter side in pixels, as the names of renditions count; `None` when no resolution is given.
    pub fn height(&self) -> Option<u32> {
        self.resolution.map(|(w, h)| w.min(h))
    }
}

/// `TYPE` of `EXT-X-MEDIA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MediaType {
    Audio,
    Video,
    Subtitles,
    ClosedCaptions,
}

/// One `EXT-X-MEDIA`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendition {
    /// What it holds.
    pub kind: MediaType,
    /// The group it belongs to.
    pub group: String,
    /// For people.
    pub name: String,
    /// RFC 5646.
    pub language: Option<String>,
    /// Played when the viewer has no wish.
    pub default: bool,
    /// As written; `None` when the media lies in the variant's own segments.
    pub uri: Option<String>,
}

/// Collects lines.
#[derive(Default)]
pub(super) struct Builder {
    playlist: Multivariant,
    pending: Option<Variant>,
    begun: bool,
}

impl Builder {
    /// Whether a tag of multivariant playlists was seen.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Takes a line if it is one of this kind of playlist.
    pub(super) fn take(&mut self, line: &Line<'_>) -> Result<bool, String> {
        match line {
            Line::Uri(uri) => match self.pending.take() {
                Some(variant) => {
                    self.playlist.variants.push(Variant { uri: (*uri).into(), ..variant });
                    Ok(true)
                }
                None => Ok(false),
            },
            Line::Tag { name, .. } if self.pending.is_some() && *name != "EXT-X-STREAM-INF" => {
                Err("EXT-X-STREAM-INF has no URI on the line behind it".into())
            }
            Line::Tag { name, value } => self.tag(name, *value),
        }
    }

    fn tag(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        match name {
            "EXT-X-STREAM-INF" => {
                if self.pending.is_some() {
                    return Err("EXT-X-STREAM-INF has no URI on the line behind it".into());
                }
                self.pending = Some(variant(&attributes(name, value)?)?);
            }
            "EXT-X-MEDIA" => self.playlist.renditions.push(rendition(&attributes(name, value)?)?),
            "EXT-X-I-FRAME-STREAM-INF" => {
                let attributes = attributes(name, value)?;
                required(&attributes.quoted("URI")?, "EXT-X-I-FRAME-STREAM-INF", "URI")?;
                required(&attributes.integer("BANDWIDTH")?, "EXT-X-I-FRAME-STREAM-INF", "BANDWIDTH")?;
            }
            "EXT-X-SESSION-DATA" | "EXT-X-SESSION-KEY" => {
                attributes(name, value)?;
            }
            _ => return Ok(false),
        }
        self.begun = true;
        if self.playlist.variants.len() + self.playlist.renditions.len() > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} variants and renditions"));
        }
        Ok(true)
    }

    /// The playlist, if it hangs together.
    pub(super) fn finish(self) -> Result<Multivariant, String> {
        let playlist = self.playlist;
        if self.pending.is_some() {
            return Err("EXT-X-STREAM-INF has no URI on the line behind it".into());
        }
        if playlist.variants.is_empty() {
            return Err("a multivariant playlist without a variant".into());
        }
        let has = |kind, group: &str| playlist.renditions.iter().any(|r| r.kind == kind && r.group == group);
        for variant in &playlist.variants {
            for (kind, group) in [(MediaType::Audio, &variant.audio), (MediaType::Subtitles, &variant.subtitles)] {
                if let Some(group) = group.as_deref().filter(|group| !has(kind, group)) {
                    return Err(format!("{} names the group {group:?}, which has no EXT-X-MEDIA", variant.uri));
                }
            }
        }
        for (index, rendition) in playlist.renditions.iter().enumerate() {
            let same = |other: &&Rendition| other.kind == rendition.kind && other.group == rendition.group;
            let before = || playlist.renditions.iter().take(index).filter(same);
            if before().any(|other| other.name == rendition.name) {
                return Err(format!("the group {:?} has the name {:?} twice", rendition.group, rendition.name));
            }
            if rendition.default && before().any(|other| other.default) {
                return Err(format!("the group {:?} has two defaults", rendition.group));
            }
        }
        Ok(playlist)
    }
}

fn attributes(name: &str, value: Option<&str>) -> Result<Attributes, String> {
    Attributes::parse(value.ok_or_else(|| format!("{name} without attributes"))?)
        .map_err(|what| format!("{name}: {what}"))
}

fn required<T: Clone>(value: &Option<T>, tag: &str, name: &str) -> Result<T, String> {
    value.clone().ok_or_else(|| format!("{tag} without {name}"))
}

fn variant(attributes: &Attributes) -> Result<Variant, String> {
    let bandwidth = required(&attributes.integer("BANDWIDTH")?, "EXT-X-STREAM-INF", "BANDWIDTH")?;
    let average_bandwidth = attributes.integer("AVERAGE-BANDWIDTH")?;
    if bandwidth == 0 || average_bandwidth.is_some_and(|average| average > bandwidth) {
        return Err("BANDWIDTH is the peak: not 0, and not below AVERAGE-BANDWIDTH".into());
    }
    Ok(Variant {
        uri: String::new(),
        bandwidth,
        average_bandwidth,
        codecs: attributes.quoted("CODECS")?,
        resolution: attributes.resolution("RESOLUTION")?,
        frame_rate: attributes.thousandths("FRAME-RATE")?,
        audio: attributes.quoted("AUDIO")?,
        subtitles: attributes.quoted("SUBTITLES")?,
    })
}

fn rendition(attributes: &Attributes) -> Result<Rendition, String> {
    const TAG: &str = "EXT-X-MEDIA";
    let kind = match attributes.bare("TYPE")? {
        Some("AUDIO") => MediaType::Audio,
        Some("VIDEO") => MediaType::Video,
        Some("SUBTITLES") => MediaType::Subtitles,
        Some("CLOSED-CAPTIONS") => MediaType::ClosedCaptions,
        other => return Err(format!("EXT-X-MEDIA of the TYPE {other:?}")),
    };
    let (default, autoselect) = (attributes.flag("DEFAULT")?, attributes.bare("AUTOSELECT")?);
    attributes.flag("AUTOSELECT")?;
    if default && autoselect == Some("NO") {
        return Err("DEFAULT=YES with AUTOSELECT=NO".into());
    }
    let uri = attributes.quoted("URI")?;
    match (kind, &uri) {
        (MediaType::Subtitles, None) => return Err("SUBTITLES without URI".into()),
        (MediaType::ClosedCaptions, Some(_)) => return Err("CLOSED-CAPTIONS with a URI".into()),
        _ => {}
    }
    Ok(Rendition {
        kind,
        group: required(&attributes.quoted("GROUP-ID")?, TAG, "GROUP-ID")?,
        name: required(&attributes.quoted("NAME")?, TAG, "NAME")?,
        language: attributes.quoted("LANGUAGE")?,
        default,
        uri,
    })
}
