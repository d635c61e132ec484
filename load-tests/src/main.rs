//! `lyceum-load`: load generator and side-by-side benchmarks.
#![forbid(unsafe_code)]

pub mod hls;
pub mod viewers;

fn main() {}
