//! The life of a delivery: retried, refused, slowed down, replayed. Time is a clock that the story moves; the receivers
//! are real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use jobwatch::clock::Clock;
use jobwatch::model::delivery::DeliveryState;
use jobwatch::store::{Again, Filter};
use serde_json::Value;

use crate::stage::{START, Stage, minutes};
use crate::world::{World, failed, job, said};

#[tokio::test]
async fn a_receiver_that_is_down_for_ten_minutes_loses_nothing_and_hears_in_order() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(503, &[]);
    stage.poll(vec![failed("a", 1, "first"), failed("b", 1, "other")]).await;
    stage.until(minutes(2)).await;
    stage.poll(vec![job("a", "Running", 2), failed("b", 1, "other")]).await;
    stage.poll(vec![failed("a", 3, "second"), failed("b", 1, "other")]).await;
    stage.until(minutes(10)).await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Pending));
    stage.world.inbox.answer_with(204, &[]);
    let down = stage.world.inbox.received();
    stage.until(minutes(40)).await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
    let up: Vec<_> = stage.world.inbox.received().split_off(down.len());
    let heard = |job: &str| -> Vec<String> {
        let bodies = up.iter().map(|received| serde_json::from_slice::<Value>(&received.body).unwrap());
        bodies
            .filter(|body| body["subject"] == job)
            .map(|body| body["data"]["reason"].as_str().unwrap().into())
            .collect()
    };
    assert_eq!((heard("a"), heard("b")), (vec!["first".to_owned(), "second".into()], vec!["other".to_owned()]));
    let (first, last) =
        (&down[0], up.iter().find(|received| received.header("webhook-id") == down[0].header("webhook-id")));
    let last = last.unwrap();
    assert_eq!(first.body, last.body, "every attempt sends the same bytes");
    assert_ne!(first.header("webhook-timestamp"), last.header("webhook-timestamp"));
    assert_ne!(first.header("webhook-signature"), last.header("webhook-signature"));
    assert!(down.len() < 40, "{} attempts in ten minutes", down.len());
}

#[tokio::test]
async fn a_receiver_that_answers_400_is_told_of_at_once_and_tried_again_slowly() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(400, &[]);
    stage.poll(vec![failed("a", 1, "x"), failed("b", 1, "y")]).await;
    stage.until(Duration::from_secs(1)).await;
    let mails = stage.world.mailbox.mails();
    assert_eq!((mails.len(), mails[0].to.as_slice()), (1, ["ops@example.org".to_owned()].as_slice()), "told once");
    let mail = mail_parser::MessageParser::default().parse(mails[0].data.as_bytes()).unwrap();
    let text = mail.body_text(0).unwrap();
    assert!(text.contains("oncall refuses what it is sent: HTTP 400") && text.contains("instance-a: x"), "{text}");
    assert_eq!(stage.world.inbox.received().len(), 2);
    stage.until(minutes(2)).await;
    assert_eq!(stage.world.inbox.received().len(), 2, "not hammered");
    stage.until(minutes(120)).await;
    let tries = stage.world.inbox.received().len();
    assert!((4..14).contains(&tries), "{tries} tries in two hours");
    stage.world.inbox.answer_with(204, &[]);
    stage.until(minutes(200)).await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
    assert_eq!(stage.world.mailbox.mails().len(), 1);
}

#[tokio::test]
async fn a_refusal_that_lasts_a_day_ends_dead_kept_told_and_replayable_under_its_id() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(404, &[]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(minutes(25 * 60)).await;
    let dead = stage.oncall().await;
    assert_eq!((dead.state, dead.note.as_str()), (DeliveryState::Dead, "HTTP 404"));
    let mails = stage.world.mailbox.mails();
    assert_eq!(mails.len(), 2, "refused, and then given up");
    assert!(mails[1].data.contains("given up"));
    stage.world.inbox.answer_with(200, &[]);
    let (out, _) = said(&stage.world.jobwatch(&["deliveries", "retry", "--dead"]).await);
    assert!(out.contains(dead.id.as_str()), "{out}");
    // The command wrote the machine's time; the story's clock stands elsewhere.
    stage.clock.advance(Clock::system().now().since(stage.clock.now()));
    stage.until(minutes(26 * 60)).await;
    assert_eq!(stage.oncall().await.state, DeliveryState::Delivered);
    let received = stage.world.inbox.received();
    assert!(received.iter().all(|one| one.header("webhook-id") == dead.id.as_str()));
}

#[tokio::test]
async fn a_429_with_retry_after_waits_that_long() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(429, &[("retry-after", "1000")]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(Duration::from_secs(999)).await;
    assert_eq!(stage.world.inbox.received().len(), 1);
    assert_eq!(stage.oncall().await.due_at, START.plus(Duration::from_secs(1000)));
    stage.world.inbox.answer_with(204, &[]);
    stage.until(Duration::from_secs(1000)).await;
    assert_eq!(stage.oncall().await.state, DeliveryState::Delivered);
    assert!(stage.world.mailbox.mails().is_empty(), "throttling is no refusal");
}

#[tokio::test]
async fn a_receiver_that_is_never_back_is_given_up_after_its_budget() {
    let stage = Stage::new("retry = { first = \"5s\", max = \"10m\", give_up_after = \"1h\" }").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(500, &[]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(minutes(59)).await;
    assert_eq!(stage.oncall().await.state, DeliveryState::Pending);
    stage.until(minutes(61)).await;
    let dead = stage.oncall().await;
    assert_eq!(dead.state, DeliveryState::Dead);
    assert_eq!(dead.ended_at.map(|at| at.since(START).as_secs() / 60), Some(60), "the last try is made at the horizon");
}

#[tokio::test]
async fn behind_a_receiver_that_is_away_everything_is_given_up_in_time_and_told_once() {
    const JOBS: usize = 700;
    let more =
        "retry = { first = \"5s\", max = \"10m\", give_up_after = \"1h\" }\nfallback = \"ops\"\nrate = \"unlimited\"";
    let stage = Stage::new(more).await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(503, &[]);
    let all = |from: usize| (from..from + JOBS).map(|n| failed(&format!("j{n:04}"), 1, "x")).collect::<Vec<_>>();
    stage.poll(all(0)).await;
    stage.until(minutes(69)).await;
    let count = async |state| {
        let filter = Filter { state: Some(state), limit: 9_999, ..Filter::default() };
        let found = stage.store.deliveries(filter).await.unwrap();
        found.items.into_iter().filter(|one| one.receiver.as_str() == "oncall").count()
    };
    assert!(count(DeliveryState::Pending).await > JOBS - 30, "there is time for the last attempt");
    // These have their time before them.
    let later: Vec<_> = all(0).into_iter().chain(all(JOBS).into_iter().take(10)).collect();
    stage.poll(later).await;
    stage.until(minutes(76)).await;
    assert_eq!((count(DeliveryState::Pending).await, count(DeliveryState::Dead).await), (10, JOBS));
    let tries = stage.world.inbox.received().len();
    assert!(tries < 60, "{tries} attempts");
    let mails: Vec<String> = stage.world.mailbox.mails().into_iter().map(|mail| mail.data).collect();
    let given_up = mails.iter().filter(|mail| mail.contains("given up"));
    assert_eq!(given_up.count(), 1, "{mails:?}");
    stage.world.inbox.answer_with(204, &[]);
    let again = stage.store.again(Again::Dead(None), stage.clock.now()).await.unwrap();
    assert_eq!(again.len(), JOBS);
    stage.until(minutes(90)).await;
    assert_eq!(count(DeliveryState::Delivered).await, JOBS + 10, "with a budget of their own");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(302, &[("location", "/elsewhere")]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(Duration::from_secs(1)).await;
    let received = stage.world.inbox.received();
    assert_eq!((received.len(), received[0].path.as_str()), (1, "/hook/canary-path-77"));
    assert!(stage.oncall().await.note.contains("redirects are not followed"));
}

#[tokio::test]
async fn a_receiver_that_answers_410_is_left_alone_told_of_once_and_opened_by_the_operator() {
    let stage = Stage::new("fallback = \"ops\"").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(410, &[]);
    stage.poll(vec![failed("a", 1, "x"), failed("b", 1, "y")]).await;
    stage.until(minutes(300)).await;
    stage.poll(vec![failed("a", 1, "x"), failed("b", 1, "y"), failed("c", 1, "z")]).await;
    stage.until(minutes(5 * 24 * 60)).await;
    let tries = stage.world.inbox.received().len();
    assert!(tries <= 2, "{tries} attempts");
    let all = stage.all().await;
    let held = all.iter().filter(|one| one.receiver.as_str() == "oncall" && one.state == DeliveryState::Pending);
    assert_eq!(held.count(), 3, "held, not given up, however long it takes");
    let mails = stage.world.mailbox.mails();
    assert_eq!(mails.len(), 1);
    let mail = mail_parser::MessageParser::default().parse(mails[0].data.as_bytes()).unwrap();
    assert!(mail.subject().unwrap().contains("oncall says that it is no more"), "{:?}", mail.subject());
    assert!(mail.body_text(0).unwrap().contains("jobwatch deliveries retry --receiver oncall"));
    let (_, warned) = said(&stage.world.jobwatch(&["deliveries", "list"]).await);
    assert!(warned.contains("oncall said") && warned.contains("that it is no more"), "{warned}");
    let (shown, _) = said(&stage.world.jobwatch(&["deliveries", "show", stage.oncall().await.id.as_str()]).await);
    assert!(shown.contains("next      nothing: oncall retired"), "{shown}");
    // The first one that is tried is answered so again: it is held again, and nobody is told again.
    let (out, _) = said(&stage.world.jobwatch(&["deliveries", "retry", "--receiver", "oncall"]).await);
    assert!(out.starts_with("oncall is open again"), "{out}");
    stage.clock.advance(Clock::system().now().since(stage.clock.now()) + minutes(1));
    stage.agent.turn().await;
    assert_eq!((stage.world.inbox.received().len(), stage.world.mailbox.mails().len()), (tries + 1, 1));
    stage.world.inbox.answer_with(204, &[]);
    stage.world.jobwatch(&["deliveries", "retry", "--receiver", "oncall"]).await;
    stage.clock.advance(minutes(1));
    stage.agent.turn().await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
}

const CRITICAL: &str = r#"
schema = 1
[[rule]]
id = "failed"
when = { to = "Failed" }
notify = ["oncall"]
severity = "critical"
"#;

#[tokio::test]
async fn a_critical_delivery_that_is_not_accepted_in_time_reaches_the_fallback_once_and_is_still_tried() {
    let world = World::new().await;
    world.write("rules/failed.toml", CRITICAL);
    let stage = Stage::in_world(world, "fallback = \"ops\"").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(503, &[("retry-after", "3600")]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    // This one is not even tried: the receiver asked for rest.
    stage.poll(vec![failed("a", 1, "x"), failed("b", 1, "y")]).await;
    stage.until(Duration::from_secs(179)).await;
    assert!(stage.world.mailbox.mails().is_empty());
    stage.until(Duration::from_secs(180)).await;
    let mails = stage.world.mailbox.mails();
    let read = |data: &str| {
        let mail = mail_parser::MessageParser::default().parse(data.as_bytes()).unwrap();
        (mail.subject().unwrap().to_owned(), mail.body_text(0).unwrap().into_owned())
    };
    let mut told: Vec<(String, String)> = mails.iter().map(|mail| read(&mail.data)).collect();
    told.sort();
    assert!(told.len() == 2 && told[0].1.contains("instance-a: x") && told[1].1.contains("instance-b: y"), "{told:?}");
    assert!(told[0].1.contains("oncall has not taken this within 3 min"), "{}", told[0].1);
    stage.world.inbox.answer_with(204, &[]);
    stage.until(minutes(120)).await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
    assert_eq!(stage.world.mailbox.mails().len(), 2);
}

#[tokio::test]
async fn critical_ones_that_were_gathered_reach_the_fallback_too_by_name_and_without_those_that_are_over() {
    let world = World::new().await;
    let rules =
        format!("{CRITICAL}resolve = {{ to = \"Success\" }}\ngroup = {{ by = [\"source\"], wait = \"20s\" }}\n");
    world.write("rules/failed.toml", &rules);
    let stage = Stage::in_world(world, "fallback = \"ops\"").await;
    stage.poll(vec![]).await;
    stage.poll(vec![failed("a", 1, "x")]).await;
    let over = job("a", "Success", 2);
    stage.world.inbox.answer_with(503, &[]);
    stage.poll(vec![over.clone(), failed("b", 1, "x"), failed("c", 1, "x")]).await;
    stage.clock.advance(Duration::from_secs(25));
    stage.poll(vec![over, failed("b", 1, "x"), failed("c", 1, "x")]).await;
    stage.until(Duration::from_secs(25 + 179)).await;
    assert!(stage.world.mailbox.mails().is_empty());
    stage.until(minutes(5)).await;
    let mails = stage.world.mailbox.mails();
    assert_eq!(mails.len(), 1);
    let mail = mail_parser::MessageParser::default().parse(mails[0].data.as_bytes()).unwrap();
    let text = mail.body_text(0).unwrap();
    assert!(text.contains("oncall has not taken this within 3 min"), "{text}");
    assert!(text.contains("[prod b]") && text.contains("[prod c]") && !text.contains("[prod a]"), "{text}");
}

#[tokio::test]
async fn a_critical_delivery_that_is_accepted_in_time_is_nobody_elses() {
    let world = World::new().await;
    world.write("rules/failed.toml", CRITICAL);
    let stage = Stage::in_world(world, "fallback = \"ops\"").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(503, &[]);
    stage.poll(vec![failed("a", 1, "x")]).await;
    stage.until(minutes(2)).await;
    let tries = stage.world.inbox.received().len();
    assert!(tries >= 5, "{tries} tries in two minutes");
    stage.world.inbox.answer_with(204, &[]);
    stage.until(minutes(60)).await;
    assert_eq!((stage.oncall().await.state, stage.world.mailbox.mails().len()), (DeliveryState::Delivered, 0));
}

#[tokio::test]
async fn after_a_day_of_outage_everything_is_delivered_in_order_and_the_receiver_was_not_hammered() {
    const JOBS: u32 = 60;
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(503, &[]);
    let name = |n: u32| format!("j{n:02}");
    for hour in 0..24_u32 {
        // Every job fails anew each second hour, and runs in between.
        let jobs = (0..JOBS).map(|n| match hour % 2 {
            0 => failed(&name(n), hour * 60 + n, &format!("{hour:02}")),
            _ => job(&name(n), "Running", hour * 60 + n),
        });
        stage.poll(jobs.collect()).await;
        stage.until(minutes(60 * u64::from(hour + 1))).await;
    }
    let down = stage.world.inbox.take().len();
    assert!((250..700).contains(&down), "{down} attempts in a day");
    stage.world.inbox.answer_with(204, &[]);
    stage.until(minutes(24 * 60 + 6)).await;
    assert!(stage.all().await.iter().all(|delivery| delivery.state == DeliveryState::Delivered));
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for received in stage.world.inbox.take() {
        let body: Value = serde_json::from_slice(&received.body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        heard.entry(text(&body["subject"])).or_default().push(text(&body["data"]["reason"]));
    }
    let hours: Vec<String> = (0..24).step_by(2).map(|hour| format!("{hour:02}")).collect();
    assert_eq!(heard.len(), JOBS as usize);
    assert!(heard.values().all(|reasons| *reasons == hours), "each once, in order: {heard:?}");
}

#[tokio::test]
async fn an_operator_drops_what_nobody_wants_and_exports_the_rest() {
    let stage = Stage::new("").await;
    stage.poll(vec![]).await;
    stage.world.inbox.answer_with(500, &[]);
    stage.poll(vec![failed("a", 1, "x"), failed("b", 1, "y")]).await;
    let id = stage.oncall().await.id;
    let drop = ["deliveries", "drop", id.as_str(), "--author", "ann", "--comment", "known"];
    let (out, _) = said(&stage.world.jobwatch(&drop).await);
    assert_eq!(out, format!("{id} is dropped\n"));
    let again = stage.world.jobwatch(&drop).await;
    assert_eq!((again.status.code(), said(&again).1), (Some(3), format!("error: {id} has ended already\n")));
    stage.world.inbox.answer_with(204, &[]);
    stage.until(minutes(60)).await;
    let (exported, _) = said(&stage.world.jobwatch(&["deliveries", "export"]).await);
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = |line: &Value| {
        let (delivery, subject) = (&line["delivery"], line["payload"]["subject"].as_str().unwrap().to_owned());
        (subject, delivery["state"].as_str().unwrap().to_owned(), delivery["note"].as_str().unwrap().to_owned())
    };
    let mut rows: Vec<_> = lines.iter().map(row).collect();
    rows.sort();
    let (kept, dropped): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, state, _)| state == "delivered");
    assert_eq!((kept.len(), dropped.len(), dropped[0].1.as_str()), (1, 1, "dropped"));
    assert_eq!(dropped[0].2, "dropped by ann: known; before that: HTTP 500");
    let (shown, _) = said(&stage.world.jobwatch(&["deliveries", "show", id.as_str()]).await);
    assert!(shown.contains(", dropped by ann: known"), "{shown}");
}
