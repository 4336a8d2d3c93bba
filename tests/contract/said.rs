//! Everything that a receiver may be told, friendly and hostile.

use std::sync::{Arc, LazyLock};

use jobwatch::diff::{Points, Policy};
use jobwatch::document::File;
use jobwatch::model::alert::Severity;
use jobwatch::model::delivery::{Frozen, Held, Lane, Owed};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::listing::{Fault, FaultKind, Listing};
use jobwatch::model::memory::{Memory, Sight};
use jobwatch::model::notification::{Event, Notification, SourceFacts, Topic};
use jobwatch::model::time::Timestamp;
use jobwatch::plan::{Input, Room, SelfWatch, View, gather, lookout, plan, room_told};
use jobwatch::rules::{RuleSet, Surroundings, load};

/// 15 January 2027, 08:00 UTC.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// What tries to break out of a medium.
pub(crate) const HOSTILE: &str = "x\r\nBcc: y <script>alert(1)</script> <!channel> <@U1> @all @everyone <at id=all></at> [a](https://evil.example/) *b* `c` \\ & \u{202e}rtl \u{0} 夜间";

static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    let text = r#"
schema = 1
[[rule]]
id = "failed"
about = "Instance creation failed"
when = { to = "Failed" }
notify = ["it"]
severity = "critical"
resolve = { to = "Success" }
runbook = "https://wiki.example.org/registry?a=1&b=2"
labels = { team = "registry", "on-call" = "2nd", severity = "page" }
"#;
    let file = Arc::new(File { path: "rules.toml".into(), text: text.into() });
    let none = |_: &std::path::Path| Err("no files here".to_owned());
    load(&[file], &Surroundings { read: &none, receivers: None, windows: None, sources: None, follow_ups: None }).0
});

fn source() -> Arc<SourceFacts> {
    let region = Some("ap-southeast-3".to_owned());
    Arc::new(SourceFacts { name: "prod".into(), kind: "swr".into(), region, project_id: "p1".into() })
}

fn job(status: Status, reason: Option<&str>, name: &str, updated: &str) -> Job {
    Job {
        reason: reason.map(Into::into),
        resource_name: Some(name.into()),
        resource_id: Some("r1".into()),
        kind: Some("CreateInstance".into()),
        created_at: Some("2027-01-15T07:00:00Z".into()),
        updated_at: Some(updated.into()),
        ..Job::bare("36db69c5", status)
    }
}

/// What is owed when a job goes on from `memory`.
fn step(memory: &mut Memory, job: Job) -> Vec<Owed> {
    let (source, policy) = (source(), Policy::default());
    let plan = plan(Input {
        source: &source,
        before: memory,
        living: memory.snapshot.jobs.len(),
        listing: Listing::Complete(vec![job].into()),
        points: Points::new(),
        rules: &RULES,
        policy: &policy,
        now: NOW,
    });
    plan.remember(memory);
    plan.owed
}

/// A failed creation, and its end.
fn story(reason: &str, name: &str) -> Vec<Owed> {
    let mut memory = Memory::default();
    step(&mut memory, job(Status::Running, None, name, "2027-01-15T07:10:00Z"));
    let mut owed = step(&mut memory, job(Status::Failed, Some(reason), name, "2027-01-15T07:20:00Z"));
    owed.extend(step(&mut memory, job(Status::Success, None, name, "2027-01-15T07:30:00Z")));
    assert_eq!(owed.len(), 2);
    owed
}

/// A failed creation.
pub(crate) fn failed(reason: &str) -> Owed {
    story(reason, "prod-payments").remove(0)
}

/// That, and its end.
pub(crate) fn ended() -> (Owed, Owed) {
    let mut story = story("quota 17 exceeded", "prod-payments");
    let end = story.pop().unwrap();
    (story.pop().unwrap(), end)
}

/// Digests as a receiver with so much room for text gets them: of plain names and one cause, and of names full of marks and
/// a cause each.
pub(crate) fn digests(text_max: usize) -> Vec<Owed> {
    let mut digests = gathered(text_max, "prod-payments", |_| "failed to select cce cluster <n>".to_owned());
    let marks = "a_*`[<&\"\\>]()@#!".repeat(6);
    digests.extend(gathered(text_max, &marks, |n| format!("cause {n} of {marks}")));
    digests
}

fn gathered(text_max: usize, name: &str, class: impl Fn(usize) -> String) -> Vec<Owed> {
    let owed = story("failed to select cce cluster 17", name).remove(0);
    let held: Vec<Held> = (0..400)
        .map(|n| {
            let frozen = Frozen {
                id: format!("msg_{n}").as_str().into(),
                receiver: "it".into(),
                lane: Lane { source: Some("prod".into()), subject: format!("job-{n:05}-36db69c5").as_str().into() },
                event: owed.notification.event.as_str().to_owned(),
                title: owed.notification.title.clone(),
                created_at: NOW,
                seen_at: Some(NOW),
                payload: Vec::new(),
            };
            let mut data = owed.notification.data();
            data["job"]["id"] = frozen.lane.subject.as_str().into();
            Held { frozen, severity: Severity::Critical, class: class(n), group: String::new(), due_at: NOW, data }
        })
        .collect();
    gather(&held, 400, Room { text_max, ends_apart: false }, NOW).into_iter().filter_map(|(owed, _)| owed).collect()
}

/// The jobs that a digest is about, as its text names them.
pub(crate) fn ids(digest: &Owed) -> Vec<String> {
    let words = digest.notification.body.split(|c: char| !(c.is_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("job-0")).map(ToOwned::to_owned).collect()
}

fn blind() -> Vec<Owed> {
    let watch = SelfWatch { notify: vec!["it".into()], blind_after: std::time::Duration::from_secs(1) };
    let fault = Fault { kind: FaultKind::Unauthorized, text: format!("HTTP 401: {HOSTILE}"), retry_after: None };
    let since = Some(NOW.minus(std::time::Duration::from_secs(600)));
    let mut view = View {
        source: source(),
        sight: Sight { blind_since: since, ..Sight::default() },
        fault: Some(fault),
        seen_since: None,
        told_at: None,
    };
    let mut owed = lookout(&[&view], &watch, false, NOW).owed;
    view.sight = Sight { told_since: since, ..Sight::default() };
    view.fault = None;
    owed.extend(lookout(&[&view], &watch, false, NOW).owed);
    assert_eq!(owed.len(), 2);
    owed
}

fn own(event: Event, severity: Severity, topic: Topic) -> Owed {
    let notification =
        Notification { event, time: NOW, severity, title: "a test from jobwatch".into(), body: HOSTILE.into(), topic };
    Owed {
        id: "msg_probe".into(),
        receiver: "it".into(),
        lane: Lane { source: None, subject: "agent".into() },
        notification,
        pace: None,
    }
}

/// One of each, with texts that are short, long and hostile.
pub(crate) fn everything(text_max: usize) -> Vec<Owed> {
    let long = "长 reason & <b>\n".repeat(5_000);
    let mut all = story("quota 17 exceeded", "prod-payments");
    all.extend(story(HOSTILE, HOSTILE));
    all.extend(story(&long, &long));
    all.extend(digests(text_max));
    all.extend(blind());
    all.push(own(Event::Probe, Severity::Info, Topic::Probe("it".into())));
    let delivery = ("msg_x".to_owned(), HOSTILE.to_owned());
    let topic = Topic::Receiver { name: "other".into(), why: HOSTILE.into(), state: "dead", delivery };
    all.push(own(Event::ReceiverDead, Severity::Error, topic));
    let watch = SelfWatch { notify: vec!["it".into()], blind_after: std::time::Duration::from_secs(1) };
    let room = |used: u64, excess| room_told(used << 20, Some(1 << 30), excess, &watch, NOW, NOW);
    all.extend(room(2_000, 0));
    all.extend(room(1_000, 1));
    assert!(room(2_000, 1).is_empty() && room(1_000, 0).is_empty(), "nothing has changed");
    all
}
