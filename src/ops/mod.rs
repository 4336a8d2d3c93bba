//! What an operator sees: log lines, metrics, the admin interface, and what systemd is told.

pub mod admin;
pub mod log;
pub mod metrics;
pub mod page;
pub mod systemd;
