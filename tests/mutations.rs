//! Valid rule files, broken in one place at a time: hardly any mutation goes by without a word at the line it is on.
//!
//! The files are the shipped ones and `fixtures/mutations`, which uses the whole language. A mutant that means the same, or
//! that is another rule that somebody could have meant, is not made: nobody could tell it from a good one.
#![expect(clippy::unwrap_used, reason = "a corpus that cannot be made should fail loudly")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jobwatch::document::{File, Table, parse};
use jobwatch::model::name::{ReceiverName, SourceName};
use jobwatch::rules::{Surroundings, Window, load};
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const LANGUAGE: &str = "tests/fixtures/mutations/language.toml";
/// Every key of the language: what a misspelt one must not turn into.
const KEYS: &[&str] = &[
    "schema",
    "defaults",
    "rule",
    "id",
    "about",
    "when",
    "match",
    "except",
    "severity",
    "notify",
    "key",
    "group",
    "cooldown",
    "resolve",
    "active",
    "message",
    "runbook",
    "labels",
    "test",
    "to",
    "from",
    "gaps",
    "stays",
    "for",
    "gone_from",
    "changed",
    "new",
    "memory",
    "count",
    "within",
    "per",
    "by",
    "wait",
    "scope",
    "title",
    "body",
    "body_file",
    "name",
    "steps",
    "expect",
    "at",
    "jobs",
    "fires",
    "glob",
    "regex",
    "prefix",
    "suffix",
    "contains",
    "not",
    "exists",
    "older_than",
    "newer_than",
    "type",
    "status",
    "reason",
    "reason_class",
    "source",
    "age",
    "instance_id",
    "resource_id",
    "resource_name",
    "created_at",
    "updated_at",
];
/// Keys without which there is no meaning, by the table they stand in.
const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["schema"]),
    ("rule", &["id", "when"]),
    ("when", &["stays", "for", "gone_from", "count", "within", "new", "memory", "changed"]),
    ("group", &["by", "wait"]),
    ("resolve", &["to"]),
    ("test", &["name", "steps", "expect"]),
    ("steps", &["at", "jobs"]),
    ("jobs", &["id", "status"]),
    ("expect", &["at", "fires"]),
];

#[test]
fn a_single_mutation_of_a_valid_rule_file_is_refused_or_warned_of_at_its_line() {
    let mut mutants: Vec<Mutant> = shipped().iter().flat_map(|path| mutants(path)).collect();
    mutants.extend(mutants_of_the_body_file());
    let (mut survivors, mut unmended) = (String::new(), String::new());
    let (mut kinds, mut mendable, mut mended) = (BTreeMap::<_, (usize, usize)>::new(), 0, 0);
    for mutant in &mutants {
        let found = mutant.problems();
        let here: Vec<&Json> = found.iter().filter(|problem| mutant.is_at(problem)).collect();
        let (made, caught) = kinds.entry(mutant.kind).or_default();
        *made += 1;
        match here.is_empty() {
            false => *caught += 1,
            true => writeln!(survivors, "{mutant}{}", lines(&found)).unwrap(),
        }
        if let Some(meant) = &mutant.meant {
            mendable += 1;
            let named = format!("did you mean `{meant}`?");
            match here.iter().any(|problem| problem["help"].as_str().is_some_and(|help| help.contains(&named))) {
                true => mended += 1,
                false => writeln!(unmended, "{mutant}{}", lines(&found)).unwrap(),
            }
        }
    }
    let (made, caught) = kinds.values().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
    println!("{made} mutants, {caught} caught, {mended} of {mendable} mended: {kinds:?}");
    println!("not caught:\n{survivors}\nwithout the word that was meant:\n{unmended}");
    for kind in ["key", "operator", "status", "receiver", "pattern", "template", "duration", "type"] {
        assert!(kinds[kind].0 >= 20, "only {} of {kind}", kinds[kind].0);
    }
    // A brace that is not closed shows on the line after it; everything else shows where it is.
    let hidden: Vec<_> = kinds.iter().filter(|(kind, (made, caught))| **kind != "template" && caught < made).collect();
    assert!(hidden.is_empty(), "{hidden:?} were not all caught:\n{survivors}");
    assert!(made >= 150 && caught * 100 >= made * 99, "{caught} of {made} were caught; not caught:\n{survivors}");
    assert!(mended * 100 >= mendable * 99, "{mended} of {mendable} were mended; not mended:\n{unmended}");
}

/// The files that are broken; nobody has a word to say about them as they are.
fn shipped() -> Vec<PathBuf> {
    let rules = std::fs::read_dir(root().join("rules")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = rules.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    paths.push(root().join(LANGUAGE));
    paths.sort();
    for path in &paths {
        let found = problems(path, &std::fs::read_to_string(path).unwrap(), &body());
        assert!(found.is_empty(), "{}", lines(&found));
    }
    paths
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn body() -> String {
    std::fs::read_to_string(root().join(LANGUAGE).with_file_name("create-failed.md")).unwrap()
}

/// A file with one place changed.
struct Mutant {
    kind: &'static str,
    path: PathBuf,
    text: String,
    body: String,
    /// What was changed, and into what.
    change: String,
    /// The file and the lines where somebody has to say so.
    place: (PathBuf, RangeInclusive<usize>),
    /// The word that the hint has to name.
    meant: Option<String>,
}

impl std::fmt::Display for Mutant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, lines) = &self.place;
        let name = path.file_name().unwrap().to_string_lossy();
        writeln!(f, "{name}:{}: {}: {}", lines.start(), self.kind, self.change)
    }
}

impl Mutant {
    fn problems(&self) -> Vec<Json> {
        problems(&self.path, &self.text, &self.body)
    }

    fn is_at(&self, problem: &Json) -> bool {
        let (path, lines) = &self.place;
        let line = usize::try_from(problem["line"].as_u64().unwrap()).unwrap();
        problem["file"] == path.display().to_string() && lines.contains(&line)
    }
}

/// What is said of a rule file where two receivers, two windows and two sources are known.
fn problems(path: &Path, text: &str, body: &str) -> Vec<Json> {
    let file = Arc::new(File { path: path.to_owned(), text: text.into() });
    let read = |_: &Path| Ok(body.to_owned());
    let receivers = ["oncall", "ops-mail"].map(ReceiverName::from);
    let sources = ["prod", "staging"].map(SourceName::from);
    let windows = ["office", "night"].map(window);
    let around = Surroundings {
        read: &read,
        receivers: Some(&receivers),
        windows: Some(&windows),
        sources: Some(&sources),
        follow_ups: None,
    };
    let (_, report) = load(&[file], &around);
    report.json().as_array().unwrap().clone()
}

fn window(name: &str) -> Arc<Window> {
    let (table, _) = parse("zone = \"UTC\"\ntimes = [{ from = \"08:00\", to = \"18:00\" }]");
    let problems = RefCell::default();
    Arc::new(Window::read(name, &Table::root(&table, &problems)).unwrap())
}

fn lines(found: &[Json]) -> String {
    let line = |problem: &Json| {
        format!("    {}: {} ({})\n", problem["line"], problem["message"].as_str().unwrap(), problem["help"])
    };
    found.iter().map(line).collect()
}

/// A key and its value, or an item of a list.
struct Site<'t> {
    /// The keys from the top down to this one.
    path: Vec<&'t str>,
    /// Where the key stands; an item of a list has none.
    key: Option<Range<usize>>,
    value: &'t DeValue<'t>,
    span: Range<usize>,
    /// The lines of the table that it stands in.
    table: RangeInclusive<usize>,
}

impl Site<'_> {
    fn name(&self) -> &str {
        self.path.last().unwrap()
    }

    /// The key of the table it stands in.
    fn parent(&self) -> &str {
        self.path.len().checked_sub(2).map_or("", |at| self.path[at])
    }

    fn is_in(&self, key: &str) -> bool {
        self.path[..self.path.len() - 1].contains(&key)
    }

    fn text(&self) -> Option<&str> {
        self.value.as_str()
    }
}

fn mutants(path: &Path) -> Vec<Mutant> {
    let text = std::fs::read_to_string(path).unwrap();
    let document = DeTable::parse(&text).unwrap();
    let mut sites = Vec::new();
    walk(document.get_ref(), &[], 1..=text.lines().count(), &text, &mut sites);
    let mut made = Made { path, text: &text, mutants: Vec::new() };
    // The listings of tests have the same keys again and again: one of each is enough.
    let mut seen = BTreeSet::new();
    for site in sites.iter().filter(|site| !site.is_in("steps") || seen.insert(site.path.clone())) {
        made.keys(site);
        made.words(site);
        made.patterns(site);
        made.templates(site);
        made.durations(site);
        made.types(site);
        made.numbers(site);
        made.missing(site, &sites);
    }
    made.doubles(&sites);
    made.contradictions(&sites);
    made.mutants
}

fn walk<'t>(
    table: &'t DeTable<'t>,
    path: &[&'t str],
    lines: RangeInclusive<usize>,
    text: &str,
    sites: &mut Vec<Site<'t>>,
) {
    for (key, value) in table.iter() {
        let path: Vec<&str> = path.iter().copied().chain([key.get_ref().as_ref()]).collect();
        // A header is a key of its own, wherever its table is used.
        sites.push(Site {
            path: path.clone(),
            key: Some(key.span()),
            value: value.get_ref(),
            span: value.span(),
            table: lines.clone(),
        });
        inside(value, &path, &lines, text, sites);
    }
}

fn inside<'t>(
    value: &'t Spanned<DeValue<'t>>,
    path: &[&'t str],
    lines: &RangeInclusive<usize>,
    text: &str,
    sites: &mut Vec<Site<'t>>,
) {
    if let Some(table) = value.get_ref().as_table() {
        let start = line(text, value.span().start);
        // A table under a header goes on to the next header of its kind; one in braces ends with them.
        let end = match text[value.span()].starts_with('[') {
            true => text
                .lines()
                .enumerate()
                .skip(start)
                .find(|(_, line)| *line == "[[rule]]")
                .map_or(*lines.end(), |(at, _)| at),
            false => line(text, value.span().end),
        };
        walk(table, path, start..=end, text, sites);
    }
    for item in value.get_ref().as_array().into_iter().flatten() {
        if !item.get_ref().is_table() {
            sites.push(Site {
                path: path.to_vec(),
                key: None,
                value: item.get_ref(),
                span: item.span(),
                table: lines.clone(),
            });
        }
        inside(item, path, lines, text, sites);
    }
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

struct Made<'a> {
    path: &'a Path,
    text: &'a str,
    mutants: Vec<Mutant>,
}

impl Made<'_> {
    fn push(&mut self, kind: &'static str, span: Range<usize>, with: &str, meant: Option<&str>) {
        let at = line(self.text, span.start);
        let end = at + with.matches('\n').count();
        self.push_at(kind, span, with, meant, at..=end);
    }

    fn push_at(
        &mut self,
        kind: &'static str,
        span: Range<usize>,
        with: &str,
        meant: Option<&str>,
        lines: RangeInclusive<usize>,
    ) {
        let mut text = self.text.to_owned();
        text.replace_range(span.clone(), with);
        self.mutants.push(Mutant {
            kind,
            path: self.path.to_owned(),
            text,
            body: body(),
            change: format!("`{}` → `{with}`", &self.text[span]),
            place: (self.path.to_owned(), lines),
            meant: meant.map(ToOwned::to_owned),
        });
    }

    /// A key that is misspelt: of tables, rules, `when`, operators, fields. Labels have no wrong names.
    fn keys(&mut self, site: &Site<'_>) {
        let Some(key) = site.key.clone() else { return };
        if site.is_in("labels") {
            return;
        }
        let kind = if matches!(site.parent(), "match" | "except")
            || site.path.iter().rev().skip(2).any(|key| matches!(*key, "match" | "except"))
        {
            "operator"
        } else {
            "key"
        };
        for wrong in misspelt(site.name()).into_iter().filter(|wrong| !KEYS.contains(&wrong.as_str())) {
            self.push(kind, key.clone(), &wrong, Some(site.name()));
        }
    }

    /// A word of a closed set, misspelt.
    fn words(&mut self, site: &Site<'_>) {
        let Some(word) = site.text() else { return };
        let status = match site.parent() {
            "when" => matches!(site.name(), "to" | "from" | "stays" | "gone_from"),
            "resolve" => site.name() == "to",
            "match" | "except" => site.name() == "status",
            "status" => site.name() == "not",
            "jobs" => site.name() == "status" && !matches!(word, "Paused"),
            _ => false,
        };
        let field =
            matches!((site.parent(), site.name()), ("rule", "key") | ("group", "by") | ("when", "per" | "changed"));
        let kind = match site.name() {
            _ if status => "status",
            _ if field => "field",
            "notify" => "receiver",
            "active" => "window",
            "source" if site.is_in("match") || site.is_in("except") => "source",
            "severity" | "gaps" | "scope" | "new" => "word",
            _ => return,
        };
        let bare = word.strip_prefix("job.").unwrap_or(word);
        let inner = site.span.end - 1 - bare.len()..site.span.end - 1;
        if word == "*" {
            self.push(kind, inner.clone(), "any", None);
            self.push(kind, inner, "**", None);
            return;
        }
        for wrong in misspelt(bare) {
            self.push(kind, inner.clone(), &wrong, Some(bare));
        }
        // The cloud's words are read in any case; those of a rule are not.
        if !matches!(site.parent(), "jobs") {
            let other = if bare.chars().any(char::is_uppercase) { bare.to_lowercase() } else { bare.to_uppercase() };
            self.push(kind, inner, &other, Some(bare));
        }
    }

    /// Patterns with a bracket too many, and patterns under another operator, or none.
    fn patterns(&mut self, site: &Site<'_>) {
        let Some(text) = site.text() else { return };
        let (first, end) = (site.span.start + 1..site.span.start + 1, site.span.end - 1..site.span.end - 1);
        match site.name() {
            "regex" => {
                for (place, wrong) in [
                    (&first, "("),
                    (&first, "["),
                    (&first, "*"),
                    (&end, ")"),
                    (&end, "("),
                    (&end, "{2"),
                    (&end, "(?=x)"),
                ] {
                    self.push("pattern", place.clone(), wrong, None);
                }
                if let Some(at) = text.find(')') {
                    let at = first.start + at;
                    self.push("pattern", at..at + 1, "", None);
                }
            }
            "glob" => {
                for (place, wrong) in
                    [(&first, "["), (&first, "{"), (&end, "["), (&end, "{a"), (&end, "[z-a]"), (&end, "}")]
                {
                    // `[[0-9]` is a good class.
                    if !(wrong == "[" && text.starts_with('[')) {
                        self.push("pattern", place.clone(), wrong, None);
                    }
                }
            }
            _ => return,
        }
        let Some(key) = site.key.clone() else { return };
        let others: &[&str] = if site.name() == "glob" {
            &["prefix", "suffix", "contains"]
        } else {
            &["glob", "prefix", "suffix", "contains"]
        };
        for other in others {
            self.push("operator", key.clone(), other, None);
        }
        if text.starts_with(|c: char| c.is_alphabetic()) && site.name() == "glob" {
            self.push("operator", key.clone(), "regex", None);
        }
        // { glob = "prod-*" } → "prod-*"
        let open = self.text[..key.start].rfind('{').unwrap();
        let close = site.span.end + self.text[site.span.end..].find('}').unwrap() + 1;
        let plain = self.text[site.span.clone()].to_owned();
        self.push("operator", open..close, &plain, None);
    }

    fn templates(&mut self, site: &Site<'_>) {
        if !matches!(site.path.as_slice(), [.., "message", "title" | "body"]) {
            return;
        }
        for (kind, span, wrong, meant) in in_template(&self.text[site.span.clone()]) {
            let span = site.span.start + span.start..site.span.start + span.end;
            self.push(kind, span, &wrong, meant.as_deref());
        }
    }

    fn durations(&mut self, site: &Site<'_>) {
        let duration = matches!(
            site.name(),
            "for" | "within" | "memory" | "wait" | "cooldown" | "older_than" | "newer_than" | "at"
        );
        let Some(text) = site.text().filter(|_| duration) else { return };
        let (number, unit) = text.split_at(text.len() - 1);
        let long = match unit {
            "s" => "seconds",
            "m" => "min",
            "h" => "hours",
            _ => "days",
        };
        let wrong = [
            format!("\"{number}\""),
            format!("\"{number}x\""),
            format!("\"{number} {long}\""),
            format!("\"{unit}\""),
            "\"\"".to_owned(),
            format!("\"-{text}\""),
            format!("\"{number}.5{unit}\""),
            "\"99999d\"".to_owned(),
            number.to_owned(),
        ];
        for wrong in wrong {
            self.push("duration", site.span.clone(), &wrong, None);
        }
    }

    /// A value of another type than any that could stand there.
    fn types(&mut self, site: &Site<'_>) {
        let either = matches!(
            site.name(),
            "notify"
                | "active"
                | "to"
                | "from"
                | "stays"
                | "gone_from"
                | "changed"
                | "per"
                | "key"
                | "by"
                | "not"
                | "glob"
                | "regex"
                | "prefix"
                | "suffix"
                | "contains"
        ) || matches!(site.parent(), "match" | "except");
        let wrong: &[&str] = match site.value {
            DeValue::String(_) if either => &["7", "true", "{ a = 1 }", "2026-11-24"],
            DeValue::String(_) => &["7", "true", "{ a = 1 }", "[\"x\"]", "1.5"],
            DeValue::Integer(_) => &["\"3\"", "3.5", "true", "[3]", "{ a = 3 }"],
            DeValue::Boolean(_) => &["\"true\"", "1", "[true]"],
            DeValue::Array(_) if either => &["7", "true", "{ a = 1 }"],
            DeValue::Array(_) if !self.text[site.span.clone()].starts_with("[[") => {
                &["7", "\"x\"", "true", "{ a = 1 }"]
            }
            DeValue::Table(_) if self.text[site.span.clone()].starts_with('{') => {
                match matches!(site.parent(), "match" | "except") {
                    true => &["7", "true"],
                    false => &["7", "\"x\"", "true", "[\"x\"]"],
                }
            }
            DeValue::Table(_) | DeValue::Array(_) | DeValue::Float(_) | DeValue::Datetime(_) => &[],
        };
        for wrong in wrong {
            self.push("type", site.span.clone(), wrong, None);
        }
        if site.value.is_array()
            && !self.text[site.span.clone()].starts_with("[[")
            && !matches!(site.name(), "jobs" | "per" | "by")
        {
            self.push("empty", site.span.clone(), "[]", None);
        }
    }

    fn numbers(&mut self, site: &Site<'_>) {
        if !site.value.is_integer() {
            return;
        }
        for wrong in ["-1", "0", "99999999", "9999999999999999999999", "010"] {
            self.push("number", site.span.clone(), wrong, None);
        }
    }

    /// A key that has to be there, taken away. Somebody has to say so in the table that lacks it.
    fn missing(&mut self, site: &Site<'_>, all: &[Site<'_>]) {
        let Some(key) = site.key.clone() else { return };
        let required = REQUIRED.iter().any(|(table, keys)| *table == site.parent() && keys.contains(&site.name()));
        let alone = |parent: &str, name: &str| {
            site.parent() == parent && site.name() == name && !all.iter().any(|other| other.path == ["defaults", name])
        };
        let step = site.parent() == "when" && site.name() == "to";
        let operator = site.path.len() > 3 && (site.is_in("match") || site.is_in("except")) && site.parent() != "match";
        if !(required || step || operator || alone("rule", "notify")) {
            return;
        }
        let rest = &self.text[site.span.end..];
        let before = &self.text[..key.start];
        let span = match rest.strip_prefix(',') {
            Some(more) => key.start..self.text.len() - more.trim_start_matches(' ').len(),
            None => before.trim_end_matches([',', ' ']).len()..site.span.end,
        };
        let lines = match site.path.len() {
            1 => 1..=line(self.text, key.start),
            _ => site.table.clone(),
        };
        self.push_at("missing", span, "", None, lines);
    }

    /// The same id, the same key, the same rule twice.
    fn doubles(&mut self, sites: &[Site<'_>]) {
        let ids: Vec<&Site<'_>> = sites.iter().filter(|site| site.path == ["rule", "id"]).collect();
        for pair in ids.windows(2) {
            let first = self.text[pair[0].span.clone()].to_owned();
            self.push("double", pair[1].span.clone(), &first, None);
        }
        for site in sites.iter().filter(|site| site.path.len() == 2 && site.path[0] == "rule" && site.key.is_some()) {
            let start = site.key.clone().unwrap().start;
            if self.text[..start].ends_with('\n') {
                let whole = format!("\n{}", &self.text[start..site.span.end]);
                let lines = line(self.text, site.span.end) + 1;
                let end = lines + whole.matches('\n').count() - 1;
                self.push_at("double", site.span.end..site.span.end, &whole, None, lines..=end);
            }
        }
        for (at, site) in ids.iter().enumerate() {
            let start = self.text[..site.span.start].rfind("[[rule]]").unwrap();
            let end =
                ids.get(at + 1).map_or(self.text.len(), |next| self.text[..next.span.start].rfind("[[rule]]").unwrap());
            let name = site.text().unwrap();
            let copy = self.text[start..end].replacen(&format!("id = \"{name}\""), &format!("id = \"{name}-2\""), 1);
            let first = line(self.text, end) + 1;
            let last = first + copy.lines().count();
            self.push_at("double", end..end, &format!("\n{copy}"), None, first..=last);
        }
    }

    /// Rules that are well written and can never fire.
    fn contradictions(&mut self, sites: &[Site<'_>]) {
        for site in sites.iter().filter(|site| site.key.is_some() && site.path.len() == 2 && site.path[0] == "rule") {
            let end = site.span.end;
            let text = &self.text[site.span.clone()];
            if site.name() == "match" && !text.starts_with('[') {
                let lines = line(self.text, end) + 1;
                let has_except = sites.iter().any(|other| other.name() == "except" && other.table == site.table);
                if !has_except {
                    self.push_at("never", end..end, &format!("\nexcept = {text}"), None, lines..=lines);
                }
            }
            if site.name() == "when" && !text.contains('*') && !text.contains("changed") && !text.starts_with('[') {
                let other =
                    ["Initializing", "Running", "Success"].into_iter().find(|status| !text.contains(status)).unwrap();
                let has_match = sites.iter().any(|other| other.name() == "match" && other.table == site.table);
                let lines = line(self.text, end) + 1;
                if !has_match {
                    self.push_at(
                        "never",
                        end..end,
                        &format!("\nmatch = {{ status = \"{other}\" }}"),
                        None,
                        lines..=lines,
                    );
                    self.push_at(
                        "never",
                        end..end,
                        &format!("\nmatch = {{ status = {{ prefix = \"{other}\" }} }}"),
                        None,
                        lines..=lines,
                    );
                    self.push_at(
                        "never",
                        end..end,
                        "\nmatch = { source = { glob = \"test-*\" } }",
                        None,
                        lines..=lines,
                    );
                    self.push_at("never", end..end, "\nmatch = { id = { exists = false } }", None, lines..=lines);
                }
            }
        }
    }
}

fn mutants_of_the_body_file() -> Vec<Mutant> {
    let path = root().join(LANGUAGE);
    let (text, body) = (std::fs::read_to_string(&path).unwrap(), body());
    let mutant = |(kind, span, wrong, meant): (&'static str, Range<usize>, String, Option<String>)| {
        let mut broken = body.clone();
        broken.replace_range(span.clone(), &wrong);
        let at = line(&body, span.start);
        let change = format!("`{}` → `{wrong}`", &body[span]);
        let place = (path.with_file_name("create-failed.md"), at..=at);
        Mutant { kind, path: path.clone(), text: text.clone(), body: broken, change, place, meant }
    };
    in_template(&body).into_iter().map(mutant).collect()
}

/// Variables misspelt, and braces, tags and filters broken.
fn in_template(text: &str) -> Vec<(&'static str, Range<usize>, String, Option<String>)> {
    let names = regex::Regex::new(
        r"\b(?:(?:job|source|transition|rule|alert)\.(?:labels\.)?([a-z_]+)|(reason_class|reason|now))\b",
    )
    .unwrap();
    let mut made = Vec::new();
    for found in names.captures_iter(text) {
        // Only what stands between braces and outside of quotes is a variable.
        let before = &text[..found.get(0).unwrap().start()];
        let within = before.rfind('{') > before.rfind('}');
        if !within || before[before.rfind('{').unwrap()..].matches('\'').count() % 2 == 1 {
            continue;
        }
        let part = found.get(1).or(found.get(2)).unwrap();
        let whole = found.get(0).unwrap();
        for wrong in misspelt(part.as_str()) {
            let label = whole.as_str().contains("labels.");
            made.push(("template", part.range(), wrong, (!label).then(|| whole.as_str().to_owned())));
        }
        made.push(("template", whole.end()..whole.end(), " | uper".to_owned(), None));
        made.push(("template", whole.end()..whole.end(), ".x.y".to_owned(), None));
    }
    for (good, bad) in [
        (" }}", " }"),
        (" }}", ""),
        ("{{ ", "{{ ("),
        ("{% if", "{% fi"),
        ("{% endif %}", ""),
        ("{% for", "{% fro"),
        ("{% endfor %}", "{% endif %}"),
    ] {
        for (at, _) in text.match_indices(good) {
            made.push(("template", at..at + good.len(), bad.to_owned(), None));
        }
    }
    made
}

/// A letter dropped, two exchanged, one doubled: in the middle, where fingers slip.
fn misspelt(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let at = letters.len() / 2;
    let join = |letters: Vec<char>| letters.into_iter().collect::<String>();
    let mut made = Vec::new();
    if letters.len() > 1 {
        made.push(join([&letters[..at], &letters[at + 1..]].concat()));
    }
    let mut exchanged = letters.clone();
    if at > 0 {
        exchanged.swap(at - 1, at);
        made.push(join(exchanged));
    }
    made.push(join([&letters[..=at], &letters[at..]].concat()));
    made.retain(|wrong| wrong != word);
    made.dedup();
    made
}
