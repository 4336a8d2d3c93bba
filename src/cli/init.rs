//! `jobwatch init`: a starter that `check` accepts.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::schema::Schema;
use super::{Exit, RECIPES, SHIPPED_RULES};
use crate::config::STARTER;

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Where to write it.
    #[arg(default_value = ".")]
    directory: PathBuf,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let rules = self.directory.join("rules");
        let (config_schema, rules_schema) = (Schema::Config.text(), Schema::Rules.text());
        let mut files = vec![
            (self.directory.join("jobwatch.toml"), STARTER),
            (self.directory.join("jobwatch.schema.json"), config_schema.as_str()),
            (rules.join("rules.schema.json"), rules_schema.as_str()),
        ];
        files.extend(SHIPPED_RULES.iter().map(|(name, text)| (rules.join(name), *text)));
        let recipes = rules.join("recipes");
        files.extend(RECIPES.iter().map(|(name, text)| (recipes.join(name), *text)));
        let taken: Vec<String> =
            files.iter().filter(|(path, _)| path.exists()).map(|(path, _)| path.display().to_string()).collect();
        if !taken.is_empty() {
            anyhow::bail!("nothing was written: {} exists already", taken.join(", "));
        }
        DirBuilder::new().recursive(true).create(&recipes).with_context(|| recipes.display().to_string())?;
        let mut out = anstream::stdout();
        for (path, text) in &files {
            write_new(path, text).with_context(|| path.display().to_string())?;
            writeln!(out, "wrote {}", path.display())?;
        }
        writeln!(out, "\nNext: set project_id and the receivers in {}, then", files[0].0.display())?;
        writeln!(out, "  jobwatch check --config {}", files[0].0.display())?;
        Ok(Exit::Done)
    }
}

/// Writes a file that must not exist: a second `init` at the same moment overwrites nothing either.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
