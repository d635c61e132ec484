//! The task process: runs one task on one source and treats the source as hostile.
//!
//! It reads its job and its source from standard input, a socket served by its parent, and writes its output to standard
//! output ([`crate::ipc`]). It holds no credentials, and before it opens the source it gives up files, network and most
//! system calls ([`sandbox`]). It knows nothing of origins, leases or HTTP.

mod audio;
mod audio_decoder;
mod canvas;
mod demux;
mod entry;
pub(crate) mod error;
mod ffi;
mod frame;
mod limiter;
mod loudness;
mod mixdown;
mod normalize;
mod output;
mod picture;
mod picture_rate;
mod probe;
mod rendition;
mod sandbox;
mod segmenter;
mod sound_clock;
mod source;
mod ssim;
mod stereo;
mod still_frames;
mod stream_spans;
mod stretch;
mod subtitles;
mod survey;
mod thumbnails;
mod timeline;
mod timestamp;
mod video;

pub(crate) use entry::main;
