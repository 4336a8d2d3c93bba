//! The documents say what the program does: their examples load, their tables have what there is, their commands exist.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod commands;
mod examples;
mod links;
mod monitoring;
mod page;
mod quotes;
mod rules;
mod settings;
