//! What an operator sees: log lines, and what systemd is told.

pub mod log;
pub mod systemd;
