//! Start of a session: the multivariant playlist, the start position, and the backoff of retries.

use std::time::Duration;

use url::Url;

use super::cmcd::{self, Ids, Now, Object};
use super::fetch::{Failure, Fetcher, ResourceKind};
use super::ladder::Ladder;
use super::shared::Shared;
use crate::hls::{self, Playlist};

/// Fetches the multivariant playlist, with retries as in a player.
pub async fn open(shared: &Shared, fetcher: &Fetcher, url: &Url, ids: &Ids) -> Result<(Url, Ladder), Failure> {
    let cmcd = match shared.behaviour.cmcd {
        true => cmcd::request(ids, Object::Manifest, &Now::default(), true, false),
        false => String::new(),
    };
    let mut tries = 0;
    let fetched = loop {
        match fetcher.playlist(ResourceKind::Multivariant, url.clone(), cmcd.clone()).await {
            Ok(fetched) => break fetched,
            Err(failure) => {
                shared.tally.failed(&failure);
                tries += 1;
                if !failure.retry || tries > shared.behaviour.retries {
                    return Err(failure);
                }
                tokio::time::sleep(backoff(tries)).await;
            }
        }
    };
    shared.tally.fetched(ResourceKind::Multivariant, &fetched);
    let wrong = |what: String| {
        let failure = Failure::new(ResourceKind::Multivariant, "playlist_invalid", what, false);
        shared.tally.failed(&failure);
        failure
    };
    let playlist = hls::parse(&fetched.body).map_err(|error| wrong(error.to_string()))?;
    let ladder = match playlist {
        Playlist::Multivariant(playlist) => Ladder::new(&playlist, &fetched.url, &shared.behaviour).map_err(wrong)?,
        Playlist::Media(_) => Ladder::single(url.clone()),
    };
    Ok((fetched.url, ladder))
}

/// Exponential backoff: half a second, doubled with each try, at most eight seconds.
pub fn backoff(tries: u32) -> Duration {
    Duration::from_millis(500u64 << tries.saturating_sub(1).min(4))
}

/// The lesson's id out of `…/v/{lesson}/…`.
pub fn lesson_of(url: &Url) -> String {
    let mut segments = url.path_segments().into_iter().flatten().skip_while(|segment| *segment != "v").skip(1);
    segments.next().unwrap_or("unknown").chars().take(64).collect()
}

/// The start position (RFC 8216, section 4.3.5.2): `EXT-X-START`; else the beginning of a complete playlist, or three
/// target durations before the end of a growing one.
pub fn first_position(media: &hls::Media) -> Duration {
    let length = media.duration();
    match media.start {
        Some(start) if start.from_end => length.saturating_sub(start.offset),
        Some(start) => start.offset.min(length),
        None if media.ended => Duration::ZERO,
        None => length.saturating_sub(media.target_duration * 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(text: &str) -> hls::Media {
        let whole = format!("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n{text}");
        match hls::parse(whole.as_bytes()) {
            Ok(Playlist::Media(media)) => media,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_player_begins_where_the_playlist_says() {
        let segments = "#EXTINF:4,\na\n".repeat(10);
        let begin = |head: &str, tail: &str| first_position(&media(&format!("{head}{segments}{tail}"))).as_secs();
        assert_eq!(begin("#EXT-X-PLAYLIST-TYPE:VOD\n", "#EXT-X-ENDLIST\n"), 0);
        assert_eq!(
            begin("#EXT-X-PLAYLIST-TYPE:EVENT\n", ""),
            28,
            "three target durations before the end of what grows"
        );
        assert_eq!(begin("#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0\n", ""), 0);
        assert_eq!(begin("#EXT-X-START:TIME-OFFSET=-10\n", "#EXT-X-ENDLIST\n"), 30);
        assert_eq!(begin("#EXT-X-START:TIME-OFFSET=999\n", "#EXT-X-ENDLIST\n"), 40, "no further than there is");
    }

    #[test]
    fn tries_come_later_and_later_up_to_a_bound() {
        assert_eq!([1, 2, 3, 9].map(|n| backoff(n).as_millis()), [500, 1000, 2000, 8000]);
    }

    #[test]
    fn the_content_id_is_the_lesson() {
        let of = |text| lesson_of(&Url::parse(text).unwrap());
        assert_eq!(of("http://e/t/tok/v/lesson1/master.m3u8"), "lesson1");
        assert_eq!(of("http://e/x.m3u8"), "unknown");
    }
}
