//! One video or audio track of a session: its playlist, its position, and what to fetch next (RFC 8216, section 6.3).
//! No I/O; instants are passed in.

use std::sync::Arc;
use std::time::Duration;

use lyceum_core::time::Instant;
use url::Url;

use crate::hls::{self, ByteRange, Media, PlaylistType};

/// Segment boundaries of two renditions may differ by up to this much through rounding.
const TOLERANCE: Duration = Duration::from_millis(100);
/// The shortest time between two reloads of a playlist.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_millis(500);

/// A playlist as last read.
#[derive(Clone, Debug)]
struct Loaded {
    base: Url,
    media: Arc<Media>,
    reload: Instant,
}

/// What a track does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Read the playlist, for the first time or again.
    Playlist(Url),
    /// Fetch an init segment.
    Init(Url, Option<ByteRange>),
    /// Fetch a segment.
    Segment(Part),
    /// Nothing before this instant.
    Wait(Instant),
    /// Nothing before the playhead moves on or a request is answered.
    Idle,
    /// There is nothing left.
    Complete,
}

/// A segment to fetch.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its address.
    pub url: Url,
    /// A part of what lies there.
    pub range: Option<ByteRange>,
    /// Media time at which it begins.
    pub start: Duration,
    /// Media time at which it ends.
    pub end: Duration,
    /// It is the last one there will be.
    pub last: bool,
    /// It is encrypted as a whole, so that its boxes can't be seen.
    pub opaque: bool,
    /// The one behind it, as its playlist has it.
    pub next: Option<String>,
}

/// The state of a track.
#[derive(Debug)]
pub struct Track {
    /// Audio only.
    pub audio: bool,
    playlist: Url,
    loaded: Option<Loaded>,
    init: Option<(Url, Option<ByteRange>)>,
    reached: Duration,
    not_before: Option<Instant>,
    /// Failed tries of what is to be fetched next.
    pub tries: u32,
    /// A request of this track is under way.
    pub busy: bool,
}

impl Track {
    /// A track that follows the media playlist at `playlist`, from its beginning.
    pub fn new(audio: bool, playlist: Url) -> Self {
        Self {
            audio,
            playlist,
            loaded: None,
            init: None,
            reached: Duration::ZERO,
            not_before: None,
            tries: 0,
            busy: false,
        }
    }

    /// The playlist as last read.
    pub fn media(&self) -> Option<&Media> {
        self.loaded.as_ref().map(|loaded| &*loaded.media)
    }

    /// Whether segments may still be added to it.
    pub fn growing(&self) -> bool {
        self.media().is_none_or(|media| !media.ended)
    }

    /// Follows another rendition from here on. Nothing happens when it is the same.
    pub fn switch(&mut self, playlist: Url) {
        if self.playlist != playlist {
            self.playlist = playlist;
            self.loaded = None;
        }
    }

    /// Moves to media time `to`; tells where the segment that holds it begins.
    pub fn seek(&mut self, to: Duration) -> Duration {
        self.reached = to;
        let segments = self.media().map(|media| media.segments.as_slice()).unwrap_or_default();
        segments.iter().find(|segment| segment.end() > to.saturating_add(TOLERANCE)).map_or(to, |segment| segment.start)
    }

    /// The playlist was read at `now`, from `base`. Says why it can't be followed, in two words and a sentence.
    pub fn playlist_read(&mut self, base: Url, media: Media, now: Instant) -> Result<(), (&'static str, String)> {
        if !media.ended && media.kind != Some(PlaylistType::Event) {
            return Err(("playlist_unsupported", "a live playlist whose segments go away".into()));
        }
        if media.iframes_only {
            return Err(("playlist_unsupported", "a playlist of key frames alone".into()));
        }
        let mut grew = true;
        if let Some(before) = self.loaded.as_ref().filter(|before| before.base == base) {
            before.media.may_become(&media).map_err(|what| ("playlist_changed", what))?;
            grew = media.segments.len() > before.media.segments.len();
        }
        // Section 6.3.4: a target duration after a change, half of one when nothing was new.
        let pause = if grew { media.target_duration } else { media.target_duration / 2 };
        self.loaded = Some(Loaded { base, media: Arc::new(media), reload: now + pause.max(MIN_RELOAD_INTERVAL) });
        Ok(())
    }

    /// The init segment was fetched.
    pub fn init_read(&mut self, url: Url, range: Option<ByteRange>) {
        self.init = Some((url, range));
    }

    /// A segment was fetched.
    pub fn segment_read(&mut self, part: &Part) {
        self.reached = part.end;
    }

    /// Nothing is tried before `at`.
    pub fn pause_until(&mut self, at: Instant) {
        self.not_before = Some(at);
    }

    /// What to do now; `hungry` says whether the buffer wants more.
    pub fn next(&self, now: Instant, hungry: bool) -> Result<Next, String> {
        if self.busy {
            return Ok(Next::Idle);
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Ok(Next::Wait(at));
        }
        let Some(loaded) = &self.loaded else {
            return Ok(Next::Playlist(self.playlist.clone()));
        };
        let media = &loaded.media;
        let behind = self.reached.saturating_add(TOLERANCE);
        let index = media.segments.partition_point(|segment| segment.end() <= behind);
        let Some(segment) = media.segments.get(index) else {
            return Ok(match media.ended {
                true => Next::Complete,
                false if loaded.reload <= now => Next::Playlist(self.playlist.clone()),
                false => Next::Wait(loaded.reload),
            });
        };
        if !hungry {
            return Ok(Next::Idle);
        }
        if let Some((uri, range)) = segment.map.as_deref() {
            let url = hls::resolve(&loaded.base, uri)?;
            if self.init.as_ref().is_none_or(|(have, part)| *have != url || part != range) {
                return Ok(Next::Init(url, *range));
            }
        }
        let next = media.segments.get(index + 1).map(|next| next.uri.rsplit('/').next().unwrap_or_default().to_owned());
        Ok(Next::Segment(Part {
            url: hls::resolve(&loaded.base, &segment.uri)?,
            range: segment.byte_range,
            start: segment.start,
            end: segment.end(),
            last: media.ended && next.is_none(),
            opaque: segment.key.as_ref().is_some_and(|key| key.method == "AES-128"),
            next,
        }))
    }
}

#[cfg(test)]
mod tests {
    use lyceum_core::time::monotonic;

    use super::*;
    use crate::hls::Playlist;

    fn url(path: &str) -> Url {
        Url::parse("http://edge/t/tok/v/l/1/").unwrap().join(path).unwrap()
    }

    fn media(segments: usize, ended: bool) -> Media {
        let mut text = String::from(
            "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP:URI=\"init.mp4\"\n",
        );
        for n in 0..segments {
            text += &format!("#EXTINF:4.0,\n{n:05}-{}.m4s\n", n * 4000);
        }
        text += if ended { "#EXT-X-ENDLIST\n" } else { "" };
        match hls::parse(text.as_bytes()) {
            Ok(Playlist::Media(media)) => media,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_track_goes_from_playlist_to_init_to_segments_to_the_end() {
        let now = monotonic();
        let mut track = Track::new(false, url("v720/index.m3u8"));
        assert_eq!(track.next(now, true), Ok(Next::Playlist(url("v720/index.m3u8"))));
        track.playlist_read(url("v720/index.m3u8"), media(2, true), now).unwrap();
        assert_eq!(track.next(now, true), Ok(Next::Init(url("v720/init.mp4"), None)));
        track.init_read(url("v720/init.mp4"), None);
        for (name, last) in [("00000-0.m4s", false), ("00001-4000.m4s", true)] {
            let Ok(Next::Segment(part)) = track.next(now, true) else { panic!("{:?}", track.next(now, true)) };
            assert_eq!((part.url.clone(), part.last), (url("v720/").join(name).unwrap(), last));
            assert_eq!(track.next(now, false), Ok(Next::Idle), "a full buffer asks for nothing");
            track.segment_read(&part);
        }
        assert_eq!(track.next(now, true), Ok(Next::Complete));
    }

    #[test]
    fn a_growing_playlist_is_read_again_in_its_own_time() {
        let now = monotonic();
        let mut track = Track::new(false, url("v720/event.m3u8"));
        track.playlist_read(url("v720/event.m3u8"), media(1, false), now).unwrap();
        track.seek(Duration::from_secs(4));
        assert_eq!(track.next(now, true), Ok(Next::Wait(now + Duration::from_secs(4))));
        let later = now + Duration::from_secs(4);
        assert_eq!(track.next(later, true), Ok(Next::Playlist(url("v720/event.m3u8"))));
        track.playlist_read(url("v720/event.m3u8"), media(1, false), later).unwrap();
        assert_eq!(
            track.next(later, true),
            Ok(Next::Wait(later + Duration::from_secs(2))),
            "nothing new: half the time"
        );
        assert!(
            track
                .playlist_read(url("v720/event.m3u8"), media(0, false), later)
                .is_err_and(|(code, _)| code == "playlist_changed")
        );
    }

    #[test]
    fn another_rendition_goes_on_where_this_one_stopped() {
        let now = monotonic();
        let mut track = Track::new(false, url("v360/index.m3u8"));
        track.playlist_read(url("v360/index.m3u8"), media(3, true), now).unwrap();
        track.init_read(url("v360/init.mp4"), None);
        let Ok(Next::Segment(part)) = track.next(now, true) else { panic!() };
        track.segment_read(&part);
        track.switch(url("v720/index.m3u8"));
        assert_eq!(track.next(now, true), Ok(Next::Playlist(url("v720/index.m3u8"))));
        track.playlist_read(url("v720/index.m3u8"), media(3, true), now).unwrap();
        assert_eq!(track.next(now, true), Ok(Next::Init(url("v720/init.mp4"), None)));
        track.init_read(url("v720/init.mp4"), None);
        assert!(matches!(track.next(now, true), Ok(Next::Segment(part)) if part.url == url("v720/00001-4000.m4s")));
    }

    #[test]
    fn a_seek_lands_on_the_segment_that_holds_the_moment() {
        let now = monotonic();
        let mut track = Track::new(false, url("v360/index.m3u8"));
        track.playlist_read(url("v360/index.m3u8"), media(5, true), now).unwrap();
        track.init_read(url("v360/init.mp4"), None);
        assert_eq!(track.seek(Duration::from_millis(9500)), Duration::from_secs(8));
        assert!(matches!(track.next(now, true), Ok(Next::Segment(part)) if part.start == Duration::from_secs(8)));
    }

    #[test]
    fn live_playlists_are_refused() {
        let live = Media { kind: None, ..media(1, false) };
        let mut track = Track::new(false, url("x.m3u8"));
        assert!(
            track
                .playlist_read(url("x.m3u8"), live, monotonic())
                .is_err_and(|(code, _)| code == "playlist_unsupported")
        );
    }
}
