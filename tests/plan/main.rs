//! One poll decided: stories about the differ and the planner, which are plain functions over values.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod alerts;
mod asking;
mod pacing;
mod shipped;
mod steps;
mod world;
