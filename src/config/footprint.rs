//! What was read from disk, so that a change of it is noticed: by its place, its times and, where these leave doubt, its words.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::secret::{Stamp, stamp};
use super::{read, rule_files};

/// Rule files and what they name, as they were read.
#[derive(Clone, Debug, Default)]
pub struct Footprint {
    /// Where rule files are looked for.
    paths: Vec<PathBuf>,
    traces: BTreeMap<PathBuf, Trace>,
}

/// A file as it was read; without a stamp it was not there, without words it could not be read.
#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    stamp: Option<Stamp>,
    words: Option<u64>,
}

/// The files as they are now, from the outside.
pub type Look = BTreeMap<PathBuf, Option<Stamp>>;

impl Footprint {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_vec(), traces: BTreeMap::new() }
    }

    /// Reads a file and remembers it. Its stamp is older than its words: what is written meanwhile is a change.
    pub(super) fn read(&mut self, path: &Path) -> std::io::Result<String> {
        let stamp = stamp(path);
        let text = read(path);
        let words = text.as_deref().ok().map(hash);
        // Of a file that is read twice the first words count: if it changed in between, that is a change.
        self.traces.entry(path.to_owned()).or_insert(Trace { stamp, words });
        text
    }

    /// Looks at the files from the outside.
    pub fn look(&self) -> Look {
        // A directory that cannot be read has no files; that is a change like any other.
        let files = self.paths.iter().flat_map(|path| rule_files(path).unwrap_or_default());
        // Others than rule files are those that rules name.
        let named = self.traces.keys().filter(|path| !self.is_rule_file(path)).cloned();
        files.chain(named).map(|path| (path.clone(), stamp(&path))).collect()
    }

    /// Whether nothing has changed, as far as that can be seen from the outside.
    pub fn agrees(&self, look: &Look) -> bool {
        look.len() == self.traces.len()
            && look.iter().all(|(path, stamp)| self.traces.get(path).is_some_and(|trace| trace.stamp == *stamp))
    }

    /// Whether the files that were looked at say what they said when they were read. If so, how they look from the
    /// outside is taken over.
    pub fn says_the_same(&mut self, look: &Look) -> bool {
        let same = |(path, _): (&PathBuf, &Option<Stamp>)| {
            let now = read(path).ok().as_deref().map(hash);
            self.traces.get(path).is_some_and(|trace| trace.words == now)
        };
        if look.len() != self.traces.len() || !look.iter().all(same) {
            return false;
        }
        for (path, stamp) in look {
            self.traces.entry(path.clone()).or_default().stamp = *stamp;
        }
        true
    }

    fn is_rule_file(&self, file: &Path) -> bool {
        self.paths.iter().any(|path| file == path || file.parent() == Some(path) && is_rule_name(file))
    }
}

/// Which files of a directory are rule files.
pub(super) fn is_rule_name(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
