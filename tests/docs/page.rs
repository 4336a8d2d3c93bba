//! A page as the tests read it: its blocks, its tables, what stands in backquotes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

pub(crate) type Words = BTreeSet<String>;

pub(crate) static RULES: LazyLock<Document> = LazyLock::new(|| Document::read("rules/README.md"));
pub(crate) static README: LazyLock<Document> = LazyLock::new(|| Document::read("README.md"));
pub(crate) static SYSTEMD: LazyLock<Document> = LazyLock::new(|| Document::read("systemd/README.md"));
pub(crate) static CONFIGURATION: LazyLock<Document> = LazyLock::new(|| Document::read("CONFIGURATION.md"));
pub(crate) static OPERATING: LazyLock<Document> = LazyLock::new(|| Document::read("OPERATING.md"));
pub(crate) static MONITORING: LazyLock<Document> = LazyLock::new(|| Document::read("systemd/monitoring/README.md"));

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Words {
    words.into_iter().map(ToOwned::to_owned).collect()
}

/// A page, in Markdown.
pub(crate) struct Document {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// What stands between fences.
pub(crate) struct Block<'d> {
    pub(crate) line: usize,
    pub(crate) text: &'d str,
}

impl Document {
    pub(crate) fn read(name: &'static str) -> Self {
        Self { name, text: std::fs::read_to_string(root().join(name)).unwrap() }
    }

    pub(crate) fn blocks(&self, language: &str) -> Vec<Block<'_>> {
        let open = format!("```{language}\n");
        let block = |(at, _): (usize, &str)| {
            let text = &self.text[at + open.len()..];
            let line = self.text[..at].lines().count() + 2;
            Block { line, text: &text[..text.find("```").unwrap()] }
        };
        self.text.match_indices(&open).map(block).collect()
    }

    /// The rows of the table whose first column has this head, as cells.
    pub(crate) fn table(&self, head: &str) -> Vec<Vec<String>> {
        let opening = format!("| {head} |");
        let starts: Vec<usize> =
            self.text.lines().enumerate().filter(|(_, line)| line.starts_with(&opening)).map(|(at, _)| at).collect();
        let [start] = starts.as_slice() else { panic!("{}: {} tables `{head}`", self.name, starts.len()) };
        let rows = self.text.lines().skip(start + 2).take_while(|line| line.starts_with('|'));
        let cells = |row: &str| -> Vec<String> {
            let row = row.replace(r"\|", "\u{0}");
            row.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
        };
        rows.map(cells).collect()
    }

    /// All code in the first column of that table; nothing stands there twice.
    pub(crate) fn firsts(&self, head: &str) -> Words {
        let all: Vec<String> = self.table(head).iter().flat_map(|row| code(&row[0])).collect();
        let once: Words = all.iter().cloned().collect();
        assert_eq!(all.len(), once.len(), "{}: something stands twice in `{head}`", self.name);
        once
    }

    /// The code in the paragraph that begins so.
    pub(crate) fn paragraph(&self, beginning: &str) -> Words {
        let (_, rest) = self.text.split_once(beginning).unwrap_or_else(|| panic!("{}: no `{beginning}`", self.name));
        code(rest.split_once("\n").unwrap().0).into_iter().collect()
    }
}

/// What stands in backquotes.
pub(crate) fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// The keys that a schema has at a place.
pub(crate) fn keys(schema: &Value, path: &str) -> Words {
    let place = schema.pointer(path).unwrap_or_else(|| panic!("no {path}"));
    place["properties"].as_object().unwrap_or_else(|| panic!("no keys at {path}")).keys().cloned().collect()
}
