//! What people see of what is wrong: the exact print of several problems in several files, found in one run.
#![expect(clippy::unwrap_used, reason = "a report that is no list of problems should fail loudly")]

use std::path::Path;
use std::sync::Arc;

use annotate_snippets::Renderer;
use jobwatch::document::{File, Level, Report};
use jobwatch::model::name::{ReceiverName, SourceName};
use jobwatch::rules::{Surroundings, load};

fn report(files: &[(&str, &str)]) -> Report {
    let file = |(path, text): &(&str, &str)| Arc::new(File { path: (*path).into(), text: (*text).into() });
    let files: Vec<Arc<File>> = files.iter().map(file).collect();
    let body = |_: &Path| Ok("{{ job.resource_name }}\n\n{{ job.reson }}\n".to_owned());
    let (receivers, sources) = (["oncall", "ops-mail"].map(ReceiverName::from), ["prod"].map(SourceName::from));
    let around = Surroundings {
        read: &body,
        receivers: Some(&receivers),
        windows: Some(&[]),
        sources: Some(&sources),
        follow_ups: None,
    };
    load(&files, &around).1
}

/// The first problem of a rule with these lines: code, line, column, level and hint.
fn first(lines: &str) -> (String, u64, u64, Level, String) {
    let text = format!("schema = 1\n[[rule]]\nid = \"r\"\nnotify = \"oncall\"\n{lines}\n");
    let report = report(&[("r.toml", &text)]);
    let json = report.json();
    let level = if report.has_errors() { Level::Error } else { Level::Warning };
    assert_eq!(json.as_array().map(Vec::len), Some(1), "{lines}: {json:#}");
    let (text, number) =
        (|key: &str| json[0][key].as_str().unwrap().to_owned(), |key: &str| json[0][key].as_u64().unwrap());
    (text("code"), number("line"), number("column"), level, text("help"))
}

#[test]
fn several_problems_in_several_files_are_printed_in_one_run_each_with_its_place_and_its_mend() {
    let found = report(&[
        (
            "rules/creation.toml",
            r#"schema = 1

[[rule]]
id = "create-failed"
when = { to = "failed" }
match = { type = "CreateInstance", reason = { regex = "quota (exceeded" } }
notify = ["oncal"]
message = { title = "{{ job.resource_name }}", body_file = "body.md" }
cooldown = "10 min"

[[rules]]
id = "x"
"#,
        ),
        (
            "rules/other.toml",
            r#"schema = 1

[[rule]]
id = "ready"
when = { form = "Running", to = "Success" }
match = { resource_name = "prod-*", source = "prd" }
severity = "crit"
notify = "oncall"
"#,
        ),
    ]);
    assert_eq!(found.render(&Renderer::plain()), PRINTED);
    let first = found.lines().next().unwrap();
    assert_eq!(first, "rules/body.md:3:4: error: unknown variable `job.reson` (did you mean `job.reason`?)");
}

const PRINTED: &str = r#"error[template]: unknown variable `job.reson`
 --> rules/body.md:3:4
  |
3 | {{ job.reson }}
  |    ^^^^^^^^^
  |
  = help: did you mean `job.reason`?

error[unknown-status]: unknown status `failed`
 --> rules/creation.toml:5:15
  |
5 | when = { to = "failed" }
  |               ^^^^^^^^
  |
  = help: did you mean `Failed`?

error[pattern]: this regular expression does not work: unclosed group
 --> rules/creation.toml:6:62
  |
6 | match = { type = "CreateInstance", reason = { regex = "quota (exceeded" } }
  |                                                              ^
  |
  = help: syntax: docs.rs/regex; look-around and back-references do not exist

error[unknown-receiver]: there is no receiver `oncal`
 --> rules/creation.toml:7:11
  |
7 | notify = ["oncal"]
  |           ^^^^^^^
  |
  = help: did you mean `oncall`?

error[not-a-duration]: `cooldown` is not a duration: `10 min`
 --> rules/creation.toml:9:12
  |
9 | cooldown = "10 min"
  |            ^^^^^^^^
  |
  = help: did you mean "10m"?

error[unknown-key]: unknown key `rules`
  --> rules/creation.toml:11:3
   |
11 | [[rules]]
   |   ^^^^^
   |
   = help: did you mean `rule`?

error[unknown-key]: unknown key `form`
 --> rules/other.toml:5:10
  |
5 | when = { form = "Running", to = "Success" }
  |          ^^^^
  |
  = help: did you mean `from`?

warning[looks-like-glob]: a plain value is exact, and this looks like a glob
 --> rules/other.toml:6:27
  |
6 | match = { resource_name = "prod-*", source = "prd" }
  |                           ^^^^^^^^
  |
  = help: did you mean { glob = "prod-*" }?

warning[unknown-source]: there is no source `prd`
 --> rules/other.toml:6:46
  |
6 | match = { resource_name = "prod-*", source = "prd" }
  |                                              ^^^^^
  |
  = help: did you mean `prod`?

error[unknown-word]: `severity` cannot be `crit`
 --> rules/other.toml:7:12
  |
7 | severity = "crit"
  |            ^^^^^^
  |
  = help: did you mean `critical`?

"#;

#[test]
fn what_is_hardly_meant_is_a_warning_that_says_how_to_write_it() {
    let when = |lines: &str| format!("when = {{ to = \"Failed\" }}\n{lines}");
    let warned = [
        (r#"match = { type = "Create*" }"#, "looks-like-glob", 18, r#"did you mean { glob = "Create*" }?"#),
        (
            r#"match = { reason = "quota.*exceeded" }"#,
            "looks-like-regex",
            20,
            r#"did you mean { regex = "quota.*exceeded" }?"#,
        ),
        (
            r#"match = { type = ["Resize", "Create|Delete"] }"#,
            "looks-like-regex",
            29,
            r#"did you mean { regex = "Create|Delete" }?"#,
        ),
        (
            r#"match = { resource_name = { prefix = "prod-*" } }"#,
            "looks-like-glob",
            38,
            r#"leave the `*` out: { prefix = "prod-" }"#,
        ),
        (
            r#"match = { reason = { contains = '^quota \d' } }"#,
            "looks-like-regex",
            33,
            r#"did you mean { regex = '^quota \d' }?"#,
        ),
        (
            r#"match = { type = { not = "Create*" } }"#,
            "looks-like-glob",
            26,
            r#"did you mean except = { type = { glob = "Create*" } }?"#,
        ),
        (
            r#"match = { reason = { regex = 'no\.room' } }"#,
            "plain-text",
            30,
            r#"{ contains = "no.room" } says the same"#,
        ),
        (r#"match = { type = { glob = "Create" } }"#, "plain-text", 27, r#"a plain value says the same: "Create""#),
        (
            r#"match = { resource_name = { glob = "prod-.*" } }"#,
            "looks-like-regex",
            36,
            r#"did you mean { regex = "prod-.*" }?"#,
        ),
        (
            r#"match = { resource_name = { regex = "prod-*" } }"#,
            "looks-like-glob",
            42,
            r#"did you mean { glob = "prod-*" }? any text is `.*` in a regular expression"#,
        ),
        (r#"match = { status = "Success" }"#, "never-fires", 20, "name the status in `when` alone"),
        (r#"match = { status = { not = "Failed" } }"#, "never-fires", 20, "name the status in `when` alone"),
        (r#"except = { status = { glob = "F*" } }"#, "never-fires", 21, "name the status in `when` alone"),
        (
            "match = { type = [\"a\", \"b\"] }\nexcept = { type = { not = \"c\" } }",
            "never-fires",
            19,
            "drop one of the two, or narrow `except`",
        ),
        (
            "match = { reason = { contains = \"x\" } }\nexcept = { reason = { exists = true } }",
            "never-fires",
            21,
            "drop one of the two, or narrow `except`",
        ),
        (r#"match = { source = { glob = "eu-*" } }"#, "never-fires", 20, "the sources: prod"),
        (r#"except = { source = ["prod", "prd"] }"#, "unknown-source", 30, "did you mean `prod`?"),
        (r#"match = { id = { exists = false } }"#, "exists", 16, "remove it"),
        (
            r#"match = { reason = ["x", { exists = true }] }"#,
            "says-nothing",
            20,
            "remove `exists = true`, or the others",
        ),
        (
            r#"match = { type = [{ not = "a" }, { not = "b" }] }"#,
            "says-nothing",
            18,
            r#"name all that are unwanted in one: { not = ["a", "b"] }"#,
        ),
        (r#"match = { type = ["a", "b", "a"] }"#, "twice", 18, "remove one, or name what was meant"),
        (r#"key = ["source", "id", "source"]"#, "twice", 24, "remove one, or name what was meant"),
        (r#"active = []"#, "empty", 10, "name a window, or remove it"),
    ];
    for (lines, code, column, help) in warned {
        let line = 5 + lines.lines().count() as u64;
        assert_eq!(first(&when(lines)), (code.to_owned(), line, column, Level::Warning, help.to_owned()), "{lines}");
    }
    let other_forms = [
        (
            r#"when = { stays = "Success", for = "1h" }"#,
            "stays-for-ever",
            18,
            r#"when = { to = "Success" } fires at once"#,
        ),
        (r#"when = { to = "Success", new = "reason_class", memory = "1d" }"#, "never-fires", 15, r#"to = "Failed""#),
        (r#"when = { to = ["Failed", "Failed"] }"#, "twice", 26, "remove one, or name what was meant"),
        (
            r#"when = { from = "Failed", to = "Failed", gaps = "strict" }"#,
            "never-fires",
            17,
            "when = { stays = …, for = … }",
        ),
    ];
    for (lines, code, column, help) in other_forms {
        assert_eq!(first(lines), (code.to_owned(), 5, column, Level::Warning, help.to_owned()), "{lines}");
    }
}

#[test]
fn what_is_well_meant_is_not_warned_of() {
    let sound = [
        r#"match = { reason = "why? [SWR.0001] a | b" }"#,
        r#"match = { resource_name = { glob = 'prod-\*' } }"#,
        r#"match = { resource_name = { regex = '^prod-.*-eu$' } }"#,
        r#"match = { reason = { regex = 'quota *exceeded' } }"#,
        r#"match = { reason = { regex = '(?i)quota' } }"#,
        r#"match = { resource_id = [{ exists = false }, "x"] }"#,
        r#"match = { reason_class = "quota <n> exceeded" }"#,
        "match = { type = { glob = \"Create*\" } }\nexcept = { type = \"CreateInstance\" }",
        "match = { status = \"Failed\" }\nexcept = { status = \"Failed\", type = \"a\" }",
    ];
    for lines in sound {
        let text =
            format!("schema = 1\n[[rule]]\nid = \"r\"\nnotify = \"oncall\"\nwhen = {{ to = \"Failed\" }}\n{lines}\n");
        let found = report(&[("r.toml", &text)]);
        assert!(found.is_empty(), "{lines}: {:#}", found.json());
    }
}

#[test]
fn a_mistake_is_one_error_with_the_mend() {
    let refused = [
        (r#"wehn = { to = "Failed" }"#, "unknown-key", 1, "did you mean `when`?"),
        (r#"when = { stay = "Running", for = "1h" }"#, "unknown-key", 10, "did you mean `stays`?"),
        (r#"when = { too = "Failed" }"#, "unknown-key", 10, "did you mean `to`?"),
        (r#"when = { for = "1h" }"#, "missing-key", 8, r#"in which status? stays = "Running""#),
        (r#"when = { to = "Failed", cuont = 5, within = "1m" }"#, "unknown-key", 25, "did you mean `count`?"),
        (r#"when = "Failed""#, "wrong-type", 8, "a table belongs here"),
        (r#"when = { stays = "Running", for = 10 }"#, "wrong-type", 35, r#"a duration such as "30s" belongs here"#),
        (r#"when = { stays = "Running", for = "10" }"#, "not-a-duration", 35, r#"the unit is missing: "10s", "10m""#),
        (r#"when = { stays = "Running", for = "1h30m" }"#, "not-a-duration", 35, r#"did you mean "90m"?"#),
        (r#"when = { stays = "Running", for = "900d" }"#, "out-of-range", 35, "at least 1s, less than 366d"),
        (
            r#"when = { from = "Running", to = "Failed", gaps = true }"#,
            "wrong-type",
            50,
            "a word (allow, strict) belongs here",
        ),
    ];
    for (lines, code, column, help) in refused {
        assert_eq!(first(lines), (code.to_owned(), 5, column, Level::Error, help.to_owned()), "{lines}");
    }
    let clauses = [
        (r#"{ starts_with = "a" }"#, "unknown-key", "did you mean `prefix`?"),
        (r#"{ matches = "a" }"#, "unknown-key", "did you mean `regex`?"),
        (
            r#"{ equals = "a" }"#,
            "unknown-key",
            "a plain value is exact, a list is any of them: type = \"CreateInstance\"",
        ),
        (r#"{ not = [] }"#, "empty", "put something in it, or remove it"),
        (
            r#"{ regex = "*a" }"#,
            "pattern",
            "did you mean { glob = \"*a\" }? (syntax: docs.rs/regex; look-around and back-references do not exist)",
        ),
    ];
    for (test, code, help) in clauses {
        let (found, line, _, level, said) =
            first(&format!("when = {{ to = \"Failed\" }}\nmatch = {{ type = {test} }}"));
        assert_eq!((&*found, line, level, &*said), (code, 6, Level::Error, help), "{test}");
    }
}

#[test]
fn a_rule_that_says_the_same_as_another_to_the_same_receivers_is_warned_of_with_the_place_of_the_first() {
    let rule = |id: &str, more: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nwhen = {{ to = \"Failed\" }}\nmatch = {{ type = {{ glob = \"a*\" }} }}\n{more}\n"
        )
    };
    let a = format!("schema = 1\n{}", rule("a", "notify = [\"oncall\", \"ops-mail\"]"));
    let b = format!("schema = 1\n{}", rule("b", "notify = [\"ops-mail\", \"oncall\"]\nseverity = \"info\""));
    let found = report(&[("a.toml", &a), ("b.toml", &b)]);
    let said: Vec<String> = found.lines().collect();
    let wanted = "b.toml:3:6: warning: this rule fires whenever `a` (a.toml:3) does, and tells the same receivers \
                  (change what it is to look at, or remove one of the two)";
    assert_eq!(said, [wanted]);
    let other = b.replace("\"oncall\"]", "\"oncall\"]\nexcept = { reason = \"x\" }");
    assert!(report(&[("a.toml", &a), ("b.toml", &other)]).is_empty());
}
