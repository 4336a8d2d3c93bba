//! What every engine of the store must do: the same stories, told of each; and the same history, on both.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

#[path = "../postgres/mod.rs"]
#[expect(dead_code, reason = "other stories want more of a server")]
mod cluster;
mod history;
#[expect(clippy::duplicate_mod, reason = "the stories know nothing of the engine, so that every engine has them")]
mod pooled;
#[expect(clippy::duplicate_mod, reason = "the stories know nothing of the engine, so that every engine has them")]
mod postgres;
mod same;
mod shared;
mod sqlite;
mod world;
