//! The documents say what the program does: their examples load, their tables have what there is, their commands exist.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use jobwatch::config::{self, Config, Purpose, disagreements};
use jobwatch::document::File;
use jobwatch::model::alert::Severity;
use jobwatch::ops::metrics::{CATALOGUE, Entry, Kind};
use jobwatch::rules::{self, FIELDS, FILTERS, FUNCTIONS, RuleSet, Surroundings, TESTS, Window};
use jobwatch::simulator::Scenario;
use regex::Regex;
use serde_json::Value;

type Words = BTreeSet<String>;

static RULES: LazyLock<Document> = LazyLock::new(|| Document::read("rules/README.md"));
static README: LazyLock<Document> = LazyLock::new(|| Document::read("README.md"));
static SYSTEMD: LazyLock<Document> = LazyLock::new(|| Document::read("systemd/README.md"));
static MONITORING: LazyLock<Document> = LazyLock::new(|| Document::read("systemd/monitoring/README.md"));

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn words<'w>(words: impl IntoIterator<Item = &'w str>) -> Words {
    words.into_iter().map(ToOwned::to_owned).collect()
}

/// A page, in Markdown.
struct Document {
    name: &'static str,
    text: String,
}

/// What stands between fences.
struct Block<'d> {
    line: usize,
    text: &'d str,
}

impl Document {
    fn read(name: &'static str) -> Self {
        Self { name, text: std::fs::read_to_string(root().join(name)).unwrap() }
    }

    fn blocks(&self, language: &str) -> Vec<Block<'_>> {
        let open = format!("```{language}\n");
        let block = |(at, _): (usize, &str)| {
            let text = &self.text[at + open.len()..];
            let line = self.text[..at].lines().count() + 2;
            Block { line, text: &text[..text.find("```").unwrap()] }
        };
        self.text.match_indices(&open).map(block).collect()
    }

    /// The rows of the table whose first column has this head, as cells.
    fn table(&self, head: &str) -> Vec<Vec<String>> {
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
    fn firsts(&self, head: &str) -> Words {
        let all: Vec<String> = self.table(head).iter().flat_map(|row| code(&row[0])).collect();
        let once: Words = all.iter().cloned().collect();
        assert_eq!(all.len(), once.len(), "{}: something stands twice in `{head}`", self.name);
        once
    }

    /// The code in the paragraph that begins so.
    fn paragraph(&self, beginning: &str) -> Words {
        let (_, rest) = self.text.split_once(beginning).unwrap_or_else(|| panic!("{}: no `{beginning}`", self.name));
        code(rest.split_once("\n").unwrap().0).into_iter().collect()
    }
}

/// What stands in backquotes.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// A file of the configuration, from a part of one.
fn configuration(part: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let mut whole = part.to_owned();
    if !part.contains("[[source]]") {
        whole += "\n[[source]]\nname = \"prod\"\nkind = \"swr\"\nregion = \"ap-southeast-3\"\nproject_id = \"p\"\ncredentials = { kind = \"metadata\" }\n";
    }
    if !part.contains("[agent]") {
        whole += "[agent]\nnotify = [\"ops-mail\"]\n";
    }
    for name in ["oncall", "ops-mail"] {
        if !part.contains(&format!("[receiver.{name}]")) {
            whole += &format!(
                "[receiver.{name}]\nkind = \"email\"\nserver = \"smtps://mail.example.org\"\nfrom = \"a@example.org\"\nto = \"b@example.org\"\n"
            );
        }
    }
    let path = directory.path().join("jobwatch.toml");
    std::fs::write(&path, whole).unwrap();
    let (config, report) = config::load(&path, Purpose::Check);
    let lines: Vec<String> = report.lines().filter(|line| !line.contains("the environment has no")).collect();
    assert_eq!(lines, [] as [&str; 0], "{part}");
    config.unwrap()
}

/// A rule file that has nothing wrong with it, and passes its tests.
fn rules_of(text: &str, windows: &[Arc<Window>]) -> RuleSet {
    let file = Arc::new(File { path: "block.toml".into(), text: text.into() });
    let none = |_: &Path| Err("no files here".to_owned());
    let receivers = ["oncall".into(), "ops-mail".into()];
    let surroundings = Surroundings {
        read: &none,
        receivers: Some(&receivers),
        windows: Some(windows),
        sources: None,
        follow_ups: None,
    };
    let (set, report) = rules::load(&[file], &surroundings);
    assert_eq!(report.lines().collect::<Vec<_>>(), [] as [&str; 0], "{text}");
    for test in &set.tests {
        let found: Vec<String> = disagreements(&set, test).into_iter().map(|problem| problem.message).collect();
        assert_eq!(found, [] as [&str; 0], "{text}");
    }
    set
}

#[test]
fn every_example_in_the_documents_loads_and_passes_its_tests() {
    let mut seen = BTreeMap::from([("rules", 0), ("configuration", 0), ("scenario", 0)]);
    let mut tests = 0;
    for document in [&*RULES, &*README, &*SYSTEMD] {
        let blocks = document.blocks("toml");
        let has = |block: &&Block<'_>, heads: &[&str]| {
            block.text.lines().any(|line| heads.iter().any(|head| line.starts_with(head)))
        };
        let of_configuration = |block: &&Block<'_>| {
            has(block, &["[agent]", "[[source]]", "[receiver", "[window", "[retention]", "[admin]", "[follow_up"])
        };
        let windows: Vec<Arc<Window>> =
            blocks.iter().filter(of_configuration).flat_map(|block| configuration(block.text).known.windows).collect();
        for block in &blocks {
            let kind = match block {
                block if has(&block, &["schema = 1"]) => {
                    tests += rules_of(block.text, &windows).tests.len();
                    "rules"
                }
                block if has(&block, &["[[job]]", "[[fault]]"]) => {
                    let read = Scenario::read(block.text, Path::new("block.toml"));
                    assert!(read.is_ok(), "{}", read.unwrap_err().lines().collect::<Vec<_>>().join("\n"));
                    "scenario"
                }
                block if of_configuration(&block) => "configuration",
                block => panic!("{}:{}: what is this?\n{}", document.name, block.line, block.text),
            };
            *seen.get_mut(kind).unwrap() += 1;
        }
    }
    assert!(seen.values().all(|count| *count > 0) && tests > 0, "{seen:?}, {tests} tests");
}

/// The keys that a schema has at a place.
fn keys(schema: &Value, path: &str) -> Words {
    let place = schema.pointer(path).unwrap_or_else(|| panic!("no {path}"));
    place["properties"].as_object().unwrap_or_else(|| panic!("no keys at {path}")).keys().cloned().collect()
}

#[test]
fn the_tables_of_the_rules_have_every_key_form_field_and_operator_and_no_others() {
    let schema = rules::schema();
    let rule = "/properties/rule/items";
    let test = format!("{rule}/properties/test/items");
    let here = |head: &str| RULES.firsts(head);
    let at = |path: &str| keys(&schema, path);
    let in_rule = |key: &str| at(&format!("{rule}/properties/{key}"));

    let mut of_file = at("");
    of_file.remove("$schema");
    assert_eq!(here("key of a file"), of_file);
    assert_eq!(here("key of `[defaults]`"), at("/properties/defaults"));
    assert_eq!(here("key of a rule"), at(rule));
    for (head, key) in [("key of `resolve`", "resolve"), ("key of `group`", "group"), ("key of `message`", "message")] {
        assert_eq!(here(head), in_rule(key), "{head}");
    }
    assert_eq!(here("key of `[[rule.test]]`"), at(&test));
    assert_eq!(here("key of a job"), at(&format!("{test}/properties/steps/items/properties/jobs/items")));
    let named = |key: &str| {
        let row = RULES.table("key of `[[rule.test]]`").into_iter().find(|row| row[0] == format!("`{key}`")).unwrap();
        words(code(&row[1])[0].trim_matches(['{', '}', ' ']).split(", "))
    };
    for key in ["steps", "expect"] {
        assert_eq!(named(key), at(&format!("{test}/properties/{key}/items")), "{key}");
    }
    let window = rules::window_schema();
    assert_eq!(here("key of `[window.NAME]`"), keys(&window, ""));

    let forms = schema.pointer(&format!("{rule}/properties/when/oneOf")).unwrap().as_array().unwrap();
    let of_schema: BTreeSet<Words> = forms.iter().map(|form| keys(form, "")).collect();
    let rows = RULES.table("form");
    let of_table: BTreeSet<Words> = rows.iter().map(|row| code(&row[1]).into_iter().collect()).collect();
    assert_eq!(of_table, of_schema);
    for row in &rows {
        assert!(code(&row[1]).contains(&code(&row[0])[0]), "{row:?}: a form has the key that names it");
        rules_with_form(&code(&row[0])[0]);
    }

    assert_eq!(here("field"), words(FIELDS.iter().map(|(name, _)| *name)));
    let operators = |of: &str| -> Words {
        let choices = schema.pointer(&format!("/$defs/{of}/anyOf")).unwrap().as_array().unwrap();
        choices.iter().filter(|choice| choice["type"] == "object").flat_map(|choice| keys(choice, "")).collect()
    };
    assert_eq!(here("operator"), operators("text").union(&operators("age")).cloned().collect());
    for severity in [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical] {
        assert!(RULES.text.contains(&format!("`\"{}\"`", severity.as_str())), "{}", severity.as_str());
    }
}

/// That the page has a rule of this form.
fn rules_with_form(form: &str) {
    let known = RULES.blocks("toml").iter().any(|block| block.text.contains(&format!("{form} = ")));
    assert!(known, "no example of the form `{form}`");
}

#[test]
fn the_tables_of_the_rules_have_every_name_filter_test_and_function_of_templates_and_no_others() {
    assert_eq!(RULES.firsts("name"), words(rules::names()));
    let rows = RULES.table("filter");
    let rows: BTreeSet<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.replace('\u{0}', "|")).collect()).collect();
    let meant = |(name, what, example): &(&str, &str, &str)| {
        vec![format!("`{name}`"), (*what).to_owned(), format!("`{example}`")]
    };
    assert_eq!(rows, FILTERS.iter().map(meant).collect::<BTreeSet<_>>());
    let mut tests = RULES.paragraph("\nTests, after ");
    tests.remove("is");
    assert_eq!(tests, words(TESTS.iter().copied()));
    assert_eq!(RULES.paragraph("\nFunctions: "), words(FUNCTIONS.iter().copied()));
}

/// Each code that the sources of rule files can give, with its level.
fn codes() -> (Words, Words) {
    let mut text = String::new();
    for directory in ["src/rules", "src/rules/parse", "src/document"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    // Of the configuration, what is about rules.
    let of_config = std::fs::read_to_string(root().join("src/config/mod.rs")).unwrap();
    let (mut errors, mut warnings) = (Words::new(), Words::new());
    for (pattern, text, is_error) in [
        (r#"level: Level::Error,\s*code: "([a-z-]+)""#, &text, true),
        (r#"level: Level::Error,\s*code: "(test-failed)""#, &of_config, true),
        (r#"const MISSING: &str = "([a-z-]+)""#, &text, true),
        (r#"\berror(?:_at)?\(\s*"([a-z-]+)","#, &text, true),
        (r#"level: Level::Warning,\s*code: "([a-z-]+)""#, &text, false),
        (r#"\bwarn\(\s*"([a-z-]+)","#, &text, false),
        (r#"report\(\s*Level::Warning,\s*"([a-z-]+)""#, &text, false),
        (r#"Self::(?:Glob|Regex) => "(looks-like-[a-z]+)""#, &text, false),
        (r#"const NEVER: &str = "([a-z-]+)""#, &text, false),
        (r#"\("(unused-[a-z]+)","#, &of_config, false),
    ] {
        let found: Words = Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect();
        assert!(!found.is_empty(), "the sources are no longer written like that: {pattern}");
        if is_error { &mut errors } else { &mut warnings }.extend(found);
    }
    // Secrets stand in the configuration alone.
    errors.retain(|code| code != "not-a-secret");
    (errors, warnings)
}

#[test]
fn the_tables_of_the_rules_have_every_error_and_warning_and_no_others() {
    let (errors, warnings) = codes();
    assert_eq!(RULES.firsts("error"), errors);
    assert_eq!(RULES.firsts("warning"), warnings);
}

#[test]
fn every_shipped_file_is_written_by_init_and_stands_in_the_table() {
    let home = tempfile::tempdir().unwrap();
    let output = jobwatch(&["init", home.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let names = |directory: &Path| -> Words {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let files = entries.filter(|path| path.is_file());
        files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let recipes = |home: &Path| names(&home.join("rules/recipes"));
    assert_eq!(recipes(home.path()), recipes(&root()));
    let shipped = names(&root().join("rules"));
    assert_eq!(names(&home.path().join("rules")), shipped, "SHIPPED_RULES in src/cli/mod.rs lists what is shipped");
    for name in &shipped {
        let read = |directory: &Path| std::fs::read_to_string(directory.join("rules").join(name)).unwrap();
        assert_eq!(read(home.path()), read(&root()), "{name}");
    }
    let files: Words = shipped.into_iter().filter(|name| name.ends_with(".toml")).collect();
    assert_eq!(RULES.firsts("file"), files);
}

#[test]
fn every_shipped_rule_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let (set, report) = config::rules(&[root().join("rules")], None);
    assert!(report.is_empty(), "{:?}", report.lines().collect::<Vec<_>>());
    for rule in &set.rules {
        let expected: Vec<bool> = set
            .tests
            .iter()
            .filter(|test| test.rule == *rule.id())
            .flat_map(|test| &test.expect)
            .map(|wanted| wanted.fires)
            .collect();
        assert!(expected.contains(&true) && expected.contains(&false), "{}: {expected:?}", rule.id());
    }
}

fn jobwatch(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_jobwatch")).args(arguments).output().unwrap()
}

/// The arguments of a command line, if it is one of ours. Brackets say that something may be left out.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next()?.trim();
    let line = line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("jobwatch "))?;
    let line = line.split(" > ").next()?.split(" && ").next()?.replace(['[', ']'], "");
    let mut arguments = vec![String::new()];
    let mut quote = None;
    for c in line.trim().chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (' ', None) => arguments.push(String::new()),
            (c, _) => arguments.last_mut().unwrap().push(c),
        }
    }
    arguments.retain(|argument| !argument.is_empty());
    Some(arguments)
}

/// Every command line of a page: in its blocks, and in its text.
fn command_lines(document: &Document) -> Vec<Vec<String>> {
    let blocks = document.blocks("sh");
    let in_blocks = blocks.iter().flat_map(|block| block.text.lines()).map(ToOwned::to_owned);
    let prose: String = document.text.split("```").step_by(2).collect::<Vec<_>>().join("\n").replace(r"\|", "|");
    in_blocks.chain(code(&prose)).filter_map(|line| arguments(&line)).collect()
}

/// That the program reads these arguments. With `--help` it does nothing else.
fn is_read(arguments: &[String]) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
    let output = jobwatch(&arguments);
    let path: Vec<&str> = arguments.iter().copied().take_while(|word| !word.starts_with('-')).collect();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("jobwatch {}\n{}", path.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}

/// The commands below a path, by its help.
fn commands(path: &[String], found: &mut BTreeSet<Vec<String>>) {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = String::from_utf8(jobwatch(&arguments).stdout).unwrap();
    let below = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap());
    let names = below.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    if names.is_empty() {
        found.insert(path.to_vec());
    }
    names.into_iter().for_each(|name| commands(&[path, &[name.to_owned()]].concat(), found));
}

#[test]
fn every_command_line_in_the_documents_is_one_that_the_program_reads() {
    let mut count = 0;
    for document in [&*RULES, &*README, &*SYSTEMD, &*MONITORING] {
        for line in command_lines(document) {
            count += 1;
            assert_eq!(is_read(&line), Ok(()), "{}: {}", document.name, line.join(" "));
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn the_table_of_commands_has_every_command() {
    let mut all = BTreeSet::new();
    commands(&[], &mut all);
    let rows: Vec<Vec<String>> =
        README.firsts("command").iter().map(|line| arguments(&format!("jobwatch {line}")).unwrap()).collect();
    for row in &rows {
        assert_eq!(is_read(row), Ok(()), "{row:?}");
    }
    let missing: Vec<&Vec<String>> = all.iter().filter(|path| !rows.iter().any(|row| row.starts_with(path))).collect();
    assert_eq!(missing, [] as [&Vec<String>; 0]);
    let strange: Vec<&Vec<String>> = rows.iter().filter(|row| !all.iter().any(|path| row.starts_with(path))).collect();
    assert_eq!(strange, [] as [&Vec<String>; 0]);
}

#[test]
fn the_tables_of_the_configuration_have_every_key() {
    let schema = config::schema();
    let rows = README.table("table");
    let row = |head: &str| -> Words {
        let row = rows.iter().find(|row| row[0] == head).unwrap_or_else(|| panic!("no row `{head}`"));
        code(&row[1]).iter().map(|word| word.split(' ').next().unwrap().trim_matches('"').to_owned()).collect()
    };
    let lacks = |head: &[&str], keys: Words| {
        let here: Words = head.iter().flat_map(|head| row(head)).collect();
        let missing: Vec<&String> = keys.difference(&here).collect();
        assert_eq!(missing, [] as [&String; 0], "{head:?}");
    };
    lacks(&["`[agent]`"], keys(&schema, "/properties/agent"));
    lacks(&["`[retention]`"], keys(&schema, "/properties/retention"));
    lacks(&["`[admin]`"], keys(&schema, "/properties/admin"));
    lacks(&["`[window.NAME]`"], keys(&schema, "/properties/window/additionalProperties"));
    let alternatives = |place: &Value| -> Vec<Value> {
        let one = ["oneOf", "anyOf"].iter().find_map(|word| place[*word].as_array().cloned());
        one.unwrap_or_else(|| vec![place.clone()])
    };
    for source in alternatives(&schema["properties"]["source"]["items"]) {
        lacks(&["`[[source]]`, and `[source_defaults]` for all of them"], keys(&source, ""));
    }
    for receiver in alternatives(&schema["properties"]["receiver"]["additionalProperties"]) {
        let kind = receiver["properties"]["kind"]["const"].as_str().unwrap();
        lacks(&[&format!("`[receiver.NAME]` of kind `{kind}`"), "every receiver"], keys(&receiver, ""));
    }
}

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let rows = README.table("metric");
    let meant = |entry: &Entry| {
        let labels = if entry.labels.is_empty() { String::new() } else { format!("{{{}}}", entry.labels.join(",")) };
        vec![format!("`{}{labels}`", entry.name), entry.kind.as_str().to_owned(), entry.help.to_owned()]
    };
    assert_eq!(rows, CATALOGUE.iter().map(meant).collect::<Vec<_>>());
}

/// The metrics that a text asks for, with the labels it names of each.
fn asked(text: &str) -> BTreeMap<String, Words> {
    let mut found: BTreeMap<String, Words> = BTreeMap::new();
    let selector = Regex::new(r#"\b(jobwatch_[a-z_]+)(?:\{([^}]*)\})?"#).unwrap();
    let label = Regex::new(r#"(\w+)=~?\\?""#).unwrap();
    for one in selector.captures_iter(text) {
        let labels = one.get(2).map_or("", |labels| labels.as_str());
        let names = label.captures_iter(labels).map(|name| name[1].to_owned());
        found.entry(one[1].to_owned()).or_default().extend(names);
    }
    found
}

#[test]
fn the_dashboard_and_the_alert_rules_ask_for_metrics_and_labels_that_there_are() {
    let read = |name: &str| std::fs::read_to_string(root().join("systemd/monitoring").join(name)).unwrap();
    let entry = |name: &str| {
        CATALOGUE.iter().find(|entry| match entry.kind {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(entry.name))
            }
            Kind::Counter | Kind::Gauge => entry.name == name,
        })
    };
    for file in ["jobwatch-rules.yml", "jobwatch-rules-test.yml", "dashboard.json"] {
        for (name, labels) in asked(&read(file)) {
            let entry = entry(&name).unwrap_or_else(|| panic!("{file}: there is no {name}"));
            let known = words(entry.labels.iter().copied().chain(["job", "instance"]));
            assert!(labels.is_subset(&known), "{file}: {name} has {known:?}, not {labels:?}");
        }
    }
    let dashboard = read("dashboard.json");
    let shown = asked(&dashboard);
    for entry in CATALOGUE {
        let is_shown = shown.keys().any(|name| name.starts_with(entry.name));
        assert!(is_shown, "the dashboard does not show {}", entry.name);
    }
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    let ids: BTreeSet<i64> =
        parsed["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), parsed["panels"].as_array().unwrap().len());
}

#[test]
fn the_page_on_monitoring_has_every_alert_and_the_file_a_test_of_each() {
    let read = |name: &str| std::fs::read_to_string(root().join("systemd/monitoring").join(name)).unwrap();
    let rules = read("jobwatch-rules.yml");
    let names = |text: &str, key: &str| -> Words {
        let name = Regex::new(&format!(r"{key}: (\w+)")).unwrap();
        name.captures_iter(text).map(|found| found[1].to_owned()).collect()
    };
    let alerts = names(&rules, "alert");
    assert_eq!(MONITORING.firsts("alert"), alerts);
    let tests = read("jobwatch-rules-test.yml");
    assert_eq!(names(&tests, "alertname"), alerts);
    let rings = Regex::new(r"alertname: (\w+)\n\s+exp_alerts").unwrap();
    let rung: Words = rings.captures_iter(&tests).map(|found| found[1].to_owned()).collect();
    assert_eq!(rung, alerts, "each is seen to ring");
    // Prometheus's own tool, where it is installed; `./test` sees to that.
    let judge = |arguments: &[&str]| {
        let run = Command::new("promtool").args(arguments).current_dir(root().join("systemd/monitoring")).output();
        if let Ok(output) = run {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    };
    judge(&["check", "rules", "jobwatch-rules.yml"]);
    judge(&["test", "rules", "jobwatch-rules-test.yml"]);
}
