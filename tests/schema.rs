//! The JSON Schemas and the readers say the same: about every key, every word, and whether a file is right.
//!
//! While a file is read, it is noted which keys are asked of each table. The schema is followed along the same file, and
//! must have these keys and no others. That the files here exercise everything is tested too.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use boon::{Compiler, Schemas};
use jobwatch::config::{self, Purpose};
use jobwatch::deliver::{self, Carrier};
use jobwatch::document::{Asked, File, Notes, Report, schema::print};
use jobwatch::rules::{self, Surroundings};
use serde_json::{Value, json};

/// What the validator calls a schema.
const PLACE: &str = "https://jobwatch.test/schema";
/// What a schema cannot know: other tables, the machine, the inside of texts.
const BEYOND: &[&str] =
    &["ca-file", "network", "parameters", "pattern", "proxy", "secret", "token", "unknown-receiver", "url", "zone"];

/// Every key of a rule file, every form, every operator.
const RULES: &[&str] = &[
    r#"
schema = 1

[defaults]
severity = "info"
notify = ["oncall"]
cooldown = "10m"
group = { by = ["source", "job.type"], wait = "20s" }

[[rule]]
id = "everything"
about = "Instance creation failed"
when = { from = ["Running", "unseen"], to = "Failed", gaps = "allow" }
severity = "critical"
notify = "oncall"
key = ["source", "job.id"]
group = { by = [], wait = "20s" }
cooldown = "10m"
resolve = { to = "Success", scope = "resource" }
active = ["office"]
then = ["act"]
message = { title = "{{ job.id }}", body = "{{ reason }}" }
runbook = "https://wiki.example.org/x"
labels = { team = "registry" }

[[rule.test]]
name = "a story"
start = "2026-11-24T09:00:00+08:00"
steps = [
  { at = "0s", jobs = [] },
  { at = "30s", jobs = [{ id = "a", type = "b", status = "Strange", reason = "c", instance_id = "d", resource_id = "e", resource_name = "f", created_at = "g", updated_at = "h" }] },
]
expect = [{ at = "30s", fires = true, title = "x" }]
"#,
    r#"
schema = 1
[[rule]]
id = "file"
notify = ["oncall"]
when = { to = "*" }
message = { body_file = "body.md" }
match = { id = "a", instance_id = { glob = "a*" }, resource_id = { regex = ["^a", "b$"] }, resource_name = ["x", { prefix = "y" }], type = { suffix = "z" }, status = ["Failed", { not = ["Success"] }], reason = { contains = "q" }, reason_class = { not = "r" }, source = { exists = true }, age = [{ older_than = "30m" }, { newer_than = "2h" }, { exists = false }] }
except = { id = [{ contains = ["x", "y"] }, "b"], instance_id = "a", resource_id = "a", resource_name = "a", type = "a", status = { exists = true }, reason = "a", reason_class = "a", source = "a", age = { newer_than = "1s" } }
"#,
    r#"
schema = 1
[[rule]]
id = "changed"
notify = ["oncall"]
when = { changed = ["reason", "job.type"] }
match = { status = [{ prefix = "R" }, { suffix = "g" }, { regex = "u" }, { contains = ["n"] }, { glob = "P*" }] }
"#,
    r#"
schema = 1
[defaults]
notify = ["oncall"]
[[rule]]
id = "stays"
when = { stays = ["Creating", "Running"], for = "30m" }
[[rule]]
id = "gone"
when = { gone_from = "*" }
key = "type"
[[rule]]
id = "burst"
when = { to = ["Failed"], count = 10, within = "10m", per = ["source"] }
[[rule]]
id = "new"
when = { to = ["*"], new = "reason_class", memory = "30d" }
"#,
];

/// Every key of the configuration, every kind. Most name certificates: to read the system's takes long.
const CONFIG: &[&str] = &[
    r#"
[agent]
state = "sqlite:state.db"
rules = ["rules"]
notify = ["oncall", "mail"]
blind_after = "5m"
allow_inline_secrets = true
reload = "watch"
heartbeat = { url = { file = "url" }, every = "1m", overdue_after = "15m", timeout = "15s", allow_targets = ["10.0.0.0/8"], ca_file = "ca.pem", proxy = { file = "proxy" } }
requests_per_second = 400
requests_per_second_per_host = 200

[retention]
history = "90d"
size_max = "1GB"

[admin]
listen = "127.0.0.1:9477"
token = "0123456789abcdef0123456789abcdef"

[[source]]
name = "prod"
kind = "swr"
region = "ap-southeast-3"
project_id = "p1"
poll_every = "30s"
timeout = "40s"
ca_file = "ca.pem"
proxy = { file = "proxy" }
gone_after = 3
baseline = { notify_if_updated_within = "15m" }
strategy = "auto"
full_every = "10m"
vanish_percent_max = 50
sts_endpoint = "https://sts.example.org"
credentials = { kind = "ak_sk", access_key = { file = "secret" }, secret_key = "inline", security_token = { env = "JOBWATCH_NO_SUCH_VARIABLE" } }

[receiver.oncall]
kind = "webhook"
url = { file = "url" }
ca_file = "ca.pem"
[receiver.mail]
kind = "email"
server = "smtp://mail.example.org:587"
from = "jobwatch <jobwatch@example.org>"
to = "oncall@example.org"
ca_file = "ca.pem"
[window.office]
zone = "Europe/Berlin"
times = [{ days = ["mon-fri", "Sun"], from = "08:00", to = "24:00" }, { days = "sat", from = "22:00", to = "06:00" }]
"#,
    r#"
[agent]
state = "postgres://jobwatch@db.example.org/jobwatch?sslmode=verify-full&sslrootcert=ca.pem"
state_password = { file = "secret" }
state_connections = 8
lease = "15s"

[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
baseline = "quiet"
credentials = { kind = "password", user = "u", domain = "d", password = { credential = "secret" }, iam_endpoint = "https://iam.example.org" }
"#,
    r#"
[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
credentials = { kind = "metadata", endpoint = "http://127.0.0.1:1" }
"#,
    r#"
[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
credentials = { kind = "auto", endpoint = "http://127.0.0.1:1" }
"#,
    r#"
[agent]
allow_inline_secrets = true
[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
credentials = { kind = "token", token = "t" }

[receiver.oncall]
kind = "webhook"
url = "https://example.org/x"
secret = { file = "key" }
headers = { X-Team = "registry" }
format = "plain"
timeout = "15s"
retry = { first = "5s", max = "1h", give_up_after = "3d", escalate_after = "3m" }
fallback = "rotating"
allow_targets = ["127.0.0.0/8"]
ca_file = "ca.pem"
rate = "10/m"
concurrency = 8

[receiver.rotating]
kind = "webhook"
url = "https://example.org/x"
secret = [{ file = "key" }, { file = "key" }]
signature = "standard"
ca_file = "ca.pem"
rate = "unlimited"
"#,
    r#"
[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
credentials = { kind = "token", token = { file = "secret" } }

[receiver.mail]
kind = "email"
server = "smtps://mail.example.org:465"
user = "u"
password = { file = "secret" }
auth = "xoauth2"
from = "jobwatch@example.org"
reply_to = "x@example.org"
to = ["oncall@example.org", "b@example.org"]
timeout = "15s"
retry = { first = "5s", max = "1h", give_up_after = "3d", escalate_after = "3m" }
fallback = "other"
allow_targets = "10.1.0.0/16"
ca_file = "ca.pem"
rate = "1/s"
[receiver.other]
kind = "webhook"
url = { file = "url" }
ca_file = "ca.pem"
"#,
];

/// Every kind of follow-up in every form.
const FOLLOW_UPS: &str = r#"
[[source]]
name = "a"
kind = "swr"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
ca_file = "ca.pem"
credentials = { kind = "token", token = { file = "secret" } }

[follow_up.delete]
kind = "swr"
operation = "delete_instance"
delete_obs = false
delete_dns = true
mode = "approve"
limit = "2/h"
wait = "5m"
timeout = "30s"
[follow_up.create]
kind = "swr"
operation = "create_instance"
parameters = "instance.json"
mode = "auto"
limit = "1/d"
wait = "5m"
timeout = "30s"
[follow_up.show]
kind = "swr"
operation = "show_instance"
mode = "dry_run"
limit = "10/m"
wait = "5m"
timeout = "30s"
[follow_up.forget]
kind = "swr"
operation = "delete_job"
[follow_up.call]
kind = "command"
command = ["/usr/bin/true", "--now"]
mode = "auto"
limit = "2/h"
wait = "5m"
timeout = "30s"
"#;

/// What sources have in common stands once.
const DEFAULTS: &str = r#"
[source_defaults]
kind = "swr"
region = "ap-southeast-3"
endpoint = "http://127.0.0.1:1"
project_id = "p1"
poll_every = "30s"
timeout = "40s"
ca_file = "ca.pem"
proxy = "http://127.0.0.1:3128"
gone_after = 3
baseline = { notify_if_updated_within = "15m" }
strategy = "auto"
full_every = "10m"
vanish_percent_max = 50
sts_endpoint = "https://sts.example.org"
credentials = { kind = "metadata", endpoint = "http://127.0.0.1:1" }

[[source]]
name = "a"
[[source]]
name = "b"
baseline = "quiet"
"#;

/// [`CONFIG`], and the example of every kind of receiver with all that every receiver has.
fn configurations() -> Vec<String> {
    const COMMON: &str = "timeout = \"15s\"\nretry = { first = \"5s\", max = \"1h\", give_up_after = \"3d\", escalate_after = \"3m\" }\n\
        fallback = \"other\"\nallow_targets = [\"127.0.0.0/8\"]\nca_file = \"ca.pem\"\nrate = \"10/m\"\nconcurrency = 2\n";
    let one = |kind: &deliver::Kind| {
        let proxy = match kind.carrier {
            Carrier::Http => "proxy = \"http://127.0.0.1:3128\"\n",
            Carrier::Own => "",
        };
        format!("[receiver.{0}]\nkind = \"{0}\"\n{COMMON}{proxy}{1}", kind.name, kind.example)
    };
    let every: String = deliver::KINDS.iter().map(one).collect();
    let source = "[[source]]\nname = \"a\"\nkind = \"swr\"\nendpoint = \"http://127.0.0.1:1\"\nproject_id = \"p1\"\n\
        ca_file = \"ca.pem\"\ncredentials = { kind = \"token\", token = { file = \"secret\" } }\n";
    let other = "[receiver.other]\nkind = \"slack\"\nurl = { file = \"url\" }\nca_file = \"ca.pem\"\n";
    let every = format!("[agent]\nallow_inline_secrets = true\n{source}{every}{other}");
    CONFIG.iter().map(|text| (*text).to_owned()).chain([every, FOLLOW_UPS.to_owned()]).collect()
}

#[test]
fn the_schema_of_rule_files_has_the_keys_and_words_that_the_reader_asks_for_and_no_others() {
    let schema = Schema::of(rules::schema());
    let mut coverage = Coverage::default();
    RULES.iter().for_each(|text| compare(&schema, &mut coverage, text, &read_rules));
    coverage.is_whole(&schema);
}

#[test]
fn the_schema_of_the_configuration_has_the_keys_and_words_that_the_reader_asks_for_and_no_others() {
    let schema = Schema::of(config::schema());
    let mut coverage = Coverage::default();
    let home = Home::new();
    for text in configurations().iter().map(String::as_str).chain([DEFAULTS]) {
        compare(&schema, &mut coverage, text, &|text, notes| home.read(text, notes));
    }
    // Every kind of credentials is compared in a source; that the defaults have the same is seen from the schema.
    let at = |place: &str| schema.value.pointer(place).unwrap();
    let own = at("/properties/source/items/properties/credentials");
    assert_eq!(own, at("/properties/source_defaults/properties/credentials"));
    let twice = "/properties/source_defaults/properties/credentials";
    coverage.is_whole_but_for(&schema, twice);
}

#[test]
fn reader_and_schema_agree_about_every_rule_file_that_is_wrong_in_one_place() {
    let schema = Schema::of(rules::schema());
    RULES.iter().for_each(|text| agree(&schema, text, &read_rules, BEYOND));
}

#[test]
fn reader_and_schema_agree_about_every_configuration_that_is_wrong_in_one_place() {
    let schema = Schema::of(config::schema());
    let home = Home::new();
    for text in configurations() {
        agree(&schema, &text, &|text, notes| home.read(text, notes), BEYOND);
    }
    // What a source lacks may stand in the defaults: only the reader can tell.
    let split = [BEYOND, &["missing-key"]].concat();
    agree(&schema, DEFAULTS, &|text, notes| home.read(text, notes), &split);
}

#[test]
fn what_is_shipped_is_right() {
    let schema = Schema::of(rules::schema());
    for entry in std::fs::read_dir(root().join("rules")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("#:schema ./rules.schema.json\n"), "{}", path.display());
            assert_eq!(schema.refuses(&toml(&text)), None, "{}", path.display());
        }
    }
    assert!(config::STARTER.starts_with("#:schema ./jobwatch.schema.json\n"));
    assert_eq!(Schema::of(config::schema()).refuses(&toml(config::STARTER)), None);
}

#[test]
fn the_schemas_beside_the_shipped_files_are_what_the_program_prints() {
    for (path, command, schema) in [
        ("rules/rules.schema.json", "rules", rules::schema()),
        ("src/config/jobwatch.schema.json", "config", config::schema()),
    ] {
        let stands = std::fs::read_to_string(root().join(path)).unwrap();
        assert!(stands == print(&schema), "{path} is stale: cargo run -- schema {command} > {path}");
    }
}

#[test]
fn every_key_has_words_for_whoever_points_at_it() {
    fn silent(schema: &Value, place: &str, found: &mut Vec<String>) {
        for (key, inner) in schema.as_object().into_iter().flatten() {
            if key == "if" || key == "then" || key == "else" || key == "not" {
                continue;
            }
            if key == "properties" {
                for (name, property) in inner.as_object().unwrap() {
                    let inside = format!("{place}/{name}");
                    if property["description"].as_str().is_none_or(str::is_empty) {
                        found.push(inside.clone());
                    }
                    silent(property, &inside, found);
                }
            } else if let Some(list) = inner.as_array() {
                list.iter().enumerate().for_each(|(at, inner)| silent(inner, &format!("{place}/{key}/{at}"), found));
            } else {
                silent(inner, &format!("{place}/{key}"), found);
            }
        }
    }
    let mut found = Vec::new();
    silent(&rules::schema(), "rules", &mut found);
    silent(&config::schema(), "config", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// Lines of a file that is right, the same line gone wrong, and what the reader says to it.
const WRONG_RULES: &[(&str, &str, &str)] = &[
    ("severity = \"critical\"", "severty = \"critical\"", "unknown-key"),
    ("severity = \"critical\"", "severity = \"fatal\"", "unknown-word"),
    ("schema = 1", "schema = 2", "schema"),
    ("[defaults]", "[default]", "unknown-key"),
    ("to = \"Failed\"", "to = \"Faild\"", "unknown-status"),
    ("to = \"Failed\"", "two = \"Failed\"", "unknown-key"),
    ("to = \"Failed\", gaps", "to = \"Failed\", stays = \"Running\", for = \"1m\", gaps", "two-forms"),
    ("gaps = \"allow\"", "gaps = \"maybe\"", "unknown-word"),
    ("prefix = \"y\"", "prefix = \"y\", suffix = \"z\"", "operators"),
    ("prefix = \"y\"", "begins = \"y\"", "unknown-key"),
    ("prefix = \"y\"", "older_than = \"1m\"", "operators"),
    ("older_than = \"30m\"", "glob = \"30*\"", "operators"),
    ("older_than = \"30m\"", "older_than = \"half an hour\"", "not-a-duration"),
    ("match = { id = \"a\"", "match = { id = 5", "wrong-type"),
    ("match = { id = \"a\"", "match = { ide = \"a\"", "unknown-key"),
    ("cooldown = \"10m\"", "cooldown = \"10 minutes\"", "not-a-duration"),
    ("cooldown = \"10m\"", "cooldown = 10", "wrong-type"),
    ("by = []", "by = [\"status\"]", "unknown-field"),
    ("wait = \"20s\"", "weight = \"20s\"", "unknown-key"),
    ("scope = \"resource\"", "scope = \"all\"", "unknown-word"),
    ("title = \"{{ job.id }}\"", "titel = \"{{ job.id }}\"", "unknown-key"),
    ("title = \"{{ job.id }}\"", "body_file = \"body.md\"", "two-bodies"),
    ("team = \"registry\"", "team = 5", "wrong-type"),
    ("name = \"a story\"", "nmae = \"a story\"", "unknown-key"),
    ("fires = true", "fires = \"yes\"", "wrong-type"),
    ("{ id = \"a\", type", "{ id = \"a\", kind", "unknown-key"),
    ("{ at = \"0s\", jobs", "{ at = \"0s\", job", "unknown-key"),
    ("stays = [\"Creating\", \"Running\"]", "stays = \"*\"", "stays"),
    ("memory = \"30d\"", "memory = \"30d\"}\nkey = { by = \"type\"", "key"),
    ("count = 10", "count = 1", "out-of-range"),
    ("changed = [\"reason\", \"job.type\"]", "changed = [\"status\"]", "unknown-field"),
    ("then = [\"act\"]", "then = [5]", "wrong-type"),
    ("id = \"everything\"", "id = \"every thing\"", "id"),
];

const WRONG_CONFIG: &[(&str, &str, &str)] = &[
    ("[agent]", "[agnet]", "unknown-key"),
    ("state = \"sqlite:state.db\"", "stat = \"sqlite:state.db\"", "unknown-key"),
    ("state = \"sqlite:state.db\"", "state = \"mysql://x\"", "state"),
    ("state = \"sqlite:state.db\"", "state = \"sqlite:state.db\"\nlease = \"15s\"", "state"),
    ("state = \"sqlite:state.db\"", "state = \"sqlite:state.db\"\nstate_password = { env = \"X\" }", "state"),
    ("state_connections = 8", "state_connections = 1", "out-of-range"),
    ("blind_after = \"5m\"", "blind_after = \"5 m\"", "not-a-duration"),
    ("requests_per_second = 400", "requests_per_second = 0", "out-of-range"),
    ("kind = \"swr\"", "kind = \"swrr\"", "unknown-kind"),
    ("region = \"ap-southeast-3\"", "region = \"ap-southeast-33\"", "region"),
    ("region = \"ap-southeast-3\"", "", "missing-key"),
    ("project_id = \"p1\"", "project = \"p1\"", "unknown-key"),
    ("name = \"prod\"", "name = \"pr od\"", "name"),
    ("gone_after = 3", "gone_after = \"3\"", "wrong-type"),
    ("strategy = \"auto\"", "strategy = \"fast\"", "unknown-word"),
    ("kind = \"ak_sk\"", "kind = \"aksk\"", "credentials"),
    ("kind = \"ak_sk\"", "kind = \"token\"", "missing-key"),
    ("access_key = { file = \"secret\" }", "access_key = { flie = \"secret\" }", "unknown-key"),
    ("access_key = { file = \"secret\" }", "access_key = { file = \"secret\", env = \"X\" }", "not-a-secret"),
    ("notify_if_updated_within", "notify_if_within", "unknown-key"),
    ("days = \"sat\"", "days = \"caturday\"", "day"),
    ("from = \"22:00\"", "from = \"22\"", "time"),
    ("zone = \"Europe/Berlin\"", "zones = \"Europe/Berlin\"", "unknown-key"),
    ("kind = \"webhook\"", "kind = \"webhok\"", "unknown-kind"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nto = \"a@example.org\"", "unknown-key"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nrate = \"often\"", "rate"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nretry = { frist = \"5s\" }", "unknown-key"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nheaders = { X = 5 }", "wrong-type"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nsignature = \"standard\"", "missing-key"),
    ("kind = \"webhook\"", "kind = \"webhook\"\nsignature_header = \"X\"", "missing-key"),
    ("signature = \"standard\"", "signature = \"hmac-sha256\"", "signature"),
    ("signature = \"standard\"", "signature_header = \"X\"", "signature"),
    ("signature = \"standard\"", "signature = \"hmac\"", "unknown-word"),
    ("format = \"plain\"", "format = \"binary\"", "unknown-word"),
    ("server = \"smtp://mail.example.org:587\"", "server = \"https://mail.example.org\"", "server"),
    ("to = \"oncall@example.org\"", "to = []", "missing-key"),
    ("to = \"oncall@example.org\"", "to = \"oncall@example.org\"\nuser = \"u\"", "credentials"),
    ("to = \"oncall@example.org\"", "to = \"oncall@example.org\"\nauth = \"plain\"", "missing-key"),
    ("to = \"oncall@example.org\"", "to = \"oncall@example.org\"\nproxy = \"http://h:1\"", "proxy"),
    ("reload = \"watch\"", "reload = \"always\"", "unknown-word"),
    ("listen = \"127.0.0.1:9477\"", "listen = \"9477\"", "listen"),
    ("mode = \"approve\"", "mode = \"ask\"", "unknown-word"),
    ("mode = \"approve\"", "command = [\"x\"]", "unknown-key"),
    ("limit = \"2/h\"", "limit = \"2 an hour\"", "limit"),
    ("operation = \"delete_instance\"", "operation = \"drop_instance\"", "unknown-word"),
    ("parameters = \"instance.json\"", "", "missing-key"),
];

#[test]
fn what_the_reader_refuses_by_name_the_schema_refuses_too() {
    let (rule_files, home) = (Schema::of(rules::schema()), Home::new());
    let configuration = Schema::of(config::schema());
    let mut faults = Vec::new();
    let mut judge = |schema: &Schema, read: Read<'_>, all: &[&str], (good, bad, code): (&str, &str, &str)| {
        let right = all.iter().find(|right| right.contains(good)).unwrap_or_else(|| panic!("{good}"));
        let text = right.replacen(good, bad, 1);
        let said = codes(&read(&text, &Notes::default()));
        if !said.contains(code) || schema.refuses(&toml(&text)).is_none() {
            faults.push(format!("{bad}: the reader says {said:?}, the schema {:?}", schema.refuses(&toml(&text))));
        }
    };
    WRONG_RULES.iter().for_each(|case| judge(&rule_files, &read_rules, RULES, *case));
    let read = |text: &str, notes: &Notes| home.read(text, notes);
    let all = [CONFIG, &[FOLLOW_UPS]].concat();
    WRONG_CONFIG.iter().for_each(|case| judge(&configuration, &read, &all, *case));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Reads a file as the program does.
type Read<'a> = &'a dyn Fn(&str, &Notes) -> Report;

fn read_rules(text: &str, notes: &Notes) -> Report {
    let file = Arc::new(File { path: "rules/x.toml".into(), text: text.into() });
    let read = |_: &Path| Ok("{{ reason }}".to_owned());
    rules::load_noting(
        &[file],
        &Surroundings { read: &read, receivers: None, windows: None, sources: None, follow_ups: None },
        Some(notes),
    )
    .1
}

/// What CreateInstance cannot do without.
const INSTANCE: &str = r#"{ "name": "n", "spec": "s", "vpc_id": "v", "subnet_id": "s", "project_id": "p",
    "charge_mode": "postPaid", "enterprise_project_id": "0" }"#;

/// A directory with all that a configuration names.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let key = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        for (name, text) in [
            ("ca.pem", certificate.as_str()),
            ("secret", "s"),
            ("url", "https://example.org/x"),
            ("proxy", "https://u:p@proxy.example.org:3128"),
            ("key", key),
            ("instance.json", INSTANCE),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    /// As `check` does: a secret that is not on this machine is only a warning.
    fn read(&self, text: &str, notes: &Notes) -> Report {
        let path = self.0.path().join("jobwatch.toml");
        std::fs::write(&path, text).unwrap();
        config::load_noting(&path, Purpose::Check, Some(notes)).1
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn toml(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

/// The codes of the errors.
fn codes(report: &Report) -> BTreeSet<String> {
    let json = report.json();
    let errors = json.as_array().unwrap().iter().filter(|problem| problem["level"] == "error");
    errors.map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

/// A schema that can be asked, as a whole and in parts.
struct Schema {
    value: Value,
    compiled: RefCell<(Compiler, Schemas)>,
}

impl Schema {
    fn of(value: Value) -> Self {
        let mut compiler = Compiler::new();
        compiler.add_resource(PLACE, value.clone()).unwrap();
        Self { value, compiled: RefCell::new((compiler, Schemas::new())) }
    }

    /// Why it refuses a file, if it does.
    fn refuses(&self, file: &Value) -> Option<String> {
        self.part_refuses("", file)
    }

    fn part_refuses(&self, place: &str, value: &Value) -> Option<String> {
        let (compiler, schemas) = &mut *self.compiled.borrow_mut();
        let part = compiler.compile(&format!("{PLACE}#{place}"), schemas).unwrap();
        schemas.validate(value, part).err().map(|error| error.to_string())
    }

    fn at(&self, place: &str) -> &Value {
        self.value.pointer(place).unwrap()
    }

    /// The places that speak of this value, from one of them: what is referred to, and the alternatives that fit.
    fn places(&self, place: &str, value: &Value, found: &mut Vec<String>) {
        found.push(place.to_owned());
        let here = self.at(place);
        if let Some(to) = here["$ref"].as_str() {
            self.places(to.strip_prefix('#').unwrap(), value, found);
        }
        for word in ["oneOf", "anyOf"] {
            for at in 0..here[word].as_array().map_or(0, Vec::len) {
                let inner = format!("{place}/{word}/{at}");
                if self.part_refuses(&inner, value).is_none() {
                    self.places(&inner, value, found);
                }
            }
        }
    }

    /// The words a property can be.
    fn words(&self, place: &str, found: &mut BTreeSet<String>) {
        let here = self.at(place);
        let own = here["enum"].as_array().into_iter().flatten().chain(here.get("const"));
        found.extend(own.filter_map(|word| word.as_str().map(str::to_owned)));
        for at in 0..here["anyOf"].as_array().map_or(0, Vec::len) {
            self.words(&format!("{place}/anyOf/{at}"), found);
        }
    }
}

/// Reads a file and follows the schema along it.
fn compare(schema: &Schema, coverage: &mut Coverage, text: &str, read: Read<'_>) {
    let notes = Notes::default();
    let report = read(text, &notes);
    assert!(!report.has_errors(), "{:#?}", report.lines().collect::<Vec<_>>());
    let file = toml(text);
    assert_eq!(schema.refuses(&file), None);
    let mut faults = Vec::new();
    follow(schema, coverage, &notes.asked(), ("", &file), &[String::new()], &mut faults);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn follow(
    schema: &Schema,
    coverage: &mut Coverage,
    asked: &Asked,
    (path, value): (&str, &Value),
    from: &[String],
    faults: &mut Vec<String>,
) {
    let mut places = Vec::new();
    from.iter().for_each(|place| schema.places(place, value, &mut places));
    if let Some(list) = value.as_array() {
        let items = places.iter().map(|place| format!("{place}/items"));
        let items: Vec<String> = items.filter(|place| schema.value.pointer(place).is_some()).collect();
        for (at, value) in list.iter().enumerate() {
            follow(schema, coverage, asked, (&format!("{path}[{at}]"), value), &items, faults);
        }
    }
    let Some(table) = value.as_object() else { return };
    let mut properties: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for place in &places {
        for key in schema.at(place)["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
            properties.entry(key).or_default().push(format!("{place}/properties/{key}"));
        }
    }
    let Some(asked_here) = asked.get(path) else {
        faults.push(format!("`{path}`: the reader did not look into it"));
        return;
    };
    for key in asked_here.keys().filter(|key| !properties.contains_key(**key)) {
        faults.push(format!("`{path}`: the reader asks for `{key}`, and the schema does not have it"));
    }
    for (key, places) in &properties {
        let Some(words) = asked_here.get(key) else {
            faults.push(format!("`{path}`: the schema has `{key}`, and the reader does not ask for it"));
            continue;
        };
        let (words, mut known) =
            (words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>(), BTreeSet::new());
        places.iter().for_each(|place| schema.words(place, &mut known));
        if !words.is_empty() && words != known {
            faults.push(format!("`{path}.{key}`: the reader knows {words:?}, the schema {known:?}"));
        }
    }
    for (key, value) in table {
        let open = places.iter().map(|place| format!("{place}/additionalProperties"));
        let open = open.filter(|place| schema.value.pointer(place).is_some_and(Value::is_object));
        let inner: Vec<String> = properties.get(key.as_str()).cloned().unwrap_or_else(|| open.collect());
        coverage.0.extend(inner.iter().cloned());
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        follow(schema, coverage, asked, (&path, value), &inner, faults);
    }
}

/// The places of the schema that the files here have exercised.
#[derive(Default)]
struct Coverage(BTreeSet<String>);

impl Coverage {
    fn is_whole(&self, schema: &Schema) {
        self.is_whole_but_for(schema, "/nowhere");
    }

    fn is_whole_but_for(&self, schema: &Schema, but: &str) {
        let mut all = BTreeSet::new();
        properties("", &schema.value, &mut all);
        let missing: Vec<_> = all.iter().filter(|place| !self.0.contains(*place) && !place.starts_with(but)).collect();
        assert!(missing.is_empty(), "exercise these too: {missing:#?}");
    }
}

/// The places of all properties.
fn properties(place: &str, schema: &Value, found: &mut BTreeSet<String>) {
    for (key, inner) in schema.as_object().into_iter().flatten() {
        let place = format!("{place}/{key}");
        match key.as_str() {
            "if" | "then" | "else" | "not" | "propertyNames" => {}
            "properties" | "$defs" => {
                for (name, inner) in inner.as_object().unwrap() {
                    let place = format!("{place}/{name}");
                    properties(&place, inner, found);
                    if key == "properties" {
                        found.insert(place);
                    }
                }
            }
            _ => match inner.as_array() {
                Some(list) => {
                    list.iter().enumerate().for_each(|(at, inner)| properties(&format!("{place}/{at}"), inner, found));
                }
                None => properties(&place, inner, found),
            },
        }
    }
}

/// Changes a file in one place after the other and asks both. What the schema refuses, the reader must refuse; and the other
/// way round, unless it is for something that a schema cannot know.
fn agree(schema: &Schema, text: &str, read: Read<'_>, beyond: &[&str]) {
    let file = toml(text);
    let mut places = Vec::new();
    all_places("", &file, &mut places);
    let (mut faults, mut refused) = (Vec::new(), 0);
    for place in &places {
        for (what, changed) in variants(&file, place) {
            let Ok(text) = ::toml::to_string(&changed) else { continue };
            let said = codes(&read(&text, &Notes::default()));
            let no = schema.refuses(&changed);
            refused += usize::from(no.is_some());
            match (&no, said.is_empty()) {
                (Some(why), true) => faults.push(format!("{place} {what}: only the schema refuses it: {why}")),
                (None, false) if !said.iter().any(|code| beyond.contains(&code.as_str())) => {
                    faults.push(format!("{place} {what}: only the reader refuses it: {said:?}"));
                }
                _ => {}
            }
        }
    }
    assert!(refused > places.len(), "nothing was wrong");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn all_places(place: &str, value: &Value, found: &mut Vec<String>) {
    found.push(place.to_owned());
    for (key, inner) in value.as_object().into_iter().flatten() {
        all_places(&format!("{place}/{key}"), inner, found);
    }
    for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
        all_places(&format!("{place}/{at}"), inner, found);
    }
}

/// The file with one place of it gone wrong, in every way.
fn variants(file: &Value, place: &str) -> Vec<(String, Value)> {
    let old = file.pointer(place).unwrap();
    let mut new = vec![json!(1.5), json!(true), json!("?"), json!([]), json!({}), json!(["?"]), json!([old])];
    if let Some([only]) = old.as_array().map(Vec::as_slice) {
        new.push(only.clone());
    }
    if old.is_i64() {
        new.extend([-1, 0, 1, 2, 100, 101, 10_000, 10_001, 100_000, 100_001].map(|n| json!(n)));
    }
    if let Some(table) = old.as_object() {
        let with = |key: &str| {
            table.iter().map(|(key, value)| (key.clone(), value.clone())).chain([(key.to_owned(), json!("?"))])
        };
        new.push(with("zzz").collect());
        for key in table.keys() {
            new.push(
                table
                    .iter()
                    .filter(|(other, _)| *other != key)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            );
        }
    }
    let change = |new: Value| {
        let mut changed = file.clone();
        let what = new.to_string().chars().take(80).collect();
        *changed.pointer_mut(place).unwrap() = new;
        (what, changed)
    };
    new.into_iter().map(change).filter(|(_, changed)| changed.is_object()).collect()
}
