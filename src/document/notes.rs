//! What was asked of each table while a file was read: from this a test knows that the schema says the same.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// For each table, by its path such as `rule[0].when`, the keys that were asked for, and for those that hold one of a set
/// of words, these.
pub type Asked = BTreeMap<String, BTreeMap<&'static str, Vec<&'static str>>>;

/// Where it is noted what a reader asks for.
#[derive(Debug, Default)]
pub struct Notes(RefCell<Asked>);

impl Notes {
    /// What was asked so far.
    pub fn asked(&self) -> Asked {
        self.0.borrow().clone()
    }
}

/// A place in a document that is noted.
#[derive(Clone, Debug)]
pub(super) struct Trail<'t> {
    notes: &'t Notes,
    path: String,
}

impl<'t> Trail<'t> {
    pub(super) fn root(notes: &'t Notes) -> Self {
        Self { notes, path: String::new() }
    }

    /// The value under a key of the table here.
    pub(super) fn under(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("{}{dot}{key}", self.path), ..*self }
    }

    /// The value at a place of the list here.
    pub(super) fn at(&self, at: usize) -> Self {
        Self { path: format!("{}[{at}]", self.path), ..*self }
    }

    /// Here is a table, also if nothing is asked of it.
    pub(super) fn enter(&self) {
        self.notes.0.borrow_mut().entry(self.path.clone()).or_default();
    }

    /// The table here is asked for a key, which can be one of `words` if there are any.
    pub(super) fn ask(&self, key: &'static str, words: &[&'static str]) {
        let mut asked = self.notes.0.borrow_mut();
        let known = asked.entry(self.path.clone()).or_default().entry(key).or_default();
        known.extend(words);
    }
}
