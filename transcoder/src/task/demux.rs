//! Opens a recording: allow-lists of demuxers and decoders, and refusals that the uploader understands.

use std::io::Read;

use ff::format::context::{Input, StreamIo};
use ff::{Dictionary, codec};
use ffmpeg_next as ff;
use lyceum_packaging::info::{Refusal, RefusalCode};

use super::error::TaskError;
use super::ffi::{self, StreamFacts};
use super::source::SourceHandle;
use crate::limits::Limits;

/// Allowed demuxers: they read one file and open no other.
const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mp3,wav,w64,ogg,aac,flac,aiff,caf,asf,mxf,mpegvideo,\
dv,rm,wv,gif,apng";

/// Allowed decoders, by FFmpeg's names.
const DECODERS: &str = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg4,mpeg1video,mpeg2video,mpegvideo,msmpeg4v1,msmpeg4v2,\
msmpeg4,h263,h263i,h263p,flv,flashsv,vp6,vp6a,vp6f,theora,prores,dnxhd,mjpeg,dvvideo,wmv1,wmv2,wmv3,vc1,ffv1,huffyuv,ffvhuff,utvideo,\
magicyuv,rawvideo,qtrle,rpza,svq1,svq3,cinepak,rv30,rv40,cfhd,tscc,tscc2,msrle,msvideo1,zmbv,rv10,rv20,mss1,mss2,g2m,gif,apng,\
aac,aac_latm,aac_fixed,mp3,mp3float,mp2,mp2float,mp1,mp1float,ac3,ac3_fixed,eac3,dca,truehd,vorbis,opus,libopus,flac,alac,\
wmav1,wmav2,wmapro,wmavoice,wmalossless,wavpack,cook,sipr,ra_144,ra_288,atrac3,ralf,nellymoser,speex,libspeex,amrnb,amrwb,gsm,gsm_ms,qdm2,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,adpcm_swf,adpcm_yamaha,\
pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,\
pcm_dvd,pcm_bluray,pcm_s16le_planar,pcm_u16le,pcm_u16be,\
mov_text,subrip,srt,ass,ssa,webvtt,text";

/// FFmpeg's buffer in front of the socket, in bytes.
const BUFFER: usize = 128 << 10;

/// What the uploader of a picture is told.
pub(super) const IS_A_PICTURE: &str = "This is a picture, not a video. Upload a recording with picture or sound.";

/// Damaged packets that are skipped before the next one of a stream.
const MAX_DAMAGED_PACKETS: u32 = 10_000;

/// Opens the source.
pub(super) fn open(source: &SourceHandle, limits: &Limits) -> Result<Input, TaskError> {
    if source.size() == 0 {
        return Err(Refusal::new(RefusalCode::Empty, "The file is empty: it has no bytes at all.").into());
    }
    let io = StreamIo::from_read_seek_with_capacity(source.reader(), BUFFER).map_err(TaskError::ffmpeg("reading"))?;
    let mut options = Dictionary::new();
    options.set("format_whitelist", FORMATS);
    options.set("codec_whitelist", DECODERS);
    // No protocol has this name: FFmpeg can open nothing but the reader above.
    options.set("protocol_whitelist", "none");
    options.set("max_streams", &(limits.streams + 1).to_string());
    options.set("probesize", "8000000");
    options.set("analyzeduration", "8000000");
    let input = ff::format::input_from_stream(io, None, Some(options)).map_err(|cause| refusal(source, cause))?;
    if u64::from(input.nb_streams()) > limits.streams {
        return Err(too_many_streams(limits));
    }
    Ok(input)
}

fn too_many_streams(limits: &Limits) -> TaskError {
    let detail = format!("The file has more than {} streams.", limits.streams);
    Refusal::new(RefusalCode::LimitExceeded, detail).into()
}

/// Why FFmpeg did not open a file, from its first bytes.
fn refusal(source: &SourceHandle, cause: ff::Error) -> TaskError {
    if source.failed() {
        return TaskError::Source(std::io::Error::other("reading the source failed"));
    }
    if cause == (ff::Error::Other { errno: ff::error::ENOMEM }) {
        let detail = "The file asks for more memory or more streams than one task may use.";
        return Refusal::new(RefusalCode::LimitExceeded, detail).into();
    }
    let mut head = vec![0; 4096];
    let mut length = 0;
    let mut reader = source.reader();
    while let Some(rest) = head.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) | Err(_) => break,
            Ok(count) => length += count,
        }
    }
    head.truncate(length);
    classify(&head).into()
}

/// Classifies a file that is not a playable recording by its first bytes.
fn classify(head: &[u8]) -> Refusal {
    let text =
        std::str::from_utf8(head).ok().or_else(|| std::str::from_utf8(head.get(..head.len().saturating_sub(4))?).ok());
    let text = text.filter(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()));
    let start = text.map(|t| t.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase()).unwrap_or_default();
    let list = ["#extm3u", "ffconcat", "[playlist]", "<asx", "<smil", "# dvd"].iter().any(|p| start.starts_with(p));
    if list || start.starts_with('<') && start.contains("<mpd") {
        let detail = "This is a playlist that points at other files, not a recording. Upload the video file itself.";
        return Refusal::new(RefusalCode::ForbiddenFormat, detail);
    }
    let starts = |magic: &[u8]| head.starts_with(magic);
    let at_four = |magic: &[u8]| head.get(4..).is_some_and(|rest| rest.starts_with(magic));
    let still = starts(b"\x89PNG")
        || starts(b"\xff\xd8\xff")
        || starts(b"GIF8")
        || starts(b"BM")
        || starts(b"II*\0")
        || starts(b"MM\0*");
    let webp = starts(b"RIFF") && head.get(8..).is_some_and(|rest| rest.starts_with(b"WEBP"));
    let detail = if still || webp || at_four(b"ftypheic") || at_four(b"ftypavif") {
        IS_A_PICTURE
    } else if at_four(b"ftyp") || at_four(b"mdat") || at_four(b"wide") || at_four(b"moov") {
        "This MP4 or QuickTime file can't be read: its index (moov) is missing or damaged. The recording or its upload was probably cut off."
    } else if text.is_some() {
        "This is a text file, not a video."
    } else {
        "This is no video or sound file that can be read."
    };
    Refusal::new(RefusalCode::NotVideo, detail)
}

/// Whether a stream's samples are encrypted (ISO/IEC 23001-7 sample entries, and Apple's).
pub(super) fn encrypted(facts: &StreamFacts) -> bool {
    [b"encv", b"enca", b"drmi", b"drms", b"enct"].contains(&&facts.codec_tag)
}

/// Opens the decoder of `stream` with frame threading over `threads` threads.
pub(super) fn decoder(
    stream: &ff::Stream<'_>,
    limits: &Limits,
    threads: usize,
) -> Result<codec::decoder::Opened, TaskError> {
    let parameters = stream.parameters();
    let found = codec::decoder::find(parameters.id());
    let allowed = |codec: &ff::Codec| DECODERS.split(',').any(|name| name == codec.name());
    let found = found.filter(allowed).ok_or_else(|| {
        let detail = format!("Its codec ({}) is not one that can be decoded here.", ffi::facts(stream).codec);
        Refusal::new(RefusalCode::ForbiddenFormat, detail)
    })?;
    let mut context = codec::Context::from_parameters(parameters).map_err(TaskError::ffmpeg("preparing a decoder"))?;
    context.set_threading(codec::threading::Config { kind: codec::threading::Type::Frame, count: threads, safe: true });
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(stream.time_base());
    let mut options = Dictionary::new();
    options.set("max_pixels", &limits.pixels.to_string());
    decoder.open_as_with(found, options).map_err(TaskError::ffmpeg("opening a decoder"))
}

/// The next packet of `stream`; `None` at the end of the file. Damaged packets are skipped, within a limit.
pub(super) fn next_packet(
    input: &mut Input,
    stream: usize,
    source: &SourceHandle,
) -> Result<Option<ff::Packet>, TaskError> {
    let mut damaged = 0;
    loop {
        let mut packet = ff::Packet::empty();
        match packet.read(input) {
            Ok(()) if packet.stream() == stream => return Ok(Some(packet)),
            Ok(()) => {}
            Err(ff::Error::InvalidData) if damaged < MAX_DAMAGED_PACKETS => damaged += 1,
            Err(_) if source.failed() => {
                return Err(TaskError::Source(std::io::Error::other("the parent could not read it")));
            }
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_file_is() {
        use RefusalCode::{ForbiddenFormat, NotVideo};
        let cases: &[(&[u8], RefusalCode, &str)] = &[
            (b"#EXTM3U\n#EXT-X-VERSION:3\n/etc/passwd", ForbiddenFormat, "playlist"),
            (b"\xef\xbb\xbfffconcat version 1.0\nfile x", ForbiddenFormat, "playlist"),
            (b"<?xml version=\"1.0\"?>\n<MPD type=\"static\">", ForbiddenFormat, "playlist"),
            (b"\x89PNG\r\n\x1a\n\0\0", NotVideo, "picture"),
            (b"\0\0\0\x20ftypisom", NotVideo, "cut off"),
            (b"Dear students,", NotVideo, "text"),
            (b"\x7fELF\x02\x01\x01\0\xff\xfe\xfd", NotVideo, "no video"),
        ];
        for (head, code, says) in cases {
            let refusal = classify(head);
            assert_eq!(refusal.code, *code, "{refusal}");
            assert!(refusal.detail.contains(says), "{refusal}");
        }
    }
}
