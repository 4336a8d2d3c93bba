//! Properties of the source itself: who may import whom, and what a pure module may not touch.
#![expect(clippy::unwrap_used, reason = "a tree that cannot be read should fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every module and what it may import, lowest floor first.
const FLOORS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("document", &[]),
    ("diff", &["model"]),
    ("rules", &["model", "document"]),
    ("retry", &["model"]),
    ("plan", &["model", "diff", "rules"]),
    ("clock", &["model"]),
    ("http", &[]),
    ("cloud", &["model", "document", "clock", "http"]),
    ("source", &["model", "document", "http", "cloud"]),
    ("deliver", &["model", "document", "http", "cloud"]),
    ("store", &["model"]),
    ("agent", &["model", "diff", "rules", "retry", "plan", "clock", "source", "store", "deliver"]),
    (
        "config",
        &[
            "model", "document", "diff", "rules", "retry", "plan", "clock", "http", "cloud", "source", "store",
            "deliver", "agent",
        ],
    ),
    ("simulator", &["model", "document"]),
    ("ops", &["model", "store", "agent"]),
    (
        "cli",
        &[
            "model",
            "document",
            "diff",
            "rules",
            "retry",
            "plan",
            "clock",
            "http",
            "cloud",
            "source",
            "store",
            "deliver",
            "agent",
            "config",
            "simulator",
            "ops",
        ],
    ),
];

const PURE: &[&str] = &["model", "document", "diff", "rules", "retry", "plan"];

/// Words a pure module has no use for: waiting, I/O, the clock, chance, logs, shared state.
const OUTSIDE: &[&str] = &[
    "async ",
    ".await",
    "tokio",
    "std::fs",
    "std::net",
    "std::env",
    "::now(",
    "rand::",
    "tracing",
    "Mutex",
    "static mut",
    "thread_local",
];

#[test]
fn modules_import_only_from_floors_below() {
    report(files().iter().filter(|file| !file.is_root()).flat_map(|file| {
        let module = file.module();
        let (_, allowed) =
            FLOORS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} has no floor"));
        let fault = move |import: String| {
            (import != module && !allowed.contains(&import.as_str()))
                .then(|| format!("{}: {module} may not import {import}", file.path.display()))
        };
        file.imports().into_iter().filter_map(fault).collect::<Vec<_>>()
    }));
}

#[test]
fn floors_have_no_cycle() {
    for (at, (module, allowed)) in FLOORS.iter().enumerate() {
        for below in *allowed {
            assert!(FLOORS[..at].iter().any(|(name, _)| name == below), "{below} is not below {module}");
        }
    }
}

#[test]
fn pure_modules_touch_nothing_outside() {
    report(files().iter().filter(|file| PURE.contains(&file.module())).flat_map(|file| {
        let used = OUTSIDE.iter().filter(|word| file.code().contains(**word));
        used.map(|word| format!("{}: {word:?} in a pure module", file.path.display())).collect::<Vec<_>>()
    }));
}

#[test]
fn every_file_opens_with_its_purpose() {
    report(
        files()
            .iter()
            .filter(|file| !file.text.starts_with("//! "))
            .map(|file| format!("{}: no module doc", file.path.display())),
    );
}

#[test]
fn the_crate_root_re_exports_nothing() {
    report(
        files()
            .iter()
            .filter(|file| file.is_root() && file.code().contains("pub use"))
            .map(|file| format!("{}: pub use", file.path.display())),
    );
}

fn report(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn module(&self) -> &str {
        self.path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
    }

    fn is_root(&self) -> bool {
        matches!(self.module(), "lib" | "main")
    }

    /// The text with its line comments and its tests cut off: tests may look at everything.
    fn code(&self) -> String {
        let lines = self.text.lines().take_while(|line| *line != "#[cfg(test)]");
        lines.map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
    }

    /// The first name of each path that starts at the crate root.
    fn imports(&self) -> Vec<String> {
        let mut code = self.code();
        // In a file at the top, `super` is the crate root as well.
        if self.path.iter().count() == 1 {
            code = code.replace("super::", "crate::");
        }
        let roots: Vec<&str> = code.split("crate::").skip(1).collect();
        roots.into_iter().flat_map(heads).collect()
    }
}

/// The names a path or a braced list of paths starts with: `{a::b, c::{d, e}}` has `a` and `c`.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut depth, mut from, mut found) = (0_usize, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(word(&list[from..at]));
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn files() -> Vec<File> {
    fn walk(dir: &Path, found: &mut Vec<File>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(File { path: path.strip_prefix("src").unwrap().to_owned(), text });
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("src"), &mut found);
    assert!(!found.is_empty(), "no source found");
    found
}
