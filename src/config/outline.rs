//! The names in a configuration, for completion: read although something is wrong, with no secret but
//! the state's, and never for long.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::secret::Vault;
use super::{located, read, rule_files};
use crate::document::{Level, Table, parse};
use crate::store::Place;

/// More rule files than this are not looked through while somebody waits for a word.
const RULE_FILES_MAX: usize = 200;

/// What a configuration names.
#[derive(Debug, Default)]
pub struct Outline {
    /// The state, with its password if that is at hand.
    pub state: Option<Place>,
    /// Its sources.
    pub sources: Vec<String>,
    /// Its receivers, each with its kind.
    pub receivers: Vec<(String, String)>,
    rules: Vec<PathBuf>,
}

impl Outline {
    /// What can be read of it. A file with errors has the names that stand in it all the same.
    pub fn read(path: &Path) -> Self {
        let Some(text) = text(path) else { return Self::default() };
        let base = path.parent().unwrap_or(Path::new(""));
        let (table, _) = parse(&text);
        let problems = RefCell::default();
        let top = Table::root(&table, &problems);
        let agent = top.table("agent");
        let state = agent.as_ref().and_then(|agent| {
            let mut place = Place::new(located(&agent.string("state")?.value, base));
            if place.is_shared() && place.password.is_none() {
                let vault = Vault { base: base.to_owned(), inline: true, absent: Level::Warning };
                place.password = agent.secret("state_password", &vault).map(|password| password.value);
            }
            Some(place)
        });
        let rules = agent.as_ref().and_then(|agent| agent.strings("rules"));
        let rules = rules.map(|paths| paths.into_iter().map(|path| base.join(path.value)).collect());
        let name = |table: &Table<'_>, key| table.string(key).map(|name| name.value);
        let receivers = top.table("receiver").map(|table| table.entries()).unwrap_or_default();
        let receivers = receivers
            .into_iter()
            .filter_map(|(receiver, value)| Some((receiver.value, name(&value.table()?, "kind").unwrap_or_default())));
        Self {
            state,
            sources: top.tables("source").iter().filter_map(|source| name(source, "name")).collect(),
            receivers: receivers.collect(),
            rules: rules.unwrap_or_else(|| vec![base.join("rules")]),
        }
    }

    /// The ids of its rules.
    pub fn rules(&self) -> Vec<String> {
        let files = self.rules.iter().flat_map(|path| rule_files(path).unwrap_or_default());
        let texts = files.take(RULE_FILES_MAX).filter_map(|path| text(&path));
        let mut ids = Vec::new();
        for text in texts {
            let (table, _) = parse(&text);
            let problems = RefCell::default();
            let rules = Table::root(&table, &problems).tables("rule");
            ids.extend(rules.iter().filter_map(|rule| rule.string("id")).map(|id| id.value));
        }
        ids
    }
}

/// The words of a file. A pipe, say, would keep whoever reads it waiting.
fn text(path: &Path) -> Option<String> {
    path.is_file().then(|| read(path).ok()).flatten()
}
