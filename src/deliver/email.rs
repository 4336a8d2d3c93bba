//! `kind = "email"`: being written.
use super::Kind;
pub(super) const KIND: Kind = Kind { name: "email", about: "e-mail over SMTP", concurrency: 1, read: |_, _| None };
