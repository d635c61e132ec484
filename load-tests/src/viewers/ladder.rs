//! The renditions that one viewer chooses from, as URLs in ascending order. No I/O.

use url::Url;

use super::behaviour::Behaviour;
use crate::hls::{self, MediaType, Multivariant, Rendition, Variant};

/// Codecs that every player supports; renditions in them are preferred.
const COMMON: &[&str] = &["avc1.", "avc3."];

/// One video rendition with its audio.
#[derive(Clone, Debug, PartialEq)]
pub struct Rung {
    /// The media playlist of the pictures (or of both).
    pub video: Url,
    /// The media playlist of the sound, where it has one of its own.
    pub audio: Option<Url>,
    /// Declared peak, bits per second; 0: not known.
    pub bandwidth: u64,
    /// The shorter side in pixels; 0: not known.
    pub height: u32,
}

/// At least one rung, in ascending order.
#[derive(Clone, Debug)]
pub struct Ladder {
    lowest: Rung,
    rungs: Vec<Rung>,
    bandwidths: Vec<u64>,
}

impl Ladder {
    /// What `playlist`, read from `base`, offers a viewer of this behaviour.
    pub fn new(playlist: &Multivariant, base: &Url, behaviour: &Behaviour) -> Result<Self, String> {
        let low_enough =
            |v: &&Variant| behaviour.max_height.is_none_or(|max| v.height().is_none_or(|height| height <= max));
        let mut variants: Vec<&Variant> = playlist.variants.iter().filter(low_enough).collect();
        if variants.is_empty() {
            let lowest = playlist.variants.iter().filter_map(Variant::height).min();
            return Err(format!(
                "no rendition of at most {:?} pixels; the lowest has {lowest:?}",
                behaviour.max_height
            ));
        }
        let common = |v: &Variant| v.codecs.as_ref().is_some_and(|codecs| COMMON.iter().any(|c| codecs.contains(c)));
        if variants.iter().any(|v| common(v)) {
            variants.retain(|v| common(v));
        }
        let mut base = base.clone();
        base.set_query(None);
        let mut rungs = Vec::with_capacity(variants.len());
        for variant in variants {
            let sound =
                variant.audio.as_deref().and_then(|group| sound(playlist, group, behaviour.language.as_deref()));
            let audio = sound.and_then(|sound| sound.uri.as_deref()).map(|uri| hls::resolve(&base, uri)).transpose()?;
            let video = hls::resolve(&base, &variant.uri)?;
            rungs.push(Rung { video, audio, bandwidth: variant.bandwidth, height: variant.height().unwrap_or(0) });
        }
        rungs.sort_by_key(|rung| rung.bandwidth);
        rungs.dedup_by(|a, b| a.video == b.video);
        let lowest = rungs.first().cloned().ok_or("no renditions")?;
        let with_sound = |rung: &Rung| rung.audio.is_some();
        if rungs.iter().any(|rung| with_sound(rung) != with_sound(&lowest)) {
            return Err("some renditions have their sound apart and some do not".into());
        }
        Ok(Self { bandwidths: rungs.iter().map(|rung| rung.bandwidth).collect(), lowest, rungs })
    }

    /// A single media playlist without alternatives.
    pub fn single(video: Url) -> Self {
        let rung = Rung { video, audio: None, bandwidth: 0, height: 0 };
        Self { lowest: rung.clone(), rungs: vec![rung], bandwidths: vec![0] }
    }

    /// Declared peaks, rising.
    pub fn bandwidths(&self) -> &[u64] {
        &self.bandwidths
    }

    /// The rung at `index`; the lowest when there is none.
    pub fn rung(&self, index: usize) -> &Rung {
        self.rungs.get(index).unwrap_or(&self.lowest)
    }
}

/// The sound of a group: in the language asked for, else the default, else the first.
fn sound<'a>(playlist: &'a Multivariant, group: &str, language: Option<&str>) -> Option<&'a Rendition> {
    let all = || playlist.renditions.iter().filter(|r| r.kind == MediaType::Audio && r.group == group);
    let spoken = language.and_then(|language| all().find(|r| r.language.as_deref() == Some(language)));
    spoken.or_else(|| all().find(|r| r.default)).or_else(|| all().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hls::Playlist;

    const PLAYLIST: &str = r#"#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English",LANGUAGE="en",DEFAULT=YES,URI="1/a-en/index.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="Deutsch",LANGUAGE="de",URI="1/a-de/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=2900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,AUDIO="a"
1/v720/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1900000,CODECS="av01.0.05M.08,mp4a.40.2",RESOLUTION=1280x720,AUDIO="a"
1/v720-av1/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS="avc1.64001e,mp4a.40.2",RESOLUTION=640x360,AUDIO="a"
1/v360/index.m3u8
"#;

    fn ladder(behaviour: &Behaviour) -> Result<Ladder, String> {
        let Ok(Playlist::Multivariant(playlist)) = hls::parse(PLAYLIST.as_bytes()) else { panic!() };
        Ladder::new(&playlist, &Url::parse("http://e/t/x/v/l/master.m3u8?CMCD=y").unwrap(), behaviour)
    }

    #[test]
    fn renditions_rise_in_codecs_that_every_player_takes() {
        let ladder = ladder(&Behaviour::default()).unwrap();
        assert_eq!(ladder.bandwidths(), [900_000, 2_900_000]);
        assert_eq!(ladder.rung(1).video.as_str(), "http://e/t/x/v/l/1/v720/index.m3u8");
        assert_eq!(ladder.rung(0).audio.as_ref().map(Url::as_str), Some("http://e/t/x/v/l/1/a-en/index.m3u8"));
    }

    #[test]
    fn height_and_language_are_the_viewers_choice() {
        let behaviour = Behaviour { max_height: Some(480), language: Some("de".into()), ..Behaviour::default() };
        let small = ladder(&behaviour).unwrap();
        assert_eq!(small.bandwidths(), [900_000]);
        assert!(small.rung(0).audio.as_ref().is_some_and(|url| url.path().contains("a-de")));
        assert!(ladder(&Behaviour { max_height: Some(100), ..Behaviour::default() }).is_err());
    }
}
