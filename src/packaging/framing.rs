//! How frames are brought onto the canvas of a lesson. Recordings change their shape: a phone is turned, a call's picture
//! grows. The canvas has one shape; frames of another are fitted into it, between black bars.

use serde::{Deserialize, Serialize};

use crate::info::VideoInfo;

/// Shapes that differ by less than this part are stretched to one another, invisibly.
const ALIKE: f64 = 0.02;

/// The canvas of a lesson and what turns a stored frame upright on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Framing {
    /// The canvas, in square pixels; zero where frames simply fill it.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether left and right are swapped, before the frame is turned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// Whether all frames hold two fields though none is marked so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all_fields: bool,
    /// The shape of an upright pixel, `[width, height]`, of frames that do not tell their own.
    pub sample_aspect: [u32; 2],
    /// Whether frames tell the shape of their pixels.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_aspect: bool,
}

/// A part of a picture, in pixels; all numbers are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// How wide, at least 2.
    pub width: u32,
    /// How high, at least 2.
    pub height: u32,
}

impl Framing {
    /// For the recording's picture.
    pub fn new(video: &VideoInfo) -> Self {
        let (width, height) = video.display_size();
        let [wide, high] = video.sample_aspect;
        let sample_aspect = if video.rotation % 180 == 90 { [high, wide] } else { [wide, high] };
        Self {
            width,
            height,
            mirrored: video.mirrored,
            all_fields: video.fields_unmarked,
            sample_aspect,
            own_aspect: video.aspect_in_frames,
        }
    }

    /// The part of a rendition of `size` that an upright frame of `frame` pixels fills, of which each is shaped as `aspect`
    /// where the frame tells.
    pub fn area(&self, frame: (u32, u32), aspect: Option<[u32; 2]>, size: (u32, u32)) -> Area {
        let whole = Area { x: 0, y: 0, width: size.0, height: size.1 };
        if self.width == 0 || self.height == 0 {
            return whole;
        }
        let aspect = if self.own_aspect { aspect.unwrap_or([1, 1]) } else { self.sample_aspect };
        let own = ratio(frame.0, frame.1) * ratio(aspect[0], aspect[1]);
        let canvas = ratio(self.width, self.height);
        if (own / canvas - 1.0).abs() < ALIKE {
            return whole;
        }
        let even =
            |length: f64, most: u32| (((length / 2.0).round() * 2.0).clamp(2.0, 65_536.0) as u32).min(most.max(2) & !1);
        let (width, height) = if own > canvas {
            (size.0, even(f64::from(size.1) * canvas / own, size.1))
        } else {
            (even(f64::from(size.0) * own / canvas, size.0), size.1)
        };
        let middle = |length: u32, of: u32| of.saturating_sub(length) / 4 * 2;
        Area { x: middle(width, size.0), y: middle(height, size.1), width, height }
    }
}

fn ratio(one: u32, other: u32) -> f64 {
    if one == 0 || other == 0 { 1.0 } else { f64::from(one) / f64::from(other) }
}

/// A shape that a recording's picture has for a while: stored width and height, and the shape of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureShape {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// `[width, height]` of a pixel.
    pub sample_aspect: [u32; 2],
}

impl PictureShape {
    fn ratio(&self) -> f64 {
        ratio(self.width, self.height) * ratio(self.sample_aspect[0], self.sample_aspect[1])
    }

    fn area(&self) -> f64 {
        f64::from(self.width) * f64::from(self.height) * ratio(self.sample_aspect[0], self.sample_aspect[1])
    }
}

/// The shape to plan a lesson by, of those seen at instants spread over the recording: of the aspect ratio that is shown
/// longest, the largest. `None` if none was seen.
pub fn canvas(seen: &[PictureShape]) -> Option<PictureShape> {
    let alike = |one: &PictureShape, other: &PictureShape| (one.ratio() / other.ratio() - 1.0).abs() < ALIKE;
    let votes = |shape: &PictureShape| seen.iter().filter(|other| alike(shape, other)).count();
    let longest = seen.iter().max_by(|a, b| votes(a).cmp(&votes(b)).then(a.area().total_cmp(&b.area())))?;
    seen.iter().filter(|shape| alike(longest, shape)).max_by(|a, b| a.area().total_cmp(&b.area())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(width: u32, height: u32) -> PictureShape {
        PictureShape { width, height, sample_aspect: [1, 1] }
    }

    #[test]
    fn the_longest_shape_at_its_largest_is_the_canvas() {
        let (small, large, turned) = (shape(320, 180), shape(1280, 720), shape(720, 1280));
        assert_eq!(canvas(&[small, small, large]), Some(large));
        assert_eq!(canvas(&[turned, large, large]), Some(large));
        assert_eq!(canvas(&[turned, small, turned]), Some(turned));
        assert_eq!(canvas(&[]), None);
        // Broadcast: the pixels change their shape, the number of pixels does not.
        let wide = PictureShape { sample_aspect: [64, 45], ..shape(720, 576) };
        let narrow = PictureShape { sample_aspect: [16, 15], ..wide };
        assert_eq!(canvas(&[narrow, wide, wide]), Some(wide));
    }

    #[test]
    fn other_shapes_stand_between_bars() {
        let video = VideoInfo {
            width: 1280,
            height: 720,
            sample_aspect: [1, 1],
            aspect_in_frames: true,
            ..VideoInfo::default()
        };
        let framing = Framing::new(&video);
        let area = |frame, aspect, size| {
            let Area { x, y, width, height } = framing.area(frame, aspect, size);
            (x, y, width, height)
        };
        assert_eq!(area((1280, 720), None, (854, 480)), (0, 0, 854, 480));
        assert_eq!(area((320, 180), Some([1, 1]), (854, 480)), (0, 0, 854, 480));
        assert_eq!(area((720, 1280), None, (1280, 720)), (436, 0, 406, 720));
        assert_eq!(area((1920, 800), None, (1280, 720)), (0, 92, 1280, 534));
        assert_eq!(area((720, 576), Some([64, 45]), (1280, 720)), (0, 0, 1280, 720));
        assert_eq!(area((720, 576), Some([16, 15]), (1280, 720)), (160, 0, 960, 720));
        // A container that overrules the frames, turned.
        let turned = VideoInfo { sample_aspect: [2, 1], rotation: 90, aspect_in_frames: false, ..video };
        let framing = Framing::new(&turned);
        assert_eq!((framing.width, framing.height), (720, 2560));
        assert_eq!(framing.area((720, 1280), Some([1, 1]), (180, 640)).width, 180);
        // Tasks planned before there was a canvas.
        assert_eq!(Framing::default().area((1, 9), None, (64, 48)), Area { x: 0, y: 0, width: 64, height: 48 });
        assert_eq!(framing.area((1, 65_000), None, (180, 640)).width, 2);
    }
}
