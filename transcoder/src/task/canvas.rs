//! Frames on a canvas: black, and pasted onto one another.

use ff::format::Pixel;
use ffmpeg_next as ff;
use lyceum_packaging::framing::{Area, Framing};

/// The part of a picture of `size` that an upright `frame` fills.
pub(super) fn area(framing: &Framing, frame: &ff::frame::Video, size: (u32, u32)) -> Area {
    let told = frame.aspect_ratio();
    let side = |n: i32| u32::try_from(n).ok().filter(|n| *n > 0);
    let aspect = side(told.numerator()).zip(side(told.denominator())).map(|(width, height)| [width, height]);
    framing.area((frame.width(), frame.height()), aspect, size)
}

/// A black frame of 4:2:0 with eight bits.
pub(super) fn black(format: Pixel, (width, height): (u32, u32)) -> ff::frame::Video {
    let mut canvas = ff::frame::Video::new(format, width, height);
    let luma = if format == Pixel::YUVJ420P { 0 } else { 16 };
    for (plane, value) in [luma, 128, 128].into_iter().enumerate() {
        canvas.data_mut(plane).fill(value);
    }
    canvas
}

/// Copies `tile` onto `canvas`. Positions and sizes are even, so that chroma planes fit.
pub(super) fn paste(canvas: &mut ff::frame::Video, tile: &ff::frame::Video, (x, y): (u32, u32)) {
    for plane in 0..3 {
        let half = u32::from(plane > 0);
        let (x, y) = ((x >> half) as usize, (y >> half) as usize);
        let (width, height) = (tile.plane_width(plane) as usize, tile.plane_height(plane) as usize);
        let (from_stride, to_stride) = (tile.stride(plane).max(1), canvas.stride(plane).max(1));
        let rows = tile.data(plane).chunks(from_stride).take(height);
        for (row, to) in rows.zip(canvas.data_mut(plane).chunks_mut(to_stride).skip(y)) {
            if let (Some(row), Some(to)) = (row.get(..width), to.get_mut(x..x + width)) {
                to.copy_from_slice(row);
            }
        }
    }
}

/// Puts a scaled frame into its place on a canvas of `size`; one that fills it stays as it is.
pub(super) fn framed(scaled: ff::frame::Video, area: Area, size: (u32, u32)) -> ff::frame::Video {
    if (area.width, area.height) == size {
        return scaled;
    }
    let mut canvas = black(scaled.format(), size);
    paste(&mut canvas, &scaled, (area.x, area.y));
    canvas
}
