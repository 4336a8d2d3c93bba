//! JSON Schema for what [`Table`](super::Table) reads: each kind of value is described in one place, for editors.
//!
//! Two habits of Taplo, which the editors use, shape what is built from these: it does not look into `if` and `then` for
//! what can be written, and it shows nothing of what stands beside a `$ref`. So kinds are whole alternatives, and what
//! has words of its own is written out.

use std::ops::Range;

use serde_json::{Map, Value, json};

/// The dialect.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What [`duration`](super::duration) reads.
const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";

/// A schema as it is printed and written to files.
pub fn print(schema: &Value) -> String {
    format!("{schema:#}\n")
}

/// A whole schema.
pub fn document(title: &str, top: Value) -> Value {
    let mut schema = json!({ "$schema": DRAFT, "title": title });
    if let (Value::Object(schema), Value::Object(top)) = (&mut schema, top) {
        schema.extend(top);
    }
    schema
}

/// A schema with words about it, in place of its own if it has any.
pub fn about(words: &str, schema: Value) -> Value {
    let mut said = Map::new();
    said.insert("description".into(), words.into());
    if let Value::Object(mut entries) = schema {
        entries.shift_remove("description");
        said.extend(entries);
    }
    Value::Object(said)
}

/// One of these. A choice that is none is left out: what is wrong is then shown where it is wrong.
pub fn any_of(words: &str, choices: impl IntoIterator<Item = Value>) -> Value {
    let mut choices: Vec<Value> = choices.into_iter().collect();
    match choices.pop() {
        Some(only) if choices.is_empty() => about(words, only),
        last => {
            choices.extend(last);
            about(words, json!({ "anyOf": choices }))
        }
    }
}

/// A string.
pub fn string(words: &str) -> Value {
    about(words, json!({ "type": "string" }))
}

/// A string of a certain shape.
pub fn shaped(words: &str, pattern: &str) -> Value {
    about(words, json!({ "type": "string", "pattern": pattern }))
}

/// One of a set of words.
pub fn word<'w>(words: &str, known: impl IntoIterator<Item = &'w str>) -> Value {
    about(words, json!({ "enum": known.into_iter().collect::<Vec<_>>() }))
}

/// `true` or `false`.
pub fn flag(words: &str) -> Value {
    about(words, json!({ "type": "boolean" }))
}

/// A whole number.
pub fn integer(words: &str, range: Range<i64>) -> Value {
    about(words, json!({ "type": "integer", "minimum": range.start, "maximum": range.end - 1 }))
}

/// A duration.
pub fn duration(words: &str) -> Value {
    shaped(words, DURATION)
}

/// A list.
pub fn list(words: &str, item: &Value, at_least: usize) -> Value {
    about(words, bounded(item, at_least))
}

/// One, or a list of them.
pub fn one_or_many(words: &str, item: &Value, at_least: usize) -> Value {
    about(words, json!({ "anyOf": [item, bounded(item, at_least)] }))
}

fn bounded(item: &Value, at_least: usize) -> Value {
    match at_least {
        0 => json!({ "type": "array", "items": item }),
        _ => json!({ "type": "array", "items": item, "minItems": at_least }),
    }
}

/// A string or a list of strings.
pub fn strings(words: &str) -> Value {
    one_or_many(words, &json!({ "type": "string" }), 0)
}

/// A table of these keys and no others.
pub fn table<K: Into<String>>(
    words: &str,
    required: &[&str],
    properties: impl IntoIterator<Item = (K, Value)>,
) -> Value {
    let properties: Map<String, Value> = properties.into_iter().map(|(key, schema)| (key.into(), schema)).collect();
    let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        table["required"] = required.into();
    }
    about(words, table)
}

/// A table with one of these keys.
pub fn one_of<K: Into<String>>(words: &str, properties: impl IntoIterator<Item = (K, Value)>) -> Value {
    let mut table = table(words, &[], properties);
    table["minProperties"] = 1.into();
    table["maxProperties"] = 1.into();
    table
}

/// A table whose keys are names that look like `pattern`.
pub fn named(words: &str, pattern: Option<&str>, each: Value) -> Value {
    let mut table = json!({ "type": "object", "additionalProperties": each });
    if let Some(pattern) = pattern {
        table["propertyNames"] = json!({ "pattern": pattern });
    }
    about(words, table)
}

/// A secret; the whole schema has [`secrets`] under this name.
pub fn secret(words: &str) -> Value {
    about(words, json!({ "anyOf": [{ "$ref": "#/$defs/secret" }] }))
}

/// What every secret can be.
pub fn secrets() -> Value {
    let place = one_of(
        "Where the secret is.",
        [
            ("env", string("A variable of the environment.")),
            ("file", string("A file, relative to the configuration.")),
            ("credential", string("A systemd credential: the name in LoadCredential=NAME:PATH.")),
        ],
    );
    let inline = string("The secret itself; only with `allow_inline_secrets = true` in [agent].");
    json!({ "anyOf": [place, inline] })
}
