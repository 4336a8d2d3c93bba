//! Text that means harm, and templates that fail, through the real binary to every target.

use jobwatch::model::job::{Job, Status};
use jobwatch::model::text::is_hidden;
use mail_parser::MessageParser;
use serde_json::Value;

use crate::world::{World, failed, job, rule, said, soon};

/// Names and reasons as somebody writes them who wants to reach further than this text.
fn hostile() -> Vec<String> {
    [
        "x\r\nBcc: everybody@example.org\r\n\r\n<p>hello",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "\"><a href=\"javascript:alert(1)\">x</a> {{ 7*7 }} {% raw %}",
        "<!channel> <!everyone> <@U1> @all @everyone @here <at id=all></at>",
        "inv\u{202e}gpj.exe \u{2066}isolated\u{2069} \u{200f}mark \u{61c}",
        "pr\u{200b}od\u{2060}-\u{feff}a \u{ad}\u{e0041}\u{e007f}",
        "\u{0}nul\u{0} \u{1b}[31mred\u{1b}[2J \u{9b}31m \u{7}\u{8}\u{7f}",
        "line\u{2028}separator\u{2029}next\u{85}and\u{b}tab\tform\u{c}feed\rreturn",
        "=?utf-8?B?SGFja2Vk?= .\r\n.\r\nQUIT",
        "👩\u{200d}🔧 夜间 cafe\u{301} \u{1f1e9}\u{1f1ea}",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        "long <b>é</b> ".repeat(1 << 16),
        format!("{}👩\u{200d}🔧👩\u{200d}🔧", "x".repeat(295)),
        format!("e{}", "\u{301}".repeat(400_000)),
        "\u{202e}".repeat(1 << 18),
        "\u{1}".repeat(1 << 18),
    ])
    .collect()
}

fn jobs() -> Vec<Job> {
    let one = |(n, text): (usize, String)| {
        let mut job = failed(&format!("j{n:02}"), 1, &text);
        job.resource_name = Some(text.as_str().into());
        job.kind = Some(text.as_str().into());
        job
    };
    // A status and an id as well.
    let word = "St\r\n2026-11-25T00:00:00Z ERROR forged \u{202e}\u{1b}[2J";
    let strange = Job { status: Status::read(word), ..failed(&format!("s{word}"), 1, word) };
    hostile().into_iter().enumerate().map(one).chain([strange]).collect()
}

/// What no reader's screen and no line of a log obeys.
fn harmless(text: &str, what: &str) {
    let harm = text.char_indices().find(|(_, c)| c.is_control() && !"\n\t".contains(*c) || is_hidden(*c));
    if let Some((at, c)) = harm {
        let near: String = text[..at].chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
        panic!("{what}: {c:?} after {near:?}");
    }
}

fn one_line(title: &Value, what: &str) {
    let title = title.as_str().unwrap();
    harmless(title, what);
    assert!(!title.contains(['\n', '\t']) && !title.is_empty(), "{what}: {title:?}");
    assert!(title.chars().count() <= 301, "{what}: {} characters", title.chars().count());
}

#[tokio::test]
async fn hostile_text_is_harmless_at_every_target() {
    let world = World::new().await;
    let url =
        "[receiver.plain]\nkind = \"webhook\"\nformat = \"plain\"\nurl = { file = \"url\" }\nrate = \"unlimited\"";
    let config = world.config("poll_every = \"100ms\"", "").replace(
        "[receiver.ops]",
        &format!("{url}\nallow_targets = [\"127.0.0.1\"]\n\n[receiver.ops]\nrate = \"unlimited\""),
    );
    world.write("jobwatch.toml", &config);
    let own =
        "message = { title = \"{{ job.resource_name }}: {{ reason }}\", body = \"{{ job.type }}\\n{{ reason }}\" }\n";
    let notify = rule("failed", "Failed", "oncall\", \"plain\", \"ops");
    // Once in our words, and once in a template's.
    world.write("rules/failed.toml", &notify.replace("when", "match = { id = { regex = \"[02468]$\" } }\nwhen"));
    let other =
        notify.replace("\"failed\"", "\"own\"").replace("when", "match = { id = { regex = \"[13579]$\" } }\nwhen");
    world.write("rules/own.toml", &format!("{other}{own}"));
    let any = notify.replace("\"failed\"", "\"any\"").replace("to = \"Failed\"", "to = \"*\"");
    world.write("rules/any.toml", &any.replace("when", "match = { id = { prefix = \"s\" } }\nwhen"));
    let jobs = jobs();
    assert!(world.jobwatch(&["poll"]).await.status.success());
    world.swr.set_jobs(jobs.clone());

    // A terminal.
    for arguments in [&["poll", "--dry-run"] as &[&str], &["poll", "--dry-run", "--format", "json"]] {
        let output = world.jobwatch(arguments).await;
        let (out, errors) = said(&output);
        assert!(output.status.success() && out.contains("j07"), "{errors}");
        harmless(&out, "poll");
        harmless(&errors, "poll's log");
    }

    let service = world.run();
    soon("the webhooks", world.inbox.reached(2 * jobs.len())).await;
    soon("the mails", async {
        while world.mailbox.mails().len() < jobs.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Webhooks: our words are tame, and data is data.
    for received in world.inbox.received() {
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        let data = if body["specversion"] == "1.0" { &body["data"] } else { &body };
        let job = jobs.iter().find(|job| data["job"]["id"] == job.id.as_str()).unwrap();
        let what = format!("webhook of {}", job.id);
        one_line(&data["title"], &what);
        harmless(data["body"].as_str().unwrap(), &what);
        let (sent, reason) =
            (data["reason"].as_str().unwrap(), job.reason.as_deref().unwrap().replace('\0', "\u{fffd}"));
        match sent.strip_suffix('…') {
            Some(start) => assert!(start.len() > 65_500 && reason.starts_with(start), "{what}"),
            None => assert_eq!(sent, reason, "{what}"),
        }
        assert_eq!(data["reason"], data["job"]["reason"]);
        assert!(received.body.len() < 1 << 20, "{what}: {} bytes", received.body.len());
        let strange = received.headers.iter().find(|(_, value)| value.chars().any(char::is_control));
        assert_eq!(strange, None, "{what}");
    }

    // Mail: each header once and in its place, nothing that a reader's program would act on.
    for mail in world.mailbox.mails() {
        let parsed = MessageParser::default().parse(mail.data.as_bytes()).unwrap();
        let mut names: Vec<&str> = parsed.headers().iter().map(|header| header.name()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        assert!(!names.iter().any(|name| name.eq_ignore_ascii_case("bcc")), "{names:?}");
        assert_eq!(mail.to, ["ops@example.org"]);
        let subject = parsed.subject().unwrap();
        one_line(&subject.into(), "subject");
        assert!(subject.chars().count() <= 151, "{subject}");
        assert_eq!((parsed.text_body_count(), parsed.html_body_count(), parsed.attachment_count()), (1, 1, 0));
        let (text, html) = (parsed.body_text(0).unwrap(), parsed.body_html(0).unwrap());
        harmless(&text.replace("\r\n", "\n"), "text");
        harmless(&html.replace("\r\n", "\n"), "html");
        let lower = html.to_lowercase();
        for active in ["<script", "<img", "<p>", "<b>", "href=\"javascript", "<at "] {
            assert!(!lower.contains(active), "{active} in {html}");
        }
        assert!(mail.data.len() < 3 << 20, "{} bytes", mail.data.len());
        assert!(mail.data.lines().all(|line| line.len() <= 998));
    }

    // The log.
    let log = service.log();
    harmless(&log, "log");
    assert!(log.lines().all(|line| line.starts_with("20") && line.len() < 40_000), "a line of its own");

    // What is kept, in print.
    let (list, _) = said(&world.jobwatch(&["deliveries", "list"]).await);
    harmless(&list, "list");
    assert_eq!(list.trim_end().lines().count(), 1 + 3 * jobs.len());
    let (json, _) = said(&world.jobwatch(&["deliveries", "list", "--format", "json"]).await);
    harmless(&json, "list in JSON");
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    for row in rows.iter().filter(|row| row["receiver"] != "plain") {
        let id = row["id"].as_str().unwrap();
        let (shown, _) = said(&world.jobwatch(&["deliveries", "show", id]).await);
        harmless(&shown, "show");
        let payload: Value = serde_json::from_str(shown.split_once("payload\n").unwrap().1).unwrap();
        if let Some(job) = jobs.iter().find(|job| payload["data"]["job"]["id"] == job.id.as_str()) {
            let sent = payload["data"]["job"]["reason"].as_str().unwrap();
            let reason = job.reason.as_deref().unwrap().replace('\0', "\u{fffd}");
            assert!(reason.starts_with(sent.trim_end_matches('…')), "escaped, and the same");
        }
    }
}

#[tokio::test]
async fn a_template_that_fails_at_run_time_is_replaced_in_the_same_cycle_and_the_log_says_where_it_failed() {
    let world = World::new().await;
    world.write("rules/failed.md", "{{ rule.about }}\n\nafter {{ 100 // (reason|length - 9) }} tries\n");
    let message = "message = { title = \"{{ job.resource_name }} is broken\", body_file = \"failed.md\" }\n";
    world.write("rules/failed.toml", &format!("{}{message}", rule("failed", "Failed", "oncall")));
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let mut service = world.watched().await;
    world.swr.set_jobs(vec![failed("a", 2, "no quota!")]);
    let received = soon("the webhook", world.inbox.next(0)).await;
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    let fault = "rule `failed`: its body (failed.md) failed at 3:10: invalid operation: unable to calculate 100 // 0";
    assert_eq!(body["data"]["title"], "instance-a is broken");
    assert_eq!(
        body["data"]["body"],
        format!(
            "CreateInstance of instance-a went from Running to Failed.\nReason: no quota!\n\n({fault}. This is the built-in text.)"
        )
    );
    let line = service.logged("a template failed").await;
    assert!(line.contains("ERROR") && line.contains(fault), "{line}");
    assert_eq!(world.inbox.count(), 1, "told once");
}
