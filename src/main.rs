//! `lyceum`: the origin, the edge and their tools, in one program.

use std::process::ExitCode;

/// A request asks for and gives back a handful of small pieces; `lyceum-load bench` and its floor use the same allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lyceum::app::main()
}
