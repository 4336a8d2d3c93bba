//! What was read from disk, so that a change of it is noticed: by its place, its times and, where these leave doubt, its words.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use super::secret::{Stamp, stamp};
use super::{read, rule_files};

use crate::model::name::derive;

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

    /// A digest of what the files say and are called, wherever they lie.
    pub(super) fn digest(&self) -> String {
        let about = |(path, trace): (&PathBuf, &Trace)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{name}={:016x}", trace.words.unwrap_or_default())
        };
        let mut files: Vec<String> = self.traces.iter().map(about).collect();
        files.sort_unstable();
        derive("rul", &files.iter().map(String::as_str).collect::<Vec<_>>())
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::{Footprint, Path};
    use crate::config::read_rules;

    const RULE: &str = "schema = 1\n[[rule]]\nid = \"a\"\nwhen = { to = \"Failed\" }\nnotify = [\"oncall\"]\n";
    type Change<'a> = &'a dyn Fn(&Path);
    const LONG_AGO: SystemTime = SystemTime::UNIX_EPOCH;

    /// A directory with a rule and its body, as it was read a while ago.
    fn read(directory: &Path) -> Footprint {
        let rule = format!("{RULE}message = {{ title = \"t\", body_file = \"a.md\" }}\n");
        for (name, text) in [("a.toml", &*rule), ("a.md", "one"), ("other.md", "?")] {
            write(&directory.join(name), text, LONG_AGO);
        }
        let reading = read_rules(&[directory.to_owned()], None);
        assert!(reading.report.is_empty(), "{:?}", reading.report);
        reading.footprint
    }

    fn write(path: &Path, text: &str, at: SystemTime) {
        fs::write(path, text).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    /// Whether the files look as they did, and whether they say what they said.
    fn compare(footprint: &mut Footprint) -> (bool, bool) {
        let look = footprint.look();
        (footprint.agrees(&look), footprint.says_the_same(&look))
    }

    #[test]
    fn each_change_of_what_was_read_is_noticed() {
        let later = LONG_AGO + Duration::from_secs(1);
        let changes: [(&str, Change<'_>); 7] = [
            ("a rule is edited", &|path| write(&path.join("a.toml"), RULE, later)),
            ("a body is edited", &|path| write(&path.join("a.md"), "two", later)),
            ("a file comes", &|path| write(&path.join("b.toml"), "schema = 1\n", later)),
            ("a file goes", &|path| fs::remove_file(path.join("a.toml")).unwrap()),
            ("a body goes", &|path| fs::remove_file(path.join("a.md")).unwrap()),
            ("a file is replaced", &|path| {
                write(&path.join("new"), &RULE.replace('a', "b"), LONG_AGO);
                fs::rename(path.join("new"), path.join("a.toml")).unwrap();
            }),
            ("the directory goes", &|path| fs::remove_dir_all(path).unwrap()),
        ];
        for (what, change) in changes {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("rules");
            fs::create_dir(&path).unwrap();
            let mut footprint = read(&path);
            assert_eq!(compare(&mut footprint), (true, true), "before {what}");
            change(&path);
            assert_eq!(compare(&mut footprint), (false, false), "{what}");
        }
    }

    #[test]
    fn what_was_not_read_and_files_that_say_the_same_are_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let mut footprint = read(directory.path());
        for name in ["other.md", ".a.toml.swp", ".hidden.toml", "a.toml~"] {
            write(&directory.path().join(name), "!", SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        }
        assert_eq!(compare(&mut footprint), (true, true));
        write(&directory.path().join("a.md"), "one", LONG_AGO + Duration::from_secs(9));
        assert_eq!(compare(&mut footprint), (false, true), "touched");
        assert_eq!(compare(&mut footprint), (true, true), "and that is known now");
    }

    #[test]
    fn a_body_that_was_missing_is_noticed_when_it_comes() {
        let directory = tempfile::tempdir().unwrap();
        let rule = format!("{RULE}message = {{ title = \"t\", body_file = \"a.md\" }}\n");
        fs::write(directory.path().join("a.toml"), rule).unwrap();
        let reading = read_rules(&[directory.path().to_owned()], None);
        assert!(reading.report.has_errors());
        let mut footprint = reading.footprint;
        assert_eq!(compare(&mut footprint), (true, true));
        fs::write(directory.path().join("a.md"), "one").unwrap();
        assert_eq!(compare(&mut footprint), (false, false));
    }

    #[test]
    fn two_writes_in_one_tick_of_the_clock_differ_in_their_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut footprint = read(directory.path());
        write(&directory.path().join("a.md"), "two", LONG_AGO);
        assert_eq!(compare(&mut footprint), (true, false));
    }
}
