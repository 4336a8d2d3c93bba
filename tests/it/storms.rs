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

/// What the webhook receiver heard at each poll, half a minute apart.
async fn heard_at(stage: &Stage, listings: &[Vec<Job>]) -> Vec<Vec<String>> {
    let mut heard = Vec::new();
    for jobs in listings {
        stage.poll(jobs.clone()).await;
        let titles = webhooks(stage, stage.clock.now()).into_iter().map(|one| one.title);
        heard.push(titles.map(|title| title.replace("instance-", "")).collect());
        stage.clock.advance(Duration::from_secs(30));
    }
    heard
}

#[tokio::test]
async fn a_group_tells_the_first_of_each_class_at_once_and_the_rest_together_in_order_with_their_ends() {
    let world = World::new().await;
    let group = "group = { by = [\"source\", \"type\"], wait = \"40s\" }\nresolve = { to = \"Success\" }";
    world.write("rules/failed.toml", &RULES.replace("cooldown = \"10m\"", group));
    let stage = Stage::in_world(world, "rate = \"unlimited\"").await;
    let running = |id: &str| job(id, "Running", 1);
    let ids = ["a", "b", "c", "d", "e"];
    stage.poll(ids.map(running).into()).await;
    let quota = |id: &str, n: u32| failed(id, 2, &format!("quota {n}"));
    let disk = |id: &str| failed(id, 2, "disk full");
    let first = vec![quota("a", 1), quota("b", 2), disk("c"), running("d"), running("e")];
    let second = vec![quota("a", 1), quota("b", 2), disk("c"), quota("d", 3), disk("e")];
    let mended = vec![quota("a", 1), job("b", "Success", 3), disk("c"), quota("d", 3), disk("e")];
    let heard = heard_at(&stage, &[first, second, mended.clone(), mended.clone(), mended]).await;
    assert_eq!(heard[0], ["a: quota 1", "c: disk full"], "the first of each class");
    assert!(heard[1].is_empty(), "the group gathers: {heard:?}");
    // At 60 s the forty seconds are over: what waited, and the end of b's failure, which comes after it.
    assert_eq!(heard[2], ["3 jobs: 2× quota <n>, 1× disk full, 1× resolved"]);
    assert!(heard[3].is_empty() && heard[4].is_empty(), "{heard:?}");
    assert!(stage.store.holding(stage.clock.now()).await.unwrap().is_empty());
    let digest =
        stage.all().await.into_iter().find(|one| one.event.ends_with("digest") && one.receiver.as_str() == "oncall");
    let dossier = stage.store.dossier(&digest.unwrap().id).await.unwrap().unwrap();
    let body: Value = serde_json::from_slice(&dossier.payload).unwrap();
    let one = |job: &Value| format!("{} {}", job["job"]["id"].as_str().unwrap(), job["state"].as_str().unwrap());
    let inside: Vec<String> = body["data"]["jobs"].as_array().unwrap().iter().map(one).collect();
    assert_eq!(inside, ["b firing", "d firing", "e firing", "b resolved"]);
    let mails = stage.world.mailbox.mails();
    assert_eq!(mails.len(), 3, "each receiver has a group of its own");
}
