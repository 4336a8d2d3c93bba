//! `jobwatch.toml` as JSON Schema, for editors; each kind of source and receiver brings its own keys.
//! `tests/schema.rs` holds it and the reader together.

use serde_json::{Map, Value, json};

use crate::cloud::Credential;
use crate::deliver::{self, Carrier, act};
use crate::document::schema::{
    about, any_of, document, duration, flag, integer, list, named, secret, secrets, shaped, string, strings, table,
    word,
};
use crate::{rules, source};

/// What names of sources, receivers and windows look like.
const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

/// The schema of the configuration.
pub fn schema() -> Value {
    let receivers = deliver::KINDS.iter().map(receiver).collect::<Vec<_>>();
    let receiver = about("Somebody who hears.", json!({ "oneOf": receivers }));
    let sources = alternatives("A project whose jobs are watched.", &["name"]);
    let mut top = table(
        "What is watched, and who hears.",
        &["source"],
        [
            ("agent", agent()),
            ("admin", admin()),
            ("retention", retention()),
            ("source_defaults", alternatives("What every source says unless it says otherwise.", &[])),
            ("source", list("What is watched.", &sources, 1)),
            ("receiver", named("Who hears: [receiver.NAME].", Some(NAME), receiver)),
            (
                "follow_up",
                named("What can be done: [follow_up.NAME]; rules name it in `then`.", Some(NAME), follow_up()),
            ),
            ("window", named("Weekly times: [window.NAME].", Some(NAME), rules::window_schema())),
        ],
    );
    // What a source needs may also stand in the defaults; that, only the reader can tell.
    let whole = any_of("What nothing else says.", source::KINDS.iter().map(needs));
    top["if"] = json!({ "required": ["source_defaults"] });
    top["else"] = json!({ "properties": { "source": { "items": whole } } });
    let mut schema = document("jobwatch.toml", top);
    schema["$defs"] = json!({ "secret": secrets(), "credentials": Credential::schemas() });
    schema
}

fn agent() -> Value {
    let mut agent = table(
        "The agent itself.",
        &[],
        [
            (
                "state",
                shaped(
                    "Where the state is kept: \"sqlite:PATH\" for one agent, or \"postgres://USER@HOST/DATABASE\" for several replicas.",
                    "^(sqlite:.|postgres(ql)?://.)",
                ),
            ),
            ("state_password", secret("The password of the state's user, where there is a database.")),
            ("state_connections", integer("How many connections to the database each replica may have.", 2..101)),
            ("lease", duration("How long a source stays with a replica that is not heard of.")),
            ("rules", strings("Directories or files of rules.")),
            ("notify", strings("Who hears of the agent's own troubles.")),
            (
                "reload",
                word("Whether rules are read anew only when asked, or when their files change.", ["ask", "watch"]),
            ),
            ("blind_after", duration("No complete listing of a source for this long is an alert.")),
            ("heartbeat", heartbeat()),
            ("allow_inline_secrets", flag("Whether a secret may stand in the file itself.")),
            ("requests_per_second", integer("How many requests all sources together send.", 1..100_001)),
            ("requests_per_second_per_host", integer("How many of them go to one host.", 1..100_001)),
        ],
    );
    let needing = ["state_password", "state_connections", "lease"].map(|key| json!({ "required": [key] }));
    agent["if"] = json!({ "anyOf": needing });
    agent["then"] = json!({ "required": ["state"], "properties": { "state": { "pattern": "^postgres" } } });
    agent
}

fn heartbeat() -> Value {
    table(
        "An address outside that is asked at intervals, while every source is seen and nothing is overdue, and rings when that stops.",
        &["url"],
        [
            (
                "url",
                secret("What is asked, with GET; https. A secret, because who knows it can pretend that all is well."),
            ),
            ("every", duration("The time between two requests.")),
            ("overdue_after", duration("A delivery that has been owed for this long is overdue.")),
            ("timeout", duration("How long one request may take.")),
            ("allow_targets", strings("Networks it may connect to that are loopback, private or link-local.")),
            ("ca_file", string("Certificates (PEM) to trust instead of the system's.")),
            proxy(),
        ],
    )
}

fn admin() -> Value {
    table(
        "The admin interface; without this table there is none.",
        &[],
        [
            (
                "listen",
                shaped(
                    "Address and port; \"\" switches it off.",
                    r"^$|^[0-9.]+:[0-9]{1,5}$|^\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}$",
                ),
            ),
            ("token", secret("What a request must bear; needed where others than this machine can ask.")),
        ],
    )
}

fn retention() -> Value {
    table(
        "How long history is kept: steps, deliveries that ended, and what is over. What is needed is kept longer.",
        &[],
        [
            ("history", duration("What is older is forgotten; at least a day.")),
            (
                "size_max",
                shaped(
                    "Of a larger state, the oldest history is forgotten first: \"1GB\" (or MB, TB), or \"unlimited\".",
                    "^(unlimited|[0-9]+(MB|GB|TB))$",
                ),
            ),
        ],
    )
}

/// A source of each kind. The kind itself may come from the defaults.
fn alternatives(words: &str, required: &[&str]) -> Value {
    let one = |kind: &source::Kind| {
        let name = required.contains(&"name").then(|| ("name", shaped("A short word for it.", NAME)));
        let first = name.into_iter().chain([kind_of(kind.name, kind.about)]);
        let (own, _) = parts(&(kind.schema)());
        table(kind.about, required, first.map(owned).chain(own).chain(common_of_sources().map(owned)))
    };
    any_of(words, source::KINDS.iter().map(one))
}

/// What a source of this kind must say, when nothing says it for all.
fn needs(kind: &source::Kind) -> Value {
    let (_, mut needs) = parts(&(kind.schema)());
    let required = needs.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    needs.insert("required".into(), std::iter::once("kind".into()).chain(required).collect());
    match needs.get_mut("properties") {
        Some(properties) => properties["kind"] = json!({ "const": kind.name }),
        None => drop(needs.insert("properties".into(), json!({ "kind": { "const": kind.name } }))),
    }
    Value::Object(needs)
}

fn receiver(kind: &deliver::Kind) -> Value {
    let (own, needs) = parts(&(kind.schema)());
    let required = needs.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let required: Vec<&str> = std::iter::once("kind").chain(required).collect();
    let first = [kind_of(kind.name, kind.about)].map(owned);
    let proxy = (kind.carrier == Carrier::Http).then(|| owned(proxy()));
    let all = first.into_iter().chain(own).chain(common_of_receivers().map(owned)).chain(proxy);
    let mut receiver = table(kind.about, &required, all);
    for (word, demand) in needs.iter().filter(|(word, _)| *word != "required") {
        receiver[word] = demand.clone();
    }
    receiver
}

/// A follow-up of each kind, in each of its forms.
fn follow_up() -> Value {
    let one = |kind: &act::Kind| {
        let form = |schema: Value| {
            let (own, needs) = parts(&schema);
            let required = needs.get("required").and_then(Value::as_array).into_iter().flatten();
            let required: Vec<&str> = std::iter::once("kind").chain(required.filter_map(Value::as_str)).collect();
            let first = [kind_of(kind.name, kind.about)].map(owned);
            table(kind.about, &required, first.into_iter().chain(own).chain(common_of_follow_ups().map(owned)))
        };
        (kind.schema)().into_iter().map(form).collect::<Vec<_>>()
    };
    let forms: Vec<Value> = act::KINDS.iter().flat_map(one).collect();
    about("Something that can be done.", json!({ "oneOf": forms }))
}

fn common_of_follow_ups() -> [(&'static str, Value); 4] {
    [
        (
            "mode",
            word(
                "Only say what would be done, do it, or do it when somebody has approved it; \"dry_run\" if left out.",
                ["dry_run", "auto", "approve"],
            ),
        ),
        ("limit", shaped("How often it is done without somebody's word: \"2/h\" (or /m, /d).", "^[0-9]+/[mhd]$")),
        ("wait", duration("How long after the match it is its turn.")),
        ("timeout", duration("The longest it may take.")),
    ]
}

/// A kind's own keys, and what it demands of them.
fn parts(schema: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let mut rest = schema.as_object().cloned().unwrap_or_default();
    let own = rest.shift_remove("properties");
    for word in ["type", "description", "additionalProperties"] {
        rest.shift_remove(word);
    }
    (own.and_then(|own| own.as_object().cloned()).unwrap_or_default(), rest)
}

fn owned((key, schema): (&str, Value)) -> (String, Value) {
    (key.to_owned(), schema)
}

fn kind_of(name: &str, words: &str) -> (&'static str, Value) {
    ("kind", about(words, json!({ "const": name })))
}

fn proxy() -> (&'static str, Value) {
    let words = "The HTTP proxy that requests go through: http://host:port. With a user and a password it is a secret.";
    ("proxy", secret(words))
}

fn common_of_sources() -> [(&'static str, Value); 9] {
    let quiet = word("What stands in the first listing is recorded and not told.", ["quiet"]);
    let within = table(
        "What stands in the first listing is told if it is recent.",
        &["notify_if_updated_within"],
        [("notify_if_updated_within", duration("How recent."))],
    );
    [
        ("poll_every", duration("How often it is looked at.")),
        ("timeout", duration("The longest one request may take.")),
        ("ca_file", string("Certificates (PEM) to trust instead of the system's.")),
        proxy(),
        ("gone_after", integer("So many whole listings without a job, and a 404, make it gone.", 1..101)),
        ("baseline", about("What becomes of the first listing.", json!({ "anyOf": [quiet, within] }))),
        (
            "strategy",
            word(
                "How a listing is read: whole at every poll, briefly between whole ones, or as its length suggests.",
                ["full", "incremental", "auto"],
            ),
        ),
        ("full_every", duration("How often it is read whole at least.")),
        ("vanish_percent_max", integer("More jobs than this missing at once are a fault of the source.", 1..101)),
    ]
}

fn common_of_receivers() -> [(&'static str, Value); 7] {
    let retry = table(
        "When a delivery is tried again.",
        &[],
        [
            ("first", duration("After the first attempt.")),
            ("max", duration("The longest pause.")),
            ("give_up_after", duration("After this it is given up, and kept.")),
            ("escalate_after", duration("After this a copy of what is critical goes to the fallback.")),
        ],
    );
    [
        ("timeout", duration("The longest one attempt may take.")),
        ("retry", retry),
        ("fallback", string("The receiver that hears at once when this one refuses, and of what was given up.")),
        ("allow_targets", strings("Networks it may connect to that are loopback, private or link-local.")),
        ("ca_file", string("Certificates (PEM) to trust instead of the system's.")),
        (
            "rate",
            shaped("How many messages it gets: \"10/m\" (or /s, /h), or \"unlimited\".", "^(unlimited|[0-9]+/[smh])$"),
        ),
        ("concurrency", integer("So many attempts may be under way at once.", 1..65)),
    ]
}
