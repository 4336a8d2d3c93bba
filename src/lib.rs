//! jobwatch watches cloud jobs and tells people why they failed.
//!
//! ```text
//!  5  cli            main         what an operator types
//!  4  ops  config    simulator    what an operator sees and sets; the cloud in a box that demo and tests share
//!  3  agent                       the loops (watch, dispatch, prune): the only place that waits
//!  2  source  store  deliver      the edges: cloud, disk, world; they never import each other
//!     clock  http  cloud          what the edges stand on
//!  ─────────── below this line: no I/O, no async, no clock, no chance, no logs ───────────
//!  1  plan ← diff  rules          retry                 the decisions
//!  0  model  document             the nouns; TOML that knows where it stands
//! ```
//!
//! Reading order: [`model`], [`diff`], [`rules`], [`plan`], [`agent`]. ARCHITECTURE.md has the walkthroughs.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod deliver;
pub mod diff;
pub mod document;
pub mod http;
pub mod model;
pub mod ops;
pub mod plan;
pub mod retry;
pub mod rules;
pub mod simulator;
pub mod source;
pub mod store;
