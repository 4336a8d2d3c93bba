//! A sign of life: an address outside that rings when it is not asked for a while.
//!
//! It is asked with GET, which every service of that sort takes. The URL is a secret, and goes where receivers may go.

use super::Common;
use super::post::{Door, door};
use crate::document::Table;

/// Where signs of life go.
#[derive(Debug)]
pub struct Heartbeat(Door);

impl Heartbeat {
    /// Reads the keys that say where. `None` when something was wrong; the table has been told.
    pub fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Self> {
        door(table, common, "what is asked: url = { env = \"HEARTBEAT_URL\" }").map(Self)
    }

    /// Gives one.
    ///
    /// # Errors
    /// Why nobody heard it; holds no secret.
    pub async fn beat(&self) -> Result<(), String> {
        self.0.ask().await
    }

    /// Where it goes, for people: a host, never a secret.
    pub fn target(&self) -> &str {
        self.0.target()
    }
}
