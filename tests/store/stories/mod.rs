//! The stories that are told of every engine, by subject: each engine's module has these, and its own `Place` for a state.

use super::Place;

mod access;
mod held;
mod memory;
mod outbox;
mod views;
