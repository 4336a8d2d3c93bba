//! Signs of life: given while all is well, and not when a source is blind or a delivery is overdue.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jobwatch::simulator::{Fault, serve};
use tokio::sync::watch;

use crate::world::{Service, World, beside, bind, failed, job, soon};

/// What must be seen in no log.
const PATH: &str = "/ping/canary-heartbeat-31";

/// Somebody who hears signs of life.
struct Listener {
    heard: watch::Receiver<usize>,
    answer: watch::Sender<u16>,
}

impl Listener {
    /// One more, from now on.
    async fn hears(&mut self) {
        let now = *self.heard.borrow();
        drop(soon("a sign of life", self.heard.wait_for(|heard| *heard > now)).await);
    }
}

/// A service that gives signs of life ten times a second or more seldom, with these keys; it has seen the source.
async fn living(world: &World, source: &str, agent: &str) -> (Service, Listener) {
    let (listener, address) = bind().await;
    let (count, answer) = (watch::Sender::new(0), watch::Sender::new(200));
    let (heard, status) = (count.subscribe(), answer.subscribe());
    let hear = get(move || {
        count.send_modify(|count| *count += 1);
        let status = StatusCode::from_u16(*status.borrow()).unwrap();
        async move { status }
    });
    beside(serve(listener, Router::new().route(PATH, hear), std::future::pending()));
    world.write("heartbeat", &format!("http://{address}{PATH}"));
    let beat =
        "url = { file = \"heartbeat\" }, every = \"1s\", overdue_after = \"1s\", allow_targets = [\"127.0.0.1\"]";
    let config = world
        .config(source, "")
        .replace("[agent]", &format!("[agent]\nheartbeat = {{ {beat} }}\nblind_after = \"1s\"\n{agent}"));
    world.write("jobwatch.toml", &config);
    (world.watched_closely().await, Listener { heard, answer })
}

#[tokio::test]
async fn signs_of_life_stop_while_a_source_is_blind_and_while_a_delivery_is_overdue() {
    let world = World::new().await;
    world.swr.set_jobs(vec![job("a", "Running", 1)]);
    let (mut service, mut listener) = living(&world, "poll_every = \"100ms\"", "").await;
    listener.hears().await;

    world.swr.set_fault(Some(Fault::ServerError));
    let line = service.logged("no sign of life is given").await;
    assert!(line.contains("source prod has had no complete listing for"), "{line}");
    let heard = *listener.heard.borrow();
    service.logged_times("no sign of life", 3).await;
    assert_eq!(*listener.heard.borrow(), heard, "nobody hears anything meanwhile");
    world.swr.set_fault(None);
    listener.hears().await;
    service.logged("signs of life are heard again").await;

    world.inbox.answer_with(503, &[]);
    world.swr.set_jobs(vec![failed("a", 2, "x")]);
    let line = service.logged("deliveries to oncall wait").await;
    assert!(line.contains("no sign of life is given: 1 deliveries to oncall wait"), "{line}");
    let heard = *listener.heard.borrow();
    service.logged_times("deliveries to oncall wait", 2).await;
    assert_eq!(*listener.heard.borrow(), heard);
    world.inbox.answer_with(204, &[]);
    assert!(world.jobwatch(&["deliveries", "retry", "--receiver", "oncall"]).await.status.success());
    listener.hears().await;

    listener.answer.send_replace(500);
    let line = service.logged("nobody heard the sign of life").await;
    assert!(line.contains("HTTP 500"), "{line}");
    assert!(!service.log().contains("canary-heartbeat"), "the URL is a secret");
}
