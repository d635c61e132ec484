//! `lyceum-transcoder`: the only program that links FFmpeg.
fn main() {}
