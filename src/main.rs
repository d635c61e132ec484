//! `lyceum`: see `lyceum help`.
fn main() {}
