//! What is wrong with a file, where, and what would mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level as Title, Renderer, Snippet};
use serde::Serialize;
use serde_json::{Value as Json, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The file works, but probably not as meant.
    Warning,
    /// The file cannot be used.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub level: Level,
    /// A short stable word for it, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The bytes it is about.
    pub span: Range<usize>,
    /// What would mend it.
    pub help: Option<String>,
}

/// A text that was read, with its name.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it came from.
    pub path: PathBuf,
    /// What was in it.
    pub text: Arc<str>,
}

impl File {
    /// Line and column (in characters) of a byte, both from 1.
    pub fn place(&self, byte: usize) -> (usize, usize) {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Everything found in a set of files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    entries: Vec<(Arc<File>, Problem)>,
}

impl Report {
    /// Adds what was found in one file.
    pub fn add(&mut self, file: &Arc<File>, problems: impl IntoIterator<Item = Problem>) {
        self.entries.extend(problems.into_iter().map(|problem| (Arc::clone(file), problem)));
    }

    /// Adds a problem with a file that could not even be read.
    pub fn unreadable(&mut self, path: &Path, message: impl fmt::Display, help: &str) {
        let file = Arc::new(File { path: path.to_owned(), text: "".into() });
        let message = message.to_string();
        let problem =
            Problem { level: Level::Error, code: "unreadable", message, span: 0..0, help: Some(help.to_owned()) };
        self.entries.push((file, problem));
    }

    /// Takes over all that `other` holds.
    pub fn merge(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// How many problems of this level there are.
    pub fn count(&self, level: Level) -> usize {
        self.entries.iter().filter(|(_, problem)| problem.level == level).count()
    }

    /// Whether something cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Level::Error) > 0
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order of files and places.
    fn sorted(&self) -> Vec<&(Arc<File>, Problem)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|(a, x), (b, y)| (&a.path, x.span.start).cmp(&(&b.path, y.span.start)));
        entries
    }

    /// The report as rustc would print it: the line, a caret, the mend.
    pub fn render(&self, renderer: &Renderer) -> String {
        let one = |(file, problem): &&(Arc<File>, Problem)| {
            let of_file = self.entries.iter().filter(|(other, _)| Arc::ptr_eq(file, other));
            let text = veiled(&file.text, of_file.map(|(_, problem)| problem));
            render(&file.path, &text, problem, renderer) + "\n\n"
        };
        self.sorted().iter().map(one).collect()
    }

    /// One line a problem, for logs: `rules/a.toml:3:7: error: …`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.sorted().into_iter().map(|(file, problem)| line(file, problem))
    }

    /// The lines of one level.
    pub fn lines_of(&self, level: Level) -> impl Iterator<Item = String> {
        let of_level = move |(_, problem): &&(Arc<File>, Problem)| problem.level == level;
        self.sorted().into_iter().filter(of_level).map(|(file, problem)| line(file, problem))
    }

    /// The report for programs.
    pub fn json(&self) -> Json {
        let one = |(file, problem): &(Arc<File>, Problem)| {
            let (line, column) = file.place(problem.span.start);
            json!({
                "file": file.path.display().to_string(), "line": line, "column": column, "level": problem.level,
                "code": problem.code, "message": problem.message, "help": problem.help,
            })
        };
        Json::Array(self.sorted().into_iter().map(one).collect())
    }
}

fn line(file: &File, problem: &Problem) -> String {
    let (line, column) = file.place(problem.span.start);
    let level = match problem.level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let text = format!("{}:{line}:{column}: {level}: {}{help}", file.path.display(), problem.message);
    text.replace(|c: char| c.is_control(), " ")
}

/// A file's text with every secret covered that stands in it and is complained of: reports end up where many read them.
fn veiled<'p>(text: &str, problems: impl Iterator<Item = &'p Problem>) -> String {
    let mut text = text.to_owned();
    // As long as before, so that the carets stand where they did.
    let cover = |c: char| if matches!(c, '"' | '\'' | '\n') { c.to_string() } else { "*".repeat(c.len_utf8()) };
    for Problem { span, .. } in problems.filter(|problem| problem.code == "secret") {
        let literal = text.get(span.clone()).filter(|text| text.starts_with(['"', '\'']));
        if let Some(covered) = literal.map(|literal| literal.chars().map(cover).collect::<String>()) {
            text.replace_range(span.clone(), &covered);
        }
    }
    text
}

fn render(path: &Path, text: &str, problem: &Problem, renderer: &Renderer) -> String {
    let level = match problem.level {
        Level::Warning => Title::WARNING,
        Level::Error => Title::ERROR,
    };
    let title = level.primary_title(problem.message.as_str()).id(problem.code);
    let path = path.display().to_string();
    let end = problem.span.end.clamp(problem.span.start, text.len());
    let snippet = Snippet::source(text)
        .path(path.as_str())
        .annotation(AnnotationKind::Primary.span(problem.span.start.min(end)..end));
    let group =
        if text.is_empty() { title.element(Title::NOTE.message(path.as_str())) } else { title.element(snippet) };
    let group = match &problem.help {
        Some(help) => group.element(Title::HELP.message(help.as_str())),
        None => group,
    };
    renderer.render(&[group])
}
