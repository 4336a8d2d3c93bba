//! The nouns of jobwatch: values without behaviour that waits, asks or writes.
//!
//! Reading order: a [`job`] is one row of a [`listing`]; a [`snapshot`] is what the last listings said; a
//! [`transition`] is what changed between the two; an [`alert`] is a rule's standing finding about it; a
//! [`notification`] is what is to be said; a [`delivery`] is one receiver's copy of it and the story of its attempts.

pub mod alert;
pub mod delivery;
pub mod examination;
pub mod follow_up;
pub mod index;
pub mod job;
pub mod listing;
pub mod memory;
pub mod name;
pub mod notification;
pub mod snapshot;
pub mod text;
pub mod time;
pub mod transition;
