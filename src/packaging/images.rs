//! The poster and the storyboard. A storyboard is sheets of thumbnails and a WebVTT index whose cues name a region of a
//! sheet by its `#xywh` fragment (Media Fragments URI 1.0, section 4.2.2); players show it over the time line.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::webvtt::timestamp;

/// The longer side of a poster, in pixels.
const POSTER_SIDE: u32 = 1280;
/// The longer side of a tile, in pixels.
const TILE_SIDE: u32 = 192;
/// Columns and rows of tiles on a sheet.
const SHEET_TILES: (u32, u32) = (8, 8);
/// The shortest time between tiles, in milliseconds.
const MIN_INTERVAL_MS: u64 = 2_000;
/// The most tiles of a lesson; in longer lessons they are further apart.
const MAX_TILES: u64 = 512;

/// The shape of a storyboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storyboard {
    /// A tile's width in pixels, even.
    pub width: u32,
    /// A tile's height in pixels, even.
    pub height: u32,
    /// Tiles side by side on a sheet.
    pub columns: u32,
    /// Tiles one below the other on a sheet.
    pub rows: u32,
    /// The time that a tile stands for, in milliseconds.
    pub interval_ms: u64,
    /// How many tiles there are.
    pub tiles: u32,
}

/// The path of the poster.
pub const POSTER: &str = "poster.jpg";
/// The path of the storyboard's index.
pub const STORYBOARD: &str = "storyboard.vtt";

/// The path of sheet `n`.
pub fn sheet_path(n: u32) -> String {
    format!("storyboard-{n}.jpg")
}

/// The size of the poster for a video shown at `width`×`height`.
pub(crate) fn poster_size(width: u32, height: u32) -> (u32, u32) {
    within(width, height, POSTER_SIDE)
}

impl Storyboard {
    pub(crate) fn new(width: u32, height: u32, duration_ms: u64) -> Self {
        let (width, height) = within(width, height, TILE_SIDE);
        let interval_ms = MIN_INTERVAL_MS.max(duration_ms.div_ceil(MAX_TILES).div_ceil(1000) * 1000);
        let tiles = u32::try_from(duration_ms.div_ceil(interval_ms).max(1)).unwrap_or(u32::MAX);
        Self { width, height, columns: SHEET_TILES.0, rows: SHEET_TILES.1, interval_ms, tiles }
    }

    /// Tiles on one sheet, at least 1.
    pub fn per_sheet(&self) -> u32 {
        self.columns.saturating_mul(self.rows).max(1)
    }

    /// How many sheets there are.
    pub fn sheets(&self) -> u32 {
        self.tiles.div_ceil(self.per_sheet())
    }

    /// The position of tile `n` on its sheet, in pixels from the left and from the top.
    pub fn position(&self, n: u32) -> (u32, u32) {
        let on_sheet = n % self.per_sheet();
        let columns = self.columns.max(1);
        (on_sheet % columns * self.width, on_sheet / columns * self.height)
    }

    /// The text of `storyboard.vtt`; it names the sheets relative to itself.
    pub fn index(&self, duration_ms: u64) -> String {
        let mut out = String::from("WEBVTT\n");
        for n in 0..self.tiles {
            let start = u64::from(n).saturating_mul(self.interval_ms);
            let end = start.saturating_add(self.interval_ms).min(duration_ms).max(start + 1);
            let (x, y) = self.position(n);
            let _ = write!(
                out,
                "\n{} --> {}\n{}#xywh={x},{y},{},{}\n",
                timestamp(start),
                timestamp(end),
                sheet_path(n / self.per_sheet()),
                self.width,
                self.height
            );
        }
        out
    }
}

/// The largest even size of the same aspect ratio whose longer side is at most `side` and not above the source.
fn within(width: u32, height: u32, side: u32) -> (u32, u32) {
    let longer = u64::from(width.max(height).max(1));
    let scaled = |length: u32| {
        let length = u64::from(length) * u64::from(side).min(longer) / longer;
        u32::try_from((length & !1).max(2)).unwrap_or(2)
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storyboard_maps_each_interval_to_its_tile() {
        let board = Storyboard::new(1280, 720, 131_000);
        assert_eq!((board.width, board.height, board.tiles, board.sheets()), (192, 108, 66, 2));
        let index = board.index(131_000);
        assert!(index.starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nstoryboard-0.jpg#xywh=0,0,192,108\n"));
        assert!(index.contains("\n00:00:18.000 --> 00:00:20.000\nstoryboard-0.jpg#xywh=192,108,192,108\n"), "{index}");
        assert!(index.ends_with("\n00:02:10.000 --> 00:02:11.000\nstoryboard-1.jpg#xywh=192,0,192,108\n"), "{index}");
        assert_eq!(Storyboard::new(1080, 1920, 7_200_000).interval_ms, 15_000);
        assert_eq!(Storyboard::new(64, 48, 1).tiles, 1);
        assert_eq!(within(64, 48, TILE_SIDE), (64, 48));
        assert_eq!(within(1, 9000, TILE_SIDE), (2, 192));
    }
}
