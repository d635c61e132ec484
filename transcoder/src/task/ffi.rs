//! The only module with `unsafe` code: fields and functions of FFmpeg that `ffmpeg-next` does not expose.
//!
//! Each function borrows its arguments for the duration of the call and returns plain values.
#![allow(unsafe_code)]

use ff::ffi;
use ffmpeg_next as ff;
use lyceum_packaging::info::ColorInfo;

use super::error::TaskError;

/// The parameters of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamFacts {
    pub(super) codec: String,
    pub(super) codec_tag: [u8; 4],
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) sample_aspect: [i32; 2],
    /// Whether the picture is interlaced; `None` if the stream does not tell.
    pub(super) interlaced: Option<bool>,
    /// Frames of reordering delay between decoding and presentation.
    pub(super) delay: i64,
    pub(super) pixel_format: Option<ff::format::Pixel>,
    pub(super) bit_depth: i32,
    pub(super) color: ColorInfo,
    pub(super) channels: i32,
    pub(super) sample_rate: i32,
}

fn code_point(value: i32) -> u16 {
    u16::try_from(value).unwrap_or(2)
}

/// Reads a stream's parameters.
pub(super) fn facts(stream: &ff::Stream<'_>) -> StreamFacts {
    // SAFETY: a stream's `codecpar` is allocated with the stream and lives as long as its context, which `stream`
    // borrows. Only plain fields are read. An unknown pixel format is left out before it becomes an enum value.
    unsafe {
        let stream_pointer = stream.as_ptr();
        let par = (*stream_pointer).codecpar;
        let name = ffi::avcodec_get_name((*par).codec_id);
        let codec = std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned();
        let is_video = (*par).codec_type == ffi::AVMediaType::AVMEDIA_TYPE_VIDEO;
        let format = (*par).format;
        let known = is_video && format >= 0 && format < ffi::AVPixelFormat::AV_PIX_FMT_NB as i32;
        let pixel = known.then(|| std::mem::transmute::<i32, ffi::AVPixelFormat>(format));
        let descriptor = pixel.map_or(std::ptr::null(), |format| ffi::av_pix_fmt_desc_get(format));
        let aspect = if (*stream_pointer).sample_aspect_ratio.num > 0 {
            (*stream_pointer).sample_aspect_ratio
        } else {
            (*par).sample_aspect_ratio
        };
        StreamFacts {
            codec,
            codec_tag: (*par).codec_tag.to_le_bytes(),
            width: (*par).width,
            height: (*par).height,
            sample_aspect: [aspect.num, aspect.den],
            interlaced: match (*par).field_order {
                ffi::AVFieldOrder::AV_FIELD_UNKNOWN => None,
                order => Some(order != ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE),
            },
            delay: i64::from((*par).video_delay.clamp(0, 16)),
            pixel_format: pixel.map(ff::format::Pixel::from),
            bit_depth: if descriptor.is_null() { 8 } else { (*descriptor).comp[0].depth },
            color: ColorInfo {
                primaries: code_point((*par).color_primaries as i32),
                transfer: code_point((*par).color_trc as i32),
                matrix: code_point((*par).color_space as i32),
                full_range: (*par).color_range == ffi::AVColorRange::AVCOL_RANGE_JPEG,
            },
            channels: (*par).channels,
            sample_rate: (*par).sample_rate,
        }
    }
}

/// One entry of a demuxer's index.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexEntry {
    /// Byte offset in the file.
    pub(super) position: i64,
    /// Its size in bytes.
    pub(super) size: i64,
    /// Timestamp in the stream's time base.
    pub(super) timestamp: i64,
    /// Whether decoding can start there.
    pub(super) key: bool,
    /// Whether it is presented; samples outside the edit list are only decoded.
    pub(super) shown: bool,
}

/// The most entries of an index that are read.
const MAX_INDEX_ENTRIES: i32 = 4_000_000;

/// The demuxer's index of a stream.
pub(super) fn index(stream: &ff::Stream<'_>) -> Vec<IndexEntry> {
    // SAFETY: the entries belong to the stream, which is borrowed; each pointer is checked and copied from before
    // the next call, which could move them.
    unsafe {
        let pointer = stream.as_ptr().cast_mut();
        let count = ffi::avformat_index_get_entries_count(pointer).min(MAX_INDEX_ENTRIES);
        (0..count)
            .filter_map(|i| ffi::avformat_index_get_entry(pointer, i).as_ref())
            .map(|entry| IndexEntry {
                position: entry.pos,
                size: i64::from(entry.size()),
                timestamp: entry.timestamp,
                key: entry.flags() & ffi::AVINDEX_KEYFRAME != 0,
                shown: entry.flags() & ffi::AVINDEX_DISCARD_FRAME == 0,
            })
            .collect()
    }
}

/// An encoder's global header: parameter sets, or an `AudioSpecificConfig`.
pub(super) fn extradata(context: &ff::codec::Context) -> Vec<u8> {
    // SAFETY: `extradata` points at `extradata_size` bytes that the context owns, or is null.
    unsafe {
        let pointer = context.as_ptr();
        let (data, size) = ((*pointer).extradata, (*pointer).extradata_size);
        match usize::try_from(size) {
            Ok(size) if !data.is_null() => std::slice::from_raw_parts(data, size).to_vec(),
            _ => Vec::new(),
        }
    }
}

/// Another reference to a frame's pixels, with its own timestamps and picture type.
pub(super) fn share(frame: &ff::frame::Video) -> Result<ff::frame::Video, TaskError> {
    let mut shared = ff::frame::Video::empty();
    // SAFETY: both are valid frames, `shared` holds nothing yet; the pixels are counted references and encoders do
    // not write into frames that are shared.
    let result = unsafe { ffi::av_frame_ref(shared.as_mut_ptr(), frame.as_ptr()) };
    if result < 0 {
        return Err(TaskError::Ffmpeg { doing: "sharing a frame", cause: ff::Error::from(result) });
    }
    Ok(shared)
}

/// Asks the encoder to quantise all of `frame` coarser by `steps` of H.264's quantiser (0 to 51).
pub(super) fn set_quantiser_offset(frame: &mut ff::frame::Video, steps: f64) -> Result<(), TaskError> {
    const STEPS: f64 = 51.0;
    let num = (steps / STEPS * 1000.0).round().clamp(-1000.0, 1000.0) as i32;
    if num == 0 {
        return Ok(());
    }
    let side = |length: u32| i32::try_from(length).unwrap_or(i32::MAX);
    let (right, bottom) = (side(frame.width()), side(frame.height()));
    let size = size_of::<ffi::AVRegionOfInterest>();
    let region = ffi::AVRegionOfInterest {
        self_size: u32::try_from(size).unwrap_or(0),
        top: 0,
        bottom,
        left: 0,
        right,
        qoffset: ffi::AVRational { num, den: 1000 },
    };
    // SAFETY: the frame is valid and borrowed mutably; the side data is allocated by the call with the size that is then
    // written, belongs to the frame, and need not be aligned for an unaligned write.
    let made = unsafe {
        let kind = ffi::AVFrameSideDataType::AV_FRAME_DATA_REGIONS_OF_INTEREST;
        let data = ffi::av_frame_new_side_data(frame.as_mut_ptr(), kind, size);
        data.as_mut().map(|data| data.data.cast::<ffi::AVRegionOfInterest>().write_unaligned(region))
    };
    let cause = ff::Error::Other { errno: ff::error::ENOMEM };
    made.ok_or(TaskError::Ffmpeg { doing: "describing a frame", cause })
}

/// Memory layout of one plane of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaneShape {
    /// Visible rows.
    pub(super) rows: usize,
    /// Visible bytes of a row, without padding.
    pub(super) bytes: usize,
    /// Sample format.
    pub(super) samples: Samples,
}

/// The sample format of a plane.
#[derive(Clone, Copy, Debug)]
pub(super) enum Samples {
    /// Eight bits.
    Bytes,
    /// Two bytes, little endian; shifted right by `shift` they are eight bits.
    Words { shift: u32 },
    /// Palettes, packed bits, floating point.
    Other,
}

/// The planes of a frame; `None` where its format is unknown.
pub(super) fn plane_shapes(frame: &ff::frame::Video) -> Option<Vec<PlaneShape>> {
    const OTHER: u64 = (ffi::AV_PIX_FMT_FLAG_BE
        | ffi::AV_PIX_FMT_FLAG_PAL
        | ffi::AV_PIX_FMT_FLAG_BITSTREAM
        | ffi::AV_PIX_FMT_FLAG_FLOAT) as u64;
    let format = ffi::AVPixelFormat::from(frame.format());
    let width = i32::try_from(frame.width()).ok()?;
    // SAFETY: descriptors are static and null for formats that are unknown; only plain fields are read, and the size of
    // a row is computed from the format and the width alone.
    let (flags, depth, shift, chroma_shift, row_bytes) = unsafe {
        let descriptor = ffi::av_pix_fmt_desc_get(format).as_ref()?;
        let first = descriptor.comp[0];
        let row = |plane: usize| ffi::av_image_get_linesize(format, width, i32::try_from(plane).unwrap_or(0));
        let rows: Vec<i32> = (0..frame.planes()).map(row).collect();
        (descriptor.flags, first.depth, first.shift, descriptor.log2_chroma_h, rows)
    };
    let samples = match (depth, u32::try_from(depth - 8 + shift)) {
        _ if flags & OTHER != 0 => Samples::Other,
        (8, _) => Samples::Bytes,
        (9..=16, Ok(shift @ ..=8)) => Samples::Words { shift },
        _ => Samples::Other,
    };
    let height = frame.height() as usize;
    // The second and third plane are chroma; a fourth is as the first.
    let rows = |plane: usize| if plane == 1 || plane == 2 { height.div_ceil(1 << chroma_shift) } else { height };
    let shape =
        |(n, bytes): (usize, &i32)| Some(PlaneShape { rows: rows(n), bytes: usize::try_from(*bytes).ok()?, samples });
    row_bytes.iter().enumerate().map(shape).collect()
}

/// Sets the colour matrix and the range (`true`: full) of a scaler's input and output.
pub(super) fn set_scaler_color(scaler: &mut ff::software::scaling::Context, from: (u16, bool), to: (u16, bool)) {
    let known = |matrix: u16| match matrix {
        0 | 2 | 3 => ffi::SWS_CS_DEFAULT,
        other => i32::from(other),
    };
    // SAFETY: the context is valid for the call; the coefficient tables are static. A pair of formats that takes no
    // colour settings is left as it is.
    unsafe {
        let _ = ffi::sws_setColorspaceDetails(
            scaler.as_mut_ptr(),
            ffi::sws_getCoefficients(known(from.0)),
            i32::from(from.1),
            ffi::sws_getCoefficients(known(to.0)),
            i32::from(to.1),
            0,
            1 << 16,
            1 << 16,
        );
    }
}

/// Seeks to a byte of the file.
pub(super) fn seek_byte(input: &mut ff::format::context::Input, byte: u64) -> Result<(), ff::Error> {
    let byte = i64::try_from(byte).unwrap_or(i64::MAX);
    // SAFETY: the context is open and borrowed mutably; stream -1 is the file as a whole.
    let result = unsafe { ffi::av_seek_frame(input.as_mut_ptr(), -1, byte, ffi::AVSEEK_FLAG_BYTE) };
    if result < 0 { Err(ff::Error::from(result)) } else { Ok(()) }
}

/// Makes the demuxer discard all streams except `kept`, so that their bytes need not be read.
pub(super) fn keep_only(input: &mut ff::format::context::Input, kept: &[usize]) {
    for mut stream in input.streams_mut() {
        let index = stream.index();
        // SAFETY: the stream is borrowed mutably and `discard` is a field meant to be set by callers at any time.
        unsafe {
            (*stream.as_mut_ptr()).discard =
                if kept.contains(&index) { ffi::AVDiscard::AVDISCARD_DEFAULT } else { ffi::AVDiscard::AVDISCARD_ALL };
        }
    }
}

/// The most frames by which an opened encoder reorders.
pub(super) fn reordered_frames(context: &ff::codec::Context) -> u32 {
    // SAFETY: the context is valid, and the field plain.
    let frames = unsafe { (*context.as_ptr()).has_b_frames };
    u32::try_from(frames).unwrap_or(0)
}

/// Closes inherited file descriptors other than the standard streams.
pub(super) fn close_inherited() {
    // SAFETY: called first thing in the process, when nothing in it owns a descriptor above standard error.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}
