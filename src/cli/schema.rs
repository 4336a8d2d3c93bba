//! `jobwatch schema`: what editors want to know about the files.

use std::io::Write as _;

use super::Exit;
use crate::document::schema::print;
use crate::{config, rules};

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(super) enum Schema {
    /// Of rule files.
    Rules,
    /// Of jobwatch.toml.
    Config,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        anstream::stdout().write_all(self.text().as_bytes())?;
        Ok(Exit::Done)
    }

    /// The schema as it is printed and written to files.
    pub(super) fn text(self) -> String {
        print(&match self {
            Self::Rules => rules::schema(),
            Self::Config => config::schema(),
        })
    }
}
