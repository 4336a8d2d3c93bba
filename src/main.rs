//! The doorway.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobwatch::cli::main()
}
