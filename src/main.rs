//! The doorway: hands the command line to `cli`.
fn main() {}
