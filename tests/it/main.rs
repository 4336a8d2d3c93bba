//! Stories with the real binary as a process, real SQLite files and real connections on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

mod asking;
mod browser;
mod canaries;
mod carrying;
mod commands;
mod completing;
mod crash;
mod database;
mod delivering;
mod doctor;
mod faults;
mod follow_ups;
mod heartbeat;
mod hostile;
mod identity;
mod killed;
mod mail;
mod metrics;
mod page;
#[path = "../postgres/mod.rs"]
mod postgres;
mod proxy;
mod reload;
mod replicas;
mod retention;
mod rules;
mod service;
mod sources;
mod stage;
mod storms;
mod tls;
mod views;
mod world;
