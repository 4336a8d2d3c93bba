//! Templates cannot fail at the moment of the outage: what is wrong with one is said when it is loaded, and what goes wrong
//! all the same ends in a message with the reason.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should fail loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jobwatch::document::File;
use jobwatch::model::alert::{Alert, Severity};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::notification::SourceFacts;
use jobwatch::model::time::Timestamp;
use jobwatch::model::transition::{State, Transition};
use jobwatch::rules::{Context, FILTERS, Rendered, RuleSet, Surroundings, load};
use proptest::prelude::*;

const WHEN: &str = "{ to = \"Failed\" }";

/// A rule with these templates, or what is wrong with it. The body stands in a file of its own.
fn rule(when: &str, title: &str, body: &str) -> Result<RuleSet, String> {
    let text = format!(
        "schema = 1\n[[rule]]\nid = \"r\"\nwhen = {when}\nnotify = [\"oncall\"]\n\
         message = {{ title = '''{title}''', body_file = \"r.md\" }}\nlabels = {{ team = \"registry\", zone = \"Asia/Tokyo\", \"on-call\" = \"x\" }}\n"
    );
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let read = |_: &Path| Ok(body.to_owned());
    let (rules, report) =
        load(&[file], &Surroundings { read: &read, receivers: None, windows: None, sources: None, follow_ups: None });
    let lines: Vec<String> = report.lines().collect();
    if report.has_errors() { Err(lines.join("\n")) } else { Ok(rules) }
}

fn accepted(template: &str) -> RuleSet {
    rule(WHEN, "t", template).unwrap_or_else(|why| panic!("{template}: {why}"))
}

fn refused(template: &str) -> String {
    rule(WHEN, "t", template).err().unwrap_or_else(|| panic!("{template} was taken"))
}

fn a_job() -> Job {
    let text = |text: &str| Some(Box::from(text));
    Job {
        resource_name: text("prod-a"),
        kind: text("CreateInstance"),
        reason: text("quota 17 exceeded: ask somebody"),
        created_at: text("2021-05-12T03:50:38.305978Z"),
        updated_at: text("2021-05-12T03:50:43Z"),
        ..Job::bare("a", Status::Failed)
    }
}

/// What a rule says of a job that has failed.
fn said(rules: &RuleSet, job: Job, now: &str) -> Rendered {
    let at = Timestamp::parse(now).unwrap();
    let transition = Transition {
        id: "evt_1".into(),
        source: "prod".into(),
        job: Arc::new(job),
        from: State::Is(Status::Running),
        to: State::Is(Status::Failed),
        seen_before: Some(at),
        seen_at: at,
        skipped: Vec::new(),
        changed: Vec::new(),
        late: false,
        seq: 1,
    };
    say(rules, &transition, at)
}

fn say(rules: &RuleSet, transition: &Transition, now: Timestamp) -> Rendered {
    let source = SourceFacts { name: "prod".into(), kind: "swr".into(), region: None, project_id: "p".into() };
    let alert = Alert {
        id: "alr_1".into(),
        rule: "r".into(),
        source: "prod".into(),
        subject: transition.job.id.clone(),
        resource: None,
        severity: Severity::Error,
        count: 1,
        first_seen: now,
        last_seen: now,
        resolved: false,
        told: Vec::new(),
    };
    let rule = &rules.rules[0];
    rule.message.render(&Context {
        transition,
        reason_class: "c",
        rule: &rule.facts,
        severity: Severity::Error,
        source: &source,
        alert: &alert,
        held_back: 0,
        burst: None,
        now,
    })
}

fn body(template: &str) -> String {
    said(&accepted(template), a_job(), "2021-05-12T03:56:50Z").body
}

#[test]
fn filters_say_times_and_lengths_as_people_do() {
    for (template, said) in [
        (r#"{{ job.created_at|in_zone("Asia/Shanghai") }}"#, "2021-05-12 11:50:38 CST +08:00"),
        (r#"{{ job.created_at|in_zone("Europe/Berlin", "%H:%M %Z") }}"#, "05:50 CEST"),
        (r#"{{ now|in_zone("America/Sao_Paulo") }}"#, "2021-05-12 00:56:50 -03:00"),
        (r#"{{ now|in_zone(rule.labels.zone) }}"#, "2021-05-12 12:56:50 JST +09:00"),
        ("{{ job.created_at|ago }}", "6 min ago"),
        ("{{ now|ago }}", "just now"),
        (r#"{{ "2021-05-12T03:56:20Z"|ago }}, {{ "2021-05-10T01:00:00Z"|ago }}"#, "30 s ago, 2 d 2 h ago"),
        (r#"{{ "2021-05-12T04:00:00Z"|ago }}"#, "in 3 min"),
        ("{{ job.created_at|duration(job.updated_at) }}", "4 s"),
        ("{{ job.updated_at|duration(job.created_at) }}", "4 s"),
        ("{{ 7380|duration }}, {{ 0.08|duration }}, {{ \"90\"|duration }}", "2 h 3 min, 80 ms, 1 min 30 s"),
        ("{{ reason|shorten(10) }}", "quota 17 …"),
        ("{{ reason|shorten }}", "quota 17 exceeded: ask somebody"),
        (r#"{{ "cafe\u0301s"|shorten(5) }}"#, "caf…"),
        // Text that is no time comes out as it went in.
        (
            r#"{{ reason|ago }}; {{ job.type|in_zone("UTC") }}; {{ job.id|duration(now) }}; {{ now|duration(job.id) }}"#,
            "quota 17 exceeded: ask somebody; CreateInstance; a; a",
        ),
        (r#"{{ job.instance_id|ago }}{{ job.instance_id|in_zone("UTC") }}."#, "."),
    ] {
        assert_eq!(body(template), said, "{template}");
    }
}

#[test]
fn every_filter_in_the_catalogue_does_what_its_example_says() {
    for (name, what, example) in FILTERS {
        assert!(example.contains(&format!("|{name}")) && !what.is_empty(), "{name}");
        let rendered = said(&accepted(&format!("x{{{{ {example} }}}}")), a_job(), "2021-05-12T03:56:50Z");
        assert_eq!(rendered.fault, None, "{name}");
    }
}

#[test]
fn every_name_of_the_contract_is_there() {
    let names = "job.id job.instance_id job.resource_id job.resource_name job.type job.status job.reason job.created_at \
        job.updated_at source.name source.kind source.region source.project_id transition.from transition.to \
        transition.seen_before transition.seen_at transition.skipped transition.changed transition.late rule.id rule.about \
        rule.runbook rule.severity rule.labels.team rule.labels[\"on-call\"] alert.id alert.count alert.first_seen \
        alert.held_back reason reason_class now";
    for name in names.split_whitespace() {
        accepted(&format!("{{{{ {name} }}}}"));
        accepted(&format!("{{% if false %}}{{{{ {name} }}}}{{% endif %}}"));
    }
}

#[test]
fn what_is_wrong_is_refused_also_where_no_branch_is_taken() {
    for (inside, words, mend) in [
        ("{{ job.reson }}", "unknown variable `job.reson`", "did you mean `job.reason`?"),
        ("{{ job[\"reson\"] }}", "unknown variable `job.reson`", "did you mean `job.reason`?"),
        ("{{ job.reson[:10] }}", "unknown variable `job.reson`", "did you mean `job.reason`?"),
        ("{{ rule.labels.taem }}", "unknown variable `rule.labels.taem`", "did you mean `team`?"),
        ("{{ rule.labels[job.type] }}", "nobody can tell which field this is", ""),
        ("{{ resaon }}", "unknown variable `resaon`", "did you mean `reason`?"),
        ("{{ reason|uper }}", "unknown filter `uper`", "did you mean `upper`?"),
        ("{% filter uper %}x{% endfilter %}", "unknown filter `uper`", "did you mean `upper`?"),
        ("{% set x | uper %}x{% endset %}", "unknown filter `uper`", "did you mean `upper`?"),
        ("{{ transition.skipped|map(\"uper\") }}", "unknown filter `uper`", "did you mean `upper`?"),
        (
            "{{ reason|lines|select(\"startswith\", \"E\") }}",
            "unknown test `startswith`",
            "did you mean `startingwith`?",
        ),
        ("{{ reason|e }}", "unknown filter `e`", "escaped by each receiver"),
        ("{{ reason|safe }}", "unknown filter `safe`", "escaped by each receiver"),
        ("{{ reason|replace(\"a\") }}", "`replace`: missing argument", ""),
        ("{{ reason|upper(1) }}", "`upper`: too many arguments", ""),
        ("{{ reason is defind }}", "unknown test `defind`", "did you mean `defined`?"),
        (
            "{{ now|in_zone(\"Asia/Shangai\") }}",
            "there is no time zone `Asia/Shangai`",
            "did you mean `Asia/Shanghai`?",
        ),
        ("{{ now|in_zone(\"UTC\", \"%!\") }}", "no form of a time", ""),
        ("{{ \"yesterday\"|ago }}", "this is no time", "such as job.created_at"),
        ("{{ reason|shorten(0) }}", "at least one character", ""),
        ("{{ job.reason.split(\":\")[1] }}", "there are no methods such as `.split(…)`", "reason|split"),
        ("{{ job.reason.text }}", "a text has no `text`", ""),
        ("{{ now() }}", "unknown function `now`", "one of: `range`"),
        ("{{ debug() }}", "unknown function `debug`", ""),
        ("{% for s in transition.skipped %}{{ s.name }}{% endfor %}", "a text or a number has no `name`", ""),
        (
            "{% for s in transition.skipped %}{{ loop.indx }}{% endfor %}",
            "unknown variable `loop.indx`",
            "`loop.index`|`index`",
        ),
        ("{% for s in alert.count %}{% endfor %}", "no items to go through", ""),
        ("{% if late %}{% set x = 1 %}{% endif %}{{ x }}", "unknown variable `late`", ""),
        ("{% if transition.late %}{% set x = 1 %}{% endif %}{{ x }}", "unknown variable `x`", ""),
        ("{% set x = y %}{% set y = 1 %}", "unknown variable `y`", ""),
        ("{% with x = 1 %}{% endwith %}{{ x }}", "unknown variable `x`", ""),
        ("{% set now = \"x\" %}", "`now` is a name of jobwatch", ""),
        ("{% autoescape true %}{% endautoescape %}", "`autoescape` has nothing to do here", "escaped by each receiver"),
        ("{% include \"other\" %}", "unknown statement include", "a message is one template"),
        ("{% macro m() %}{% endmacro %}", "unknown statement macro", "a message is one template"),
        ("{{ job.reason", "syntax error", ""),
    ] {
        for template in [inside.to_owned(), format!("{{% if reason == \"never\" %}}\n{inside}\n{{% endif %}}")] {
            let report = refused(&template);
            let mended = mend.split('|').any(|mend| report.contains(mend.trim_matches('`')));
            assert!(report.contains(words) && (mended || mend.is_empty()), "{template}\n{report}");
            assert!(report.contains("r.md:"), "{template}: no place\n{report}");
        }
    }
}

#[test]
fn what_is_right_is_taken() {
    for template in [
        "{% if transition.late %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}",
        "{% for s in transition.skipped if s != \"Running\" %}{{ loop.index }}/{{ loop.length }} {{ s|lower }}{% else %}none{% endfor %}",
        "{% for name, value in rule.labels|items %}{{ name }}={{ value }} {% endfor %}",
        "{% set ns = namespace(n=0) %}{% for l in reason|lines %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{% with short = reason|shorten(20) %}{{ short }}{% endwith %}",
        "{% set x %}a{{ reason }}{% endset %}{{ x|length }}",
        "{{ reason|default(\"none\", true) }} {{ \"a\" if transition.late else \"b\" }} {{ \"a\" if transition.late }}",
        "{{ job[\"reason\"][:20] }} {{ reason|split(\":\")|last|trim }}",
        "{% filter upper %}{{ reason }}{% endfilter %} {{ alert.count + 1 }} {{ reason ~ now }}",
        "{{ job }} {{ rule.labels }} {{ transition.skipped }}",
        "{% raw %}{{ anything }}{% endraw %}{# a note #}",
    ] {
        accepted(template);
    }
}

#[test]
fn a_template_is_proved_in_the_steps_that_its_rule_looks_at() {
    let template = "{{ transition.skipped[0] }}";
    assert!(refused(template).contains("full job"), "nothing was skipped");
    // A stay has been seen before; a burst's jobs perhaps not.
    let seen = "{{ transition.seen_before[:4]|int }}";
    for (when, works) in [
        ("{ stays = \"Running\", for = \"1m\" }", true),
        ("{ gone_from = \"Running\" }", true),
        ("{ changed = [\"reason\"] }", true),
        ("{ to = \"Failed\", from = \"Running\", gaps = \"strict\" }", true),
        ("{ to = \"Failed\" }", false),
        ("{ to = \"Failed\", count = 3, within = \"5m\" }", false),
        ("{ to = \"Failed\", new = \"reason_class\", memory = \"30d\" }", false),
    ] {
        assert_eq!(rule(when, "t", seen).is_ok(), works, "{when}");
    }
    assert!(rule("{ changed = [\"reason\"] }", "t", "{{ transition.changed[0] }}").is_ok());
    let status = "{{ {\"Failed\": 1, \"Success\": 2}[job.status] }}";
    assert!(rule("{ to = [\"Failed\", \"Success\"] }", "t", status).is_ok());
    assert!(rule("{ to = \"*\" }", "t", status).is_err());
}

/// Templates that would take all memory, all time, or all of the stack. On a thread with the stack of a worker.
#[test]
fn a_bomb_is_refused_or_defused() {
    let bombs = [
        "{{ \"a\" * 100000000 }}".to_owned(),
        "{{ reason * 100000000 }}".to_owned(),
        "{{ [reason] * 100000000 }}".to_owned(),
        "{{ ([reason] * 100000000)|string }}".to_owned(),
        "{{ [reason] * 100000000 ~ 1 }}".to_owned(),
        "{{ ([reason] * 100000000)|join|length }}".to_owned(),
        "{{ ([reason] * 100000000)|list|length }}".to_owned(),
        "{{ ([reason] * 100000000)|sort|length }}".to_owned(),
        "{{ ([reason] * 100000000)|unique|list|length }}".to_owned(),
        "{{ ([reason] * 100000000)|sum }}".to_owned(),
        "{{ ([reason] * 100000000)|last }}".to_owned(),
        "{{ ([reason] * 100000000)|shorten(5) }}".to_owned(),
        "{{ ([reason] * 100000000)|reverse|first }}".to_owned(),
        "{{ ([reason] * 100000000)|map(\"upper\")|join }}".to_owned(),
        "{{ ([reason] * 100000000) == ([reason] * 100000000) }}".to_owned(),
        "{{ \"x\" in ([reason] * 100000000) }}".to_owned(),
        "{{ ([reason] * 100000000)|shorten(5) }}".to_owned(),
        "{% set x = [1] * 100000000 %}{{ [x, x, x, x]|string }}".to_owned(),
        "{{ range(100000000)|list }}".to_owned(),
        "{{ range(100000)|list|join(reason) }}".to_owned(),
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(100000) %}{{ reason }}{% endfor %}".to_owned(),
        "{% for a in range(100000) %}{% set x = reason|upper %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=\"aa\") %}{% for a in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}".to_owned(),
        "{% set a = [reason, reason] %}{% set b = [a, a] %}{{ [b, b] }}".to_owned(),
        "{% set ns = namespace(x=\"a\") %}{% set ns.x = [ns.x, ns.x] %}".to_owned(),
        "{{ [1] + [1] }}".to_owned(),
        "{{ reason|lines|map(\"lines\") }}".to_owned(),
        "{% if true %}{% set x = 2 %}{% else %}{% set x = [2] %}{% endif %}{{ x * 3 }}".to_owned(),
        "{{ (2 if transition.late else [2]) * 3 }}".to_owned(),
        "{{ (transition.late and [2]) * 3 }}".to_owned(),
        "{{ [2]|default(3) }}".to_owned(),
        "{{ 2|default([3]) }}".to_owned(),
        "{{ {\"a\": [2]} }}".to_owned(),
        "{{ [2]|first * 99999999999 ~ \"a\" * 99999999999 }}".to_owned(),
        "{% set ns = namespace(x=[1]) %}{% for a in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
        "{{ \"aaaaaaaa\"|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\")|replace(\"a\", \"aaaaaaaa\") }}".to_owned(),
        "{{ \"\"|replace(\"\", reason)|indent(100000000) }}".to_owned(),
        "{{ \"x\\nx\"|indent(100000000) }}".to_owned(),
        "{{ now|in_zone(\"UTC\", \"%999999999Y\") }}".to_owned(),
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        format!("{{{{ 1{} }}}}", " + 1".repeat(15_000)),
        format!("{{{{ reason{} }}}}", "|trim".repeat(12_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(15_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(60_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{}{}", "{% if true %}".repeat(2_000), "{% endif %}".repeat(2_000)),
        format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}".repeat(3_000)),
        "x".repeat(65 * 1024),
    ];
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let tried = thread.spawn(move || {
        for bomb in &bombs {
            let report = refused(bomb);
            assert!(report.len() < 2_000, "{}", report.len());
        }
        // As deep as is allowed.
        accepted(&format!("{{{{ 1{} }}}}", " + 1".repeat(140)));
        accepted(&format!("{}x{}", "{% if true %}".repeat(40), "{% endif %}".repeat(40)));
    });
    tried.unwrap().join().unwrap();
}

/// A branch that no sample takes may blow up all the same: then the built-in text is sent.
#[test]
fn what_blows_up_at_run_time_ends_in_the_built_in_text() {
    for bomb in [
        "{{ reason * 100000000 }}",
        "{% for a in range(100000) %}{{ reason }}{% endfor %}",
        "{{ reason|lines|list|map(\"length\")|join(\",\") * 9999999 }}",
    ] {
        let rules = accepted(&format!("{{% if reason is startingwith(\"quota\") %}}{bomb}{{% endif %}}"));
        let rendered = said(&rules, a_job(), "2021-05-12T03:56:50Z");
        let fault = rendered.fault.unwrap();
        assert!(fault.starts_with("rule `r`: its body (r.md) failed at 1:"), "{fault}");
        assert!(rendered.body.contains("Reason: quota 17 exceeded: ask somebody\n") && rendered.body.contains(&fault));
        assert!(rendered.body.len() < 1_000);
    }
}

#[test]
fn a_failure_names_the_template_the_place_and_the_cause_and_keeps_what_worked() {
    let now = "2021-05-12T03:56:50Z";
    let fails = "first\nhere: {{ 1 // (reason|length - 31) }}";
    let both = said(&rule(WHEN, "{{ 1 // (reason|length - 31) }}", fails).unwrap(), a_job(), now);
    let cause = "invalid operation: tried to use // operator on unsupported types";
    let fault = both.fault.clone().unwrap();
    assert!(fault.starts_with("rule `r`: its title failed at 1:4: "), "{fault}");
    assert!(fault.contains("; its body (r.md) failed at 2:10: "), "{fault}");
    assert!(!fault.contains(cause) || fault.len() < 700);
    assert_eq!(both.title, "prod-a: quota 17 exceeded: ask somebody");
    assert_eq!(
        both.body,
        format!(
            "CreateInstance of prod-a went from Running to Failed.\nReason: quota 17 exceeded: ask somebody\n\n\
             ({fault}. This is the built-in text.)"
        )
    );
    let title =
        said(&rule(WHEN, "{{ 1 // (reason|length - 31) }}", "Look at {{ rule.labels.team }}").unwrap(), a_job(), now);
    assert_eq!(title.title, "prod-a: quota 17 exceeded: ask somebody");
    assert!(title.body.starts_with("Look at registry\n\nCreateInstance of prod-a"), "{}", title.body);
    let body = said(&rule(WHEN, "mine", fails).unwrap(), a_job(), now);
    assert_eq!(body.title, "mine");
    let empty = said(&rule(WHEN, "{{ job.instance_id }} ", "").unwrap(), a_job(), now);
    assert_eq!(
        (empty.title.as_str(), empty.body.as_str(), empty.fault),
        ("prod-a: quota 17 exceeded: ask somebody", "", None)
    );
}

/// Text as clouds, people and enemies write it.
fn words() -> impl Strategy<Value = Option<Box<str>>> {
    let hostile = prop::sample::select(vec![
        "",
        " ",
        "a:b",
        "x\r\nBcc: y",
        "\u{202e}evil\u{2066}",
        "\u{0}\u{1b}[31m",
        "9999-12-31T23:59:59Z",
        "-9999-01-01T00:00:00Z",
        "2021-05-12T03:50:43.315473Z",
        "{{ 7*7 }}",
        "<script>",
        "👩\u{200d}🔧\u{301}",
        "0",
        "-1",
        "1e308",
        "\u{feff}\u{200b}",
    ]);
    let text = prop_oneof![4 => hostile.prop_map(str::to_owned), 2 => any::<String>(), 1 => "[a-z: ]{0,40}".prop_map(|s| s.repeat(2_000))];
    prop::option::weighted(0.8, text.prop_map(String::into_boxed_str))
}

fn jobs() -> impl Strategy<Value = Job> {
    (words(), words(), words(), words(), words(), words(), words(), words(), words()).prop_map(
        |(id, instance_id, resource_id, resource_name, kind, status, reason, created_at, updated_at)| Job {
            id: id.as_deref().unwrap_or("a").into(),
            status: Status::read(status.as_deref().unwrap_or("Failed")),
            instance_id,
            resource_id,
            resource_name,
            kind,
            reason,
            created_at,
            updated_at,
        },
    )
}

/// Templates of which each fails for some jobs, and for none of the samples.
const DOUBTFUL: &[&str] = &[
    "{{ 1 // (reason|length - 3) }}",
    "{{ (reason|split(\":\")|list)[1] if reason is startingwith(\"a\") else reason }}",
    "{% if reason|length is in [1, 2] %}{{ (reason|lines)[7] }}{% endif %}",
    "{{ reason|int if reason|length == 1 else 0 }}",
    "{% if \"zz\" in job.id %}{{ job.type|float }}{% endif %}",
    "{% if job.resource_name == \"\" %}{{ reason * 99999999 }}{% endif %}",
    "{{ job.created_at|in_zone(\"Asia/Shanghai\") }} {{ job.updated_at|ago }} {{ job.created_at|duration(job.updated_at) }}",
    "{{ reason|shorten(20) }} {{ job.type|upper }} {{ now|in_zone(\"UTC\", \"%c\") }}",
    "{% if reason|length < 3000 %}{% for a in range(reason|length) %}{{ reason }}{% endfor %}{% endif %}",
    "{{ transition.skipped|join(\",\") }} {{ transition.changed|length }} {{ alert }}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a job looks like and whatever fails: there is a message, in one line and a body of bounded length, and it
    /// holds the reason or is what the author wrote.
    #[test]
    fn there_is_always_a_message(job in jobs(), title in 0..DOUBTFUL.len(), body in 0..DOUBTFUL.len(), from in words(), to in 0..4_u8, micros in any::<i64>(), gap in any::<i64>()) {
        let Ok(rules) = rule(WHEN, DOUBTFUL[title], DOUBTFUL[body]) else { return Ok(()) };
        let now = Timestamp::from_micros(micros);
        let from = State::read(from.as_deref().unwrap_or("unseen"));
        let to = match to {
            0 => State::Gone,
            1 => from.clone(),
            _ => State::Is(job.status.clone()),
        };
        let transition = Transition {
            id: "evt_1".into(), source: "prod".into(), job: Arc::new(job), from, to,
            seen_before: Some(Timestamp::from_micros(gap)), seen_at: now.minus(Duration::from_micros(gap.unsigned_abs())),
            skipped: vec![Status::Running], changed: vec!["reason"], late: gap < 0, seq: 1,
        };
        let rendered = say(&rules, &transition, now);
        prop_assert!(!rendered.title.trim().is_empty() && rendered.title.chars().count() <= 301);
        prop_assert!(!rendered.title.chars().any(char::is_control));
        prop_assert!(!rendered.body.chars().any(|c| c.is_control() && !"\n\t".contains(c)));
        prop_assert!(rendered.body.len() <= 64 * 1024);
        let hidden = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        prop_assert!(!rendered.title.contains(hidden) && !rendered.body.contains(hidden));
        if let Some(fault) = &rendered.fault {
            prop_assert!(fault.contains("rule `r`: its "), "{}", fault);
            prop_assert!(rendered.body.contains("This is the built-in text."), "{}", rendered.body);
            let seen = jobwatch::model::text::lines(transition.job.reason.as_deref().unwrap_or_default(), 1 << 30);
            // Of a reason that is longer than a message, its beginning.
            let start: String = seen.lines().next().unwrap_or_default().chars().take(5_000).collect();
            prop_assert!(rendered.body.contains(&start), "{:?} is not in {}", start, rendered.body);
        }
    }
}

#[test]
fn the_doubtful_templates_are_taken_and_fail_for_some() {
    let mut failed = 0;
    for template in DOUBTFUL {
        let rules = accepted(template);
        for reason in ["abc", "a", "x", "aa"] {
            let job = Job { reason: Some(reason.into()), resource_name: None, id: "zz".into(), ..a_job() };
            failed += usize::from(said(&rules, job, "2021-05-12T03:56:50Z").fault.is_some());
        }
    }
    assert!(failed > 8, "{failed}");
}
