//! The life of a delivery: retried, refused, slowed down, replayed. Time is a clock that the story moves; the receivers
//! are real servers.

use std::time::Duration;

use jobwatch::clock::Clock;
use jobwatch::model::delivery::DeliveryState;
use serde_json::Value;

use crate::stage::{START, Stage, minutes};
use crate::world::{failed, job, said};

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
