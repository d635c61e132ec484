//! Detection of still frames, which are neither scaled nor encoded again.
//!
//! Slides and screen recordings stand still for seconds, but lossy encoding makes successive frames differ slightly.
//! Frames are therefore compared in blocks, and always with the frame that is **shown**, not with the previous one, so
//! that slow changes add up until they count. A single block that differs suffices: a pointer, a typed letter or a
//! blinking cursor is never missed.

use std::sync::Arc;

use ffmpeg_next as ff;
use lyceum_packaging::FrameRate;

use super::ffi::{self, PlaneShape, Samples};

/// The side of a block, in samples.
const BLOCK: usize = 8;
/// A block differs if its mean has moved by more than this many 64ths of a level (of 255). A step of one and a half
/// levels is invisible.
const MAX_MEAN_SHIFT_64THS: i32 = 96;
/// A block differs if its squared differences add up to more than this: sixteen on average, or one sample by 32 levels.
/// Coding artefacts of a still picture and camera noise stay below.
const MAX_SQUARED_DIFFERENCE: u32 = 1024;

/// Holds the shown frame. A frame is held for at most a second, so that joining and seeking stay quick and changes
/// below the thresholds appear soon.
pub(super) struct StillFrameDetector {
    frame: Option<(Arc<ff::frame::Video>, u64)>,
    max_hold_frames: u64,
    /// The band in which the last difference was found.
    hint: BlockBand,
    blocks: Vec<Block>,
}

impl StillFrameDetector {
    /// A detector for a grid of `rate`, with no frame shown yet.
    pub(super) fn new(rate: FrameRate) -> Self {
        Self { frame: None, max_hold_frames: (rate.fps().ceil() as u64).max(1), hint: (0, 0), blocks: Vec::new() }
    }

    /// Records that `frame` is shown from grid index `place` on.
    pub(super) fn show(&mut self, frame: &Arc<ff::frame::Video>, place: u64) {
        self.frame = Some((frame.clone(), place));
    }

    /// Whether `frame` must be shown at grid index `place`.
    pub(super) fn must_show(&mut self, frame: &Arc<ff::frame::Video>, place: u64) -> bool {
        let Some((shown, since)) = &self.frame else { return true };
        if place.saturating_sub(*since) >= self.max_hold_frames {
            return true;
        }
        if Arc::ptr_eq(shown, frame) {
            return false;
        }
        let found = difference(shown, frame, self.hint, &mut self.blocks);
        self.hint = found.unwrap_or(self.hint);
        found.is_some()
    }
}

/// Differences within one block.
#[derive(Clone, Copy, Default)]
struct Block {
    sum: i32,
    squares: u32,
}

impl Block {
    fn differs(self) -> bool {
        self.sum.abs() > MAX_MEAN_SHIFT_64THS || self.squares > MAX_SQUARED_DIFFERENCE
    }
}

/// A band of blocks: its plane, and its number from the top.
type BlockBand = (usize, usize);

/// The first band in which two frames differ; `hint` is compared first, as motion usually continues there. Frames of
/// different size or format differ in the first band.
fn difference(
    one: &ff::frame::Video,
    other: &ff::frame::Video,
    hint: BlockBand,
    blocks: &mut Vec<Block>,
) -> Option<BlockBand> {
    let shape = |f: &ff::frame::Video| (f.format(), f.width(), f.height(), f.planes());
    let planes = ffi::plane_shapes(one).filter(|_| shape(one) == shape(other));
    let Some(planes) = planes else { return Some((0, 0)) };
    let mut news = |(n, band): BlockBand| {
        let plane = planes.get(n)?;
        let rows = band * BLOCK..((band + 1) * BLOCK).min(plane.rows);
        let pair = |row: usize| Some((visible(one, n, plane, row)?, visible(other, n, plane, row)?));
        let same = same_band(rows.map_while(pair), *plane, blocks);
        (!same).then_some((n, band))
    };
    let bands = |n: usize| planes.get(n).map_or(0, |plane| plane.rows.div_ceil(BLOCK));
    let all = (0..planes.len()).flat_map(|n| (0..bands(n)).map(move |band| (n, band)));
    news(hint).or_else(|| all.into_iter().find_map(news))
}

/// The visible bytes of a row.
fn visible<'f>(frame: &'f ff::frame::Video, n: usize, plane: &PlaneShape, row: usize) -> Option<&'f [u8]> {
    let from = row * frame.stride(n);
    frame.data(n).get(from..from + plane.bytes)
}

/// Whether no block of a band differs.
fn same_band<'f>(rows: impl Iterator<Item = (&'f [u8], &'f [u8])>, plane: PlaneShape, blocks: &mut Vec<Block>) -> bool {
    blocks.clear();
    blocks.resize(plane.bytes.div_ceil(BLOCK), Block::default());
    for (a, b) in rows.filter(|(a, b)| a != b) {
        match plane.samples {
            Samples::Bytes => add_bytes(a, b, blocks),
            Samples::Words { shift } => add_words(a, b, shift, blocks),
            // The size of a difference is unknown in other formats.
            Samples::Other => return false,
        }
    }
    !blocks.iter().any(|block| block.differs())
}

fn add_bytes(a: &[u8], b: &[u8], blocks: &mut [Block]) {
    for ((a, b), block) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).zip(blocks) {
        if a == b {
            continue;
        }
        for (a, b) in a.iter().zip(b) {
            add(i32::from(*a) - i32::from(*b), block);
        }
    }
}

/// The same for samples of two bytes, little endian, brought to eight bits by `shift`.
fn add_words(a: &[u8], b: &[u8], shift: u32, blocks: &mut [Block]) {
    let level = |bytes: &[u8]| match bytes {
        [low, high] => i32::from(u16::from_le_bytes([*low, *high]) >> shift),
        _ => 0,
    };
    for ((a, b), block) in a.chunks(BLOCK * 2).zip(b.chunks(BLOCK * 2)).zip(blocks) {
        if a == b {
            continue;
        }
        for (a, b) in a.chunks(2).zip(b.chunks(2)) {
            add(level(a) - level(b), block);
        }
    }
}

fn add(difference: i32, block: &mut Block) {
    block.sum += difference;
    block.squares += (difference * difference).unsigned_abs();
}

#[cfg(test)]
mod tests {
    use super::*;
    use ff::format::Pixel;

    /// A frame whose luma is `level(x, y)`.
    fn frame(format: Pixel, level: impl Fn(usize, usize) -> u16) -> ff::frame::Video {
        let mut frame = ff::frame::Video::new(format, 320, 180);
        let wide = format == Pixel::YUV420P10LE;
        for plane in 0..frame.planes() {
            let stride = frame.stride(plane);
            for (y, row) in frame.data_mut(plane).chunks_mut(stride).enumerate() {
                if wide {
                    row.chunks_exact_mut(2).enumerate().for_each(|(x, s)| {
                        s.copy_from_slice(&(if plane == 0 { level(x, y) } else { 512 }).to_le_bytes())
                    });
                } else {
                    row.iter_mut()
                        .enumerate()
                        .for_each(|(x, s)| *s = if plane == 0 { level(x, y).min(255) as u8 } else { 128 });
                }
            }
        }
        frame
    }

    fn same(one: &ff::frame::Video, other: &ff::frame::Video) -> bool {
        [(0, 0), (0, 20), (1, 3), (9, 9)].iter().all(|hint| difference(one, other, *hint, &mut Vec::new()).is_none())
    }

    /// What an encoder leaves: up to two levels either way, without a pattern.
    fn noise(x: usize, y: usize, seed: usize) -> u16 {
        let mixed = (x * 7919 + y * 104_729 + seed * 1_299_709).wrapping_mul(2_654_435_761) >> 16;
        u16::try_from(mixed % 5).unwrap_or(0)
    }

    #[test]
    fn noise_is_no_news_and_a_small_change_is() {
        let slide = |x: usize, y: usize| if (x / 20 + y / 20).is_multiple_of(2) { 40 } else { 200 };
        let shown = frame(Pixel::YUV420P, |x, y| slide(x, y) + noise(x, y, 1));
        let again = frame(Pixel::YUV420P, |x, y| slide(x, y) + noise(x, y, 2));
        assert!(same(&shown, &shown) && same(&shown, &again));
        let with = |spot: &dyn Fn(usize, usize) -> Option<u16>| {
            frame(Pixel::YUV420P, |x, y| spot(x, y).unwrap_or_else(|| slide(x, y) + noise(x, y, 2)))
        };
        // A full stop of two by two, a cursor of one column, a pointer in the last corner, a faint area.
        assert!(!same(&shown, &with(&|x, y| ((100..102).contains(&x) && (50..52).contains(&y)).then_some(90))));
        assert!(!same(&shown, &with(&|x, y| (x == 201 && (100..112).contains(&y)).then_some(0))));
        assert!(!same(&shown, &with(&|x, y| (x >= 317 && y >= 176).then_some(0))));
        assert!(!same(&shown, &with(&|x, y| ((160..176).contains(&x) && y < 20).then(|| slide(x, y) + 5))));
    }

    #[test]
    fn what_changes_slowly_adds_up_against_what_is_shown() {
        let rate = FrameRate::new(25, 1);
        let mut detector = StillFrameDetector::new(rate);
        let (mut changes, mut last) = (Vec::new(), 0);
        for place in 0..100 {
            // A fifth of a level each frame, by more and more samples that are one level brighter.
            let bright = |x: usize, y: usize| 100 + (place / 5) + u16::from((x + y * 3) % 5 < usize::from(place % 5));
            let frame = Arc::new(frame(Pixel::YUV420P, bright));
            if detector.must_show(&frame, u64::from(place)) {
                detector.show(&frame, u64::from(place));
                changes.push(place - last);
                last = place;
            }
        }
        assert!(changes.len() > 8 && changes.iter().all(|held| *held <= 10), "{changes:?}");
    }

    #[test]
    fn a_picture_that_stands_still_is_shown_again_after_a_second() {
        let mut detector = StillFrameDetector::new(FrameRate::new(30_000, 1001));
        let still = Arc::new(frame(Pixel::YUV420P, |_, _| 90));
        let mut at = Vec::new();
        for place in 0..100 {
            if detector.must_show(&still, place) {
                detector.show(&still, place);
                at.push(place);
            }
        }
        assert_eq!(at, [0, 30, 60, 90]);
    }

    #[test]
    fn ten_bits_are_compared_in_levels_of_eight() {
        let shown = frame(Pixel::YUV420P10LE, |_, _| 400);
        assert!(same(&shown, &frame(Pixel::YUV420P10LE, |x, y| 400 + noise(x, y, 3))));
        assert!(!same(&shown, &frame(Pixel::YUV420P10LE, |x, y| if x < 8 && y < 8 { 420 } else { 400 })));
    }

    #[test]
    fn another_size_is_news() {
        let small = ff::frame::Video::new(Pixel::YUV420P, 160, 90);
        assert!(!same(&frame(Pixel::YUV420P, |_, _| 0), &small));
    }
}
