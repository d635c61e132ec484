//! The task process: runs one task on one source and treats the source as hostile.
//!
//! It reads its job and its source from standard input, a socket served by its parent, and writes its output to standard
//! output ([`crate::ipc`]). It holds no credentials, and before it opens the source it gives up files, network and most
//! system calls ([`sandbox`]). It knows nothing of origins, leases or HTTP.

mod audio;
mod demux;
mod entry;
pub(crate) mod error;
mod ffi;
mod frame;
mod limiter;
mod loudness;
mod normalize;
mod output;
mod probe;
mod rendition;
mod sandbox;
mod segmenter;
mod source;
mod ssim;
mod still_frames;
mod stream_spans;
mod subtitles;
mod thumbnails;
mod timeline;
mod timestamp;
mod video;

pub(crate) use entry::main;
