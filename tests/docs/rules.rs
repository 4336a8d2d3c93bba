//! The page on rules, and the rules that are shipped.

use std::collections::BTreeSet;
use std::path::Path;

use jobwatch::config;
use jobwatch::model::alert::Severity;
use jobwatch::rules::{self, FIELDS, FILTERS, FUNCTIONS, TESTS};
use regex::Regex;

use crate::commands::jobwatch;
use crate::page::{RULES, Words, code, keys, root, words};

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
