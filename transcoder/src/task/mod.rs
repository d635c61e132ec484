//! The task process: one task over one source, in a process of its own that treats its input as hostile.
//!
//! It reads its job and its source through its standard input, a socket that its parent serves, and hands over
//! through its standard output. It holds no credentials, and before it opens anything it gives up files, network and
//! most system calls ([`sandbox`]). It knows nothing of origins, leases or HTTP.

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
