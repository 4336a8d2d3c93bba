//! The filters and tests of templates: a closed list, so that a name that is not here is refused when a rule is loaded.

use std::time::Duration;

use jiff::Timestamp as Instant;
use jiff::fmt::strtime;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::window::{no_zone, zone};
use crate::model::text;
use crate::model::time::{Timestamp, span};

/// Every filter: its name, what it does, an example.
///
/// Those for times take the texts of the API and of `transition`, `alert` and `now`. Text that is no time, such as one
/// that is missing, comes out as it went in: a message is never lost over it.
pub const FILTERS: &[(&str, &str, &str)] = &[
    ("in_zone", "a time on the clocks of a zone, perhaps in a strftime form", r#"now|in_zone("Asia/Shanghai")"#),
    ("ago", "how long ago a time was: `6 min ago`", "job.created_at|ago"),
    ("duration", "from one time to another, or a number of seconds: `2 h 3 min`", "job.created_at|duration(now)"),
    ("shorten", "at most so many characters, `…` where something was cut off", "reason|shorten(80)"),
    ("upper", "in capitals", "job.status|upper"),
    ("lower", "in small letters", "job.status|lower"),
    ("title", "each word with a capital", "job.type|title"),
    ("capitalize", "the first letter as a capital", "reason|capitalize"),
    ("trim", "without the blanks around it", "reason|trim"),
    ("replace", "each occurrence replaced", r#"reason|replace("\n", " ")"#),
    ("indent", "each line but the first moved to the right", "reason|indent(4)"),
    (
        "default",
        "another value for one that is missing; with `true` also for an empty one",
        r#"reason|default("no reason", true)"#,
    ),
    ("length", "how many characters or items", "reason|length"),
    ("split", "a list of its parts", r#"reason|split(": ")|length"#),
    ("lines", "a list of its lines", "reason|lines|length"),
    ("join", "a list in one text", r#"transition.skipped|join(", ")"#),
    ("first", "the first character or item", r#"reason|split(": ")|first"#),
    ("last", "the last character or item", r#"job.id|split("-")|last"#),
    ("list", "as a list", "transition.skipped|list"),
    ("sort", "in order", "transition.skipped|sort|join(\" \")"),
    ("unique", "each item once", "transition.skipped|unique|join(\" \")"),
    ("reverse", "from the end", "transition.skipped|reverse|join(\" \")"),
    ("map", "a list with a filter applied to each item", r#"transition.skipped|map("upper")|join(" ")"#),
    ("select", "the items that pass a test", r#"reason|lines|select("startingwith", "E")|join(" ")"#),
    ("reject", "the items that do not pass a test", r#"reason|lines|reject("startingwith", "E")|join(" ")"#),
    ("items", "the pairs of a table", "rule.labels|items|length"),
    ("dictsort", "the pairs of a table in order", "rule.labels|dictsort|length"),
    ("min", "the least item", "[alert.count, 3]|min"),
    ("max", "the greatest item", "[alert.count, 3]|max"),
    ("sum", "the items added up", "[alert.count, 3]|sum"),
    ("int", "as a whole number", r#""17"|int"#),
    ("float", "as a number", r#""1.5"|float"#),
    ("round", "to a whole number, or to so many places", "1.25|round(1)"),
    ("abs", "without its sign", "(alert.count - 3)|abs"),
    ("string", "as text", "alert.count|string"),
];

/// Every test: `{% if x is … %}`.
pub const TESTS: &[&str] = &[
    "defined",
    "undefined",
    "none",
    "string",
    "number",
    "integer",
    "float",
    "boolean",
    "sequence",
    "iterable",
    "mapping",
    "odd",
    "even",
    "divisibleby",
    "startingwith",
    "endingwith",
    "lower",
    "upper",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "in",
    "true",
    "false",
];

/// Every function.
pub const FUNCTIONS: &[&str] = &["range", "namespace"];

/// A form of a time is no longer than this.
const FORMAT_MAX: usize = 100;
/// The form of a time where none is given.
const FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Filters that are ours: they fail for what the author of a rule wrote, and for nothing that comes from a cloud.
pub(super) const OURS: &[&str] = &["in_zone", "ago", "duration", "shorten"];

/// Puts our filters beside minijinja's.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("in_zone", in_zone);
    environment.add_filter("ago", ago);
    environment.add_filter("duration", duration);
    environment.add_filter("shorten", shorten);
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Our filters are strict about what does not exist, as minijinja's are.
fn there(value: &Value) -> Result<&Value, Error> {
    match value.is_undefined() {
        true => Err(ErrorKind::UndefinedError.into()),
        false => Ok(value),
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(Timestamp::parse)
}

fn in_zone(value: &Value, zone_name: &str, format: Option<&str>) -> Result<Value, Error> {
    let zone = zone(zone_name).ok_or_else(|| {
        let (message, help) = no_zone(zone_name);
        refused(format!("{message}: {help}"))
    })?;
    let format = format.unwrap_or_default();
    if format.len() > FORMAT_MAX {
        return Err(refused(format!("the form of a time is longer than {FORMAT_MAX} bytes")));
    }
    let write = |instant: Instant| {
        let zoned = instant.to_zoned_datetime(zone.clone());
        if !format.is_empty() {
            return strtime::format(format, &zoned).map_err(|error| refused(format!("no form of a time: {error}")));
        }
        // Letters are read at a glance, and CST is four zones: the offset says which.
        let letters = strtime::format("%Z", &zoned).unwrap_or_default();
        let form = if letters.starts_with(char::is_alphabetic) { "%Z %:z" } else { "%:z" };
        strtime::format(format!("{FORMAT} {form}"), &zoned).map_err(|error| refused(error.to_string()))
    };
    match time(there(value)?).and_then(|time| Instant::from_microsecond(time.micros()).ok()) {
        Some(instant) => write(instant).map(Value::from),
        // A form that is none is refused whatever the value.
        None => write(Instant::UNIX_EPOCH).map(|_| value.clone()),
    }
}

fn ago(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let now = state.lookup("now").as_ref().and_then(time);
    let (Some(now), Some(then)) = (now, time(there(value)?)) else { return Ok(value.clone()) };
    let gap = now.since(then).max(then.since(now));
    // Nobody says "6 min 5 s ago".
    let gap = if gap.as_secs() < 3_600 { Duration::from_secs(gap.as_secs()) } else { gap };
    let gap = if (60..3_600).contains(&gap.as_secs()) { gap - Duration::from_secs(gap.as_secs() % 60) } else { gap };
    Ok(Value::from(match gap.as_secs() {
        0 => "just now".to_owned(),
        _ if then > now => format!("in {}", span(gap)),
        _ => format!("{} ago", span(gap)),
    }))
}

fn duration(value: &Value, other: Option<&Value>) -> Result<Value, Error> {
    if let Some(other) = other {
        let (Some(one), Some(two)) = (time(there(value)?), time(there(other)?)) else {
            return Ok(if time(value).is_some() { other } else { value }.clone());
        };
        return Ok(Value::from(span(one.since(two).max(two.since(one)))));
    }
    let seconds = match there(value)?.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.kind() == ValueKind::Number => f64::try_from(value.clone()).ok(),
        None => None,
    };
    let read = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds.abs()).ok());
    Ok(read.map_or_else(|| value.clone(), |read| Value::from(span(read))))
}

fn shorten(value: &Value, max: Option<u32>) -> Result<Value, Error> {
    let max = usize::try_from(max.unwrap_or(80)).unwrap_or(usize::MAX);
    if max == 0 {
        return Err(refused("at least one character must be left: shorten(80)"));
    }
    let text = there(value)?.to_string();
    match text.chars().nth(max) {
        // The mark is one of them.
        Some(_) => Ok(Value::from(text::shorten(&text, max - 1).into_owned())),
        None => Ok(Value::from(text)),
    }
}
