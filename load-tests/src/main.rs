//! `lyceum-load`: load generator and side-by-side benchmarks.
fn main() {}
