//! Rule files as JSON Schema, for editors: made of the words that the reader has. `tests/schema.rs` holds the two together.

use serde_json::{Value, json};

use super::Field;
use super::matcher::FIELDS;
use super::parse::{CHANGING, OPERATORS, PATTERN_MAX, SCHEMA, SEVERITIES, STATUSES, WHEN_KEYS, fits, tells_apart};
use super::window::DAYS;
use crate::document::schema::{
    about, document, duration, flag, integer, list, named, one_of, one_or_many, shaped, string, strings, table, word,
};

/// The schema of rule files.
pub fn schema() -> Value {
    let mut top = table(
        "Rules: which transitions matter, to whom, and what is said. Every rule sees every transition.",
        &["schema"],
        [
            ("schema", about("The version of this language.", json!({ "const": SCHEMA }))),
            ("defaults", table("What the rules of this file say unless they say otherwise.", &[], defaults())),
            ("rule", list("The rules.", &rule(), 0)),
        ],
    );
    top["if"] = json!({ "properties": { "defaults": { "required": ["notify"] } }, "required": ["defaults"] });
    top["else"] = json!({ "properties": { "rule": { "items": { "required": ["notify"] } } } });
    let mut schema = document("jobwatch rules", top);
    schema["$defs"] = json!({ "text": tests(Field::Type), "status": tests(Field::Status), "age": tests(Field::Age) });
    schema
}

/// The schema of `[window.NAME]`.
pub fn window() -> Value {
    let names: Vec<String> = DAYS.iter().map(|day| either_case(day)).collect();
    let day = format!("^ *({0}) *(- *({0}) *)?$", names.join("|"));
    let time = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$";
    let times = table(
        "On these days, from one time to another.",
        &["from", "to"],
        [
            ("days", one_or_many("Days or ranges of days, such as \"mon-fri\"; all, if left out.", &shape(&day), 0)),
            ("from", shaped("The beginning, such as \"08:00\".", time)),
            ("to", shaped("The end, not included; if it is not later than the beginning, on the next day.", time)),
        ],
    );
    table(
        "Weekly times; rules name them in `active`.",
        &["zone", "times"],
        [
            ("zone", string("A zone of the IANA database, such as \"Europe/Berlin\".")),
            ("times", list("When the window is open.", &times, 1)),
        ],
    )
}

/// A pattern for a word in capitals or not.
fn either_case(word: &str) -> String {
    word.chars().map(|c| format!("[{c}{}]", c.to_ascii_uppercase())).collect()
}

fn shape(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn any_of(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn defaults() -> [(&'static str, Value); 4] {
    [
        (
            "severity",
            word("How much it matters; \"warning\" if nothing is said.", SEVERITIES.iter().map(|(name, _)| *name)),
        ),
        ("notify", strings("Who is told: receivers of jobwatch.toml.")),
        ("cooldown", duration("A receiver that was told of a finding is not told of it again so soon.")),
        ("group", group()),
    ]
}

fn rule() -> Value {
    let [severity, notify, cooldown, group] = defaults();
    let mut rule = table(
        "A rule.",
        &["id", "when"],
        [
            (
                "id",
                shaped(
                    "A stable word: what is remembered of the rule is kept under it. Letters, digits, `-`, `_` and `.`.",
                    "^[A-Za-z0-9._-]{1,100}$",
                ),
            ),
            ("about", string("What it is about, in a few words.")),
            ("when", when()),
            ("match", clauses("Which jobs: all fields must hold, and in a list, one.")),
            ("except", clauses("Which jobs not: those for which all of these fields hold.")),
            severity,
            notify,
            (
                "key",
                fields(
                    "What a finding is about: one for each value of these together, [\"source\", \"id\"] if left out.",
                    1,
                ),
            ),
            group,
            cooldown,
            ("resolve", resolve()),
            ("active", strings("Windows of jobwatch.toml in which it may speak; always, if left out.")),
            ("then", strings("What is done about a new finding: follow-ups of jobwatch.toml.")),
            ("message", message()),
            ("runbook", string("Where it says what to do.")),
            ("labels", named("Words of your own, sent with the message.", None, json!({ "type": "string" }))),
            ("test", list("Stories that the rule is to be right about.", &test(), 0)),
        ],
    );
    let without_key =
        json!({ "anyOf": [{ "required": ["stays"] }, { "required": ["count"] }, { "required": ["new"] }] });
    rule["if"] = json!({ "properties": { "when": without_key }, "required": ["when"] });
    rule["then"] = json!({ "properties": { "key": false } });
    rule
}

/// Statuses, or `"*"` where `any` stands; `more` can stand among them.
fn statuses(words: &str, any: bool, more: &[&str]) -> Value {
    let named = any_of(&[STATUSES, more].concat());
    let mut schema = one_or_many(words, &named, 1);
    if any && let Value::Array(choices) = &mut schema["anyOf"] {
        choices.push(about("Any status, also one that the documents do not have.", json!({ "const": "*" })));
        choices.push(json!({ "type": "array", "items": { "const": "*" }, "minItems": 1, "maxItems": 1 }));
    }
    schema
}

/// One alternative for each form.
fn when() -> Value {
    let form = |(form, keys): &(&str, &[&'static str])| {
        let optional = ["from", "gaps", "per"];
        let required: Vec<&str> = keys.iter().copied().filter(|key| !optional.contains(key)).collect();
        table(form_about(form), &required, keys.iter().map(|key| (*key, when_key(key))))
    };
    about("Which steps: one of six forms.", json!({ "oneOf": WHEN_KEYS.iter().map(form).collect::<Vec<_>>() }))
}

fn form_about(form: &str) -> &'static str {
    match form {
        "stays" => "In the same status for long; told once for each stay.",
        "gone_from" => "No longer there, confirmed by the single-job call.",
        "changed" => "Something else than the status changed.",
        "new" => "A reason that was not seen before.",
        "count" => "Many in a short time.",
        _ => "A step from one status to another.",
    }
}

fn when_key(key: &str) -> Value {
    match key {
        "to" => statuses("Where the job went; \"*\" is any status.", true, &[]),
        "from" => {
            let words = "Where the job came from; if left out, anywhere, also first sight (\"unseen\").";
            statuses(words, true, &["unseen"])
        }
        "gaps" => word(
            "What becomes of a state of `from` that a job passed between two polls: \"allow\" fires also then.",
            ["allow", "strict"],
        ),
        "stays" => statuses("The statuses it stays in.", false, &[]),
        "for" => duration("How long, since the status was first seen."),
        "gone_from" => statuses("The status it was last seen in; \"*\" is any.", true, &[]),
        "changed" => fields_of("Which fields.", CHANGING.iter().map(|name| (*name, true)), 1),
        "new" => word("What is new.", ["reason_class"]),
        "memory" => duration("A reason is forgotten after this time."),
        "count" => integer("So many …", 2..10_001),
        "within" => duration("… within this time …"),
        "per" => fields("… that are equal in these.", 0),
        _ => Value::Bool(true),
    }
}

fn fields(words: &str, at_least: usize) -> Value {
    let known = FIELDS.iter().filter(|(_, field)| tells_apart(*field));
    let known = known.map(|(name, field)| (*name, !matches!(field, Field::Source | Field::ReasonClass)));
    fields_of(words, known, at_least)
}

/// Names of fields; before those of a job, `job.` may stand.
fn fields_of<'f>(words: &str, known: impl Iterator<Item = (&'f str, bool)> + Clone, at_least: usize) -> Value {
    let long = known.clone().filter(|(_, of_job)| *of_job).map(|(name, _)| format!("job.{name}"));
    let names: Vec<String> = known.map(|(name, _)| name.to_owned()).chain(long).collect();
    one_or_many(words, &json!({ "enum": names }), at_least)
}

fn clauses(words: &str) -> Value {
    let clause = |(name, field): &(&'static str, Field)| {
        let of = match field {
            Field::Status => "status",
            Field::Age => "age",
            Field::Id
            | Field::InstanceId
            | Field::ResourceId
            | Field::ResourceName
            | Field::Type
            | Field::Reason
            | Field::ReasonClass
            | Field::Source => "text",
        };
        let one = json!({ "$ref": format!("#/$defs/{of}") });
        (*name, one_or_many(field_about(*field), &one, 1))
    };
    table(words, &[], FIELDS.iter().map(clause))
}

fn field_about(field: Field) -> &'static str {
    match field {
        Field::Id => "The job's id.",
        Field::InstanceId => "The SWR instance.",
        Field::ResourceId => "The resource's id.",
        Field::ResourceName => "The resource's name.",
        Field::Type => "What the job does, such as \"CreateInstance\".",
        Field::Status => "Where it stands.",
        Field::Reason => "Why it failed.",
        Field::ReasonClass => "The reason with numbers, ids, times and addresses replaced: \"quota <n> exceeded\".",
        Field::Source => "The source it was seen in.",
        Field::Age => "The time since `created_at`: { older_than = \"30m\" } or { newer_than = \"2h\" }.",
    }
}

/// One test of a field: an exact value, or an object with one operator.
fn tests(field: Field) -> Value {
    let exact = match field {
        Field::Status => Some(about("Exactly this.", any_of(STATUSES))),
        Field::Age => None,
        Field::Id
        | Field::InstanceId
        | Field::ResourceId
        | Field::ResourceName
        | Field::Type
        | Field::Reason
        | Field::ReasonClass
        | Field::Source => Some(string("Exactly this.")),
    };
    let fitting = OPERATORS.iter().filter(|(name, _)| fits(field, name));
    let object = one_of("One operator.", fitting.map(|(name, _)| (*name, operand(name, exact.as_ref()))));
    json!({ "anyOf": exact.into_iter().chain([object]).collect::<Vec<_>>() })
}

fn operand(operator: &str, exact: Option<&Value>) -> Value {
    let pattern = json!({ "type": "string", "minLength": 1, "maxLength": PATTERN_MAX });
    let patterns = |words| one_or_many(words, &pattern, 1);
    match operator {
        "glob" => patterns("The whole value: `*` any text, `?` one ASCII character, `[ab]` one of, `{a,b}` either."),
        "regex" => patterns("Searched for in the value; the syntax of docs.rs/regex."),
        "prefix" => patterns("How it begins."),
        "suffix" => patterns("How it ends."),
        "contains" => patterns("What is in it."),
        "not" => one_or_many(
            "Anything but this; a field that is missing does not count.",
            exact.unwrap_or(&Value::Bool(true)),
            1,
        ),
        "exists" => flag("Whether the job has the field at all."),
        "older_than" => duration("Created longer ago than this."),
        "newer_than" => duration("Created less long ago than this."),
        _ => Value::Bool(true),
    }
}

fn group() -> Value {
    table(
        "Messages are gathered, and told as one.",
        &["by", "wait"],
        [("by", fields("What is equal within a group.", 0)), ("wait", duration("How long it gathers."))],
    )
}

fn resolve() -> Value {
    table(
        "When a finding is over; those who were told of it are told.",
        &["to"],
        [
            ("to", statuses("The status that ends it.", true, &[])),
            (
                "scope",
                word("Whose step: that of the same job, or of any job on the same resource.", ["job", "resource"]),
            ),
        ],
    )
}

fn message() -> Value {
    let mut message = table(
        "What is said: Jinja templates.",
        &[],
        [
            ("title", string("One line: \"{{ job.resource_name }}: {{ job.reason }}\".")),
            ("body", string("The text.")),
            ("body_file", string("A file with the text, relative to the rule file.")),
        ],
    );
    message["not"] = json!({ "required": ["body", "body_file"] });
    message
}

fn test() -> Value {
    let text = |words| string(words);
    let job = table(
        "A job.",
        &["id", "status"],
        [
            ("id", text("Its id.")),
            ("type", text("What it does.")),
            ("status", text("Where it stands; any word.")),
            ("reason", text("Why it failed.")),
            ("instance_id", text("The SWR instance.")),
            ("resource_id", text("The resource's id.")),
            ("resource_name", text("The resource's name.")),
            ("created_at", text("The start of the story, if left out.")),
            ("updated_at", text("The time of the step, if left out.")),
        ],
    );
    let step = table(
        "A whole listing.",
        &["at", "jobs"],
        [("at", duration("When, from the start of the story.")), ("jobs", list("All jobs there are.", &job, 0))],
    );
    let expectation = table(
        "What is to come of a step.",
        &["at", "fires"],
        [
            ("at", duration("The `at` of the step.")),
            ("fires", flag("Whether the rule fires there.")),
            ("title", string("The title of what it says.")),
        ],
    );
    table(
        "A story that the rule is to be right about.",
        &["name", "steps", "expect"],
        [
            ("name", string("What it shows.")),
            (
                "start",
                shaped("When it begins, for rules with hours.", "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}"),
            ),
            ("steps", list("The listings, in order; the first is the baseline.", &step, 1)),
            (
                "expect",
                list("What is to come of them; at a step that is not named, the rule says nothing.", &expectation, 1),
            ),
        ],
    )
}
