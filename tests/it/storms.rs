//! Many failures at once: nobody is flooded, the first of each cause is told at once, and every job is named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jobwatch::model::job::Job;
use jobwatch::model::time::Timestamp;
use serde_json::Value;

use crate::stage::Stage;
use crate::world::{World, failed, job};

const JOBS: usize = 10_000;
const REASONS: [&str; 3] = ["quota 17 exceeded", "failed to select cce cluster", "subnet 10.0.0.0/24 is full"];

const RULES: &str = r#"
schema = 1
[[rule]]
id = "failed"
when = { to = "Failed" }
notify = ["oncall", "ops"]
cooldown = "10m"
"#;

/// A message that somebody got, and when.
struct Heard {
    at: Timestamp,
    title: String,
    jobs: Vec<String>,
}

/// What the webhook receiver heard, in order.
fn webhooks(stage: &Stage, at: Timestamp) -> Vec<Heard> {
    let read = |body: &[u8]| {
        let body: Value = serde_json::from_slice(body).unwrap();
        let data = &body["data"];
        let id = |job: &Value| job["job"]["id"].as_str().unwrap().to_owned();
        let jobs = data["jobs"].as_array().map_or_else(|| vec![id(data)], |jobs| jobs.iter().map(id).collect());
        Heard { at, title: data["title"].as_str().unwrap().to_owned(), jobs }
    };
    stage.world.inbox.take().iter().map(|received| read(&received.body)).collect()
}

#[tokio::test]
async fn ten_thousand_jobs_that_fail_at_once_for_three_causes_flood_nobody_and_every_one_is_named() {
    let world = World::new().await;
    world.write("rules/failed.toml", RULES);
    let stage = Stage::in_world(world, "rate = \"10/m\"").await;
    let name = |n: usize| format!("j{n:05}");
    stage.poll((0..JOBS).map(|n| job(&name(n), "Running", 1)).collect()).await;
    let after: Vec<Job> = (0..JOBS).map(|n| failed(&name(n), 2, REASONS[n % 3])).collect();
    let mut heard: Vec<Heard> = Vec::new();
    for _ in 0..12 {
        stage.poll(after.clone()).await;
        heard.extend(webhooks(&stage, stage.clock.now()));
        stage.clock.advance(Duration::from_secs(30));
    }
    let start = heard[0].at;
    let first: Vec<&str> = heard.iter().take(3).map(|heard| heard.title.as_str()).collect();
    assert_eq!(first, REASONS.map(|reason| format!("instance-{}: {reason}", name_of(reason))));
    assert!(heard[..3].iter().all(|heard| heard.at == start && heard.jobs.len() == 1));
    for (n, one) in heard.iter().enumerate() {
        let minute = heard[n..].iter().take_while(|later| later.at.since(one.at) < Duration::from_secs(60)).count();
        assert!(minute <= 10, "{minute} messages in a minute");
    }
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    heard.iter().flat_map(|heard| &heard.jobs).for_each(|job| *named.entry(job).or_default() += 1);
    assert_eq!((named.len(), named.values().max()), (JOBS, Some(&1)), "every job is named, once");
    let digest = heard.iter().find(|heard| heard.jobs.len() > 1).unwrap();
    assert!(digest.title.starts_with("1000 jobs: 334× "), "{}", digest.title);

    let mails = stage.world.mailbox.mails();
    assert!((3..=20).contains(&mails.len()), "{} mails", mails.len());
    let mut mailed = BTreeSet::new();
    for mail in &mails {
        let mail = mail_parser::MessageParser::default().parse(mail.data.as_bytes()).unwrap();
        let text = mail.body_text(0).unwrap().into_owned();
        let ids = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() == 6 && word.starts_with('j'));
        mailed.extend(ids.map(ToOwned::to_owned));
    }
    assert_eq!(mailed.len(), JOBS, "every job is named in a mail too");
    assert!(stage.store.holding(stage.clock.now()).await.unwrap().is_empty());
}

/// The first job that failed for this reason.
fn name_of(reason: &str) -> &'static str {
    ["j00000", "j00001", "j00002"][REASONS.iter().position(|known| *known == reason).unwrap()]
}
