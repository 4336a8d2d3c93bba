//! `jobwatch init`: a starter that `check` accepts.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::schema::Schema;
use super::{Exit, RECIPES, SHIPPED_RULES};
use crate::config::{self, Purpose, STARTER};
use crate::document::Level;

/// What a starter has to be told, and where in it the answer goes.
struct Question {
    /// The option that answers it.
    option: &'static str,
    ask: &'static str,
    /// What stands in the starter, in quotation marks.
    usual: &'static str,
    /// What comes before it on its line.
    key: &'static str,
}

const QUESTIONS: [Question; 4] = [
    Question { option: "--region", ask: "Region of the project", usual: "ap-southeast-3", key: "region = " },
    Question {
        option: "--project-id",
        ask: "Project id (console, \"My Credentials\")",
        usual: "0605768a3300d5762f8cc01d2b3e4f50",
        key: "project_id = ",
    },
    Question { option: "--mail-server", ask: "Mail server", usual: "smtp://mail.example.org:587", key: "server = " },
    Question { option: "--mail-to", ask: "Who gets the mail", usual: "oncall@example.org", key: "to = [" },
];

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Where to write it.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The region of the project that is watched.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// The id of the project.
    #[arg(long, value_name = "ID")]
    project_id: Option<String>,
    /// The server that takes mail: smtp://HOST:587 or smtps://HOST.
    #[arg(long, value_name = "URL")]
    mail_server: Option<String>,
    /// Who gets the mail.
    #[arg(long, value_name = "ADDRESS")]
    mail_to: Option<String>,
    /// Ask nothing, also on a terminal: what no option says stays as in the starter.
    #[arg(long)]
    defaults: bool,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let rules = self.directory.join("rules");
        let (config_schema, rules_schema) = (Schema::Config.text(), Schema::Rules.text());
        let starter = self.directory.join("jobwatch.toml");
        let mut files = vec![
            (self.directory.join("jobwatch.schema.json"), config_schema.as_str()),
            (rules.join("rules.schema.json"), rules_schema.as_str()),
        ];
        files.extend(SHIPPED_RULES.iter().map(|(name, text)| (rules.join(name), *text)));
        let recipes = rules.join("recipes");
        files.extend(RECIPES.iter().map(|(name, text)| (recipes.join(name), *text)));
        let paths = std::iter::once(&starter).chain(files.iter().map(|(path, _)| path));
        let taken: Vec<String> = paths.filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        if !taken.is_empty() {
            anyhow::bail!("nothing was written: {} exists already", taken.join(", "));
        }
        let (text, told) = self.starter()?;
        files.insert(0, (starter, text.as_str()));
        DirBuilder::new().recursive(true).create(&recipes).with_context(|| recipes.display().to_string())?;
        let mut out = anstream::stdout();
        for (path, text) in &files {
            write_new(path, text).with_context(|| path.display().to_string())?;
            writeln!(out, "wrote {}", path.display())?;
        }
        let rest = if told { "the secrets and what else is to be heard" } else { "project_id and the receivers" };
        writeln!(out, "\nNext: set {rest} in {}, then", files[0].0.display())?;
        writeln!(out, "  jobwatch check --config {}", files[0].0.display())?;
        Ok(Exit::Done)
    }

    /// The starter with what options and answers say, and whether they said anything.
    fn starter(&self) -> anyhow::Result<(String, bool)> {
        let options = [&self.region, &self.project_id, &self.mail_server, &self.mail_to];
        let asks = !self.defaults && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let (mut text, mut told) = (STARTER.to_owned(), false);
        for (question, option) in QUESTIONS.iter().zip(options) {
            let answered = match option {
                Some(answer) => Some(
                    question
                        .put(&text, answer)
                        .map_err(|why| anyhow::anyhow!("nothing was written: {} {answer}: {why}", question.option))?,
                ),
                None if asks => question.answer(&text)?,
                None => None,
            };
            told |= answered.is_some();
            text = answered.unwrap_or(text);
        }
        Ok((text, told))
    }
}

impl Question {
    /// The starter with an answer that somebody types; nothing when they leave it as it is.
    fn answer(&self, starter: &str) -> anyhow::Result<Option<String>> {
        let mut out = anstream::stdout();
        loop {
            write!(out, "{} [{}]: ", self.ask, self.usual)?;
            out.flush()?;
            let mut line = String::new();
            let ended = std::io::stdin().lock().read_line(&mut line)? == 0;
            let answer = line.trim();
            if answer.is_empty() || ended {
                return Ok(None);
            }
            match self.put(starter, answer) {
                Ok(text) => return Ok(Some(text)),
                Err(why) => writeln!(out, "  {why}")?,
            }
        }
    }

    /// The starter with this answer in its place, or what is wrong with the answer.
    fn put(&self, starter: &str, answer: &str) -> Result<String, String> {
        let quoted = toml::Value::from(answer).to_string();
        let text =
            starter.replacen(&format!("\n{}\"{}\"", self.key, self.usual), &format!("\n{}{quoted}", self.key), 1);
        match wrong(&text) {
            Ok(None) => Ok(text),
            Ok(Some(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What `check` would have against a configuration, in its first words.
fn wrong(text: &str) -> std::io::Result<Option<String>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("jobwatch.toml");
    std::fs::write(&path, text)?;
    let (_, report) = config::load(&path, Purpose::Check);
    Ok(report
        .lines_of(Level::Error)
        .next()
        .map(|line| line.split_once(": error: ").map_or(line.clone(), |(_, why)| why.to_owned())))
}

/// Writes a file that must not exist: a second `init` at the same moment overwrites nothing either.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
