//! `lyceum`: the origin, the edge and their tools, in one program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lyceum::app::main()
}
