//! The metrics of a service at work, as Prometheus reads them.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use jobwatch::simulator::Fault;

use crate::reload::{address, ask, world_with};
use crate::world::{failed, job, rule, soon};

/// What Prometheus 2 says that it takes.
const ACCEPT: &str = "accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

async fn scrape(admin: SocketAddr) -> String {
    let (status, head, text) = ask(admin, "GET /metrics", &["host: localhost"]).await;
    assert_eq!(status, 200, "{text}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    text
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

/// Waits until a scrape shows it.
async fn shown(admin: SocketAddr, series: &str, holds: impl Fn(f64) -> bool) -> String {
    let look = async {
        loop {
            let text = scrape(admin).await;
            if holds(value(&text, series)) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(series, look).await
}

#[tokio::test]
async fn what_happens_is_counted_and_what_has_not_happened_is_0() {
    let world = world_with("", "").await;
    world.swr.set_jobs(vec![job("a", "Running", 1), job("b", "Frozen\"\n", 1)]);
    world.write("rules/success.toml", &rule("ended", "Success", "oncall"));
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    let text = scrape(admin).await;
    for (series, wanted) in [
        ("jobwatch_jobs{source=\"prod\",status=\"Running\"}", 1.0),
        ("jobwatch_jobs{source=\"prod\",status=\"Frozen\"}", 0.0),
        ("jobwatch_jobs{source=\"prod\",status=\"Success\"}", 0.0),
        ("jobwatch_transitions_total{source=\"prod\",from=\"Running\",to=\"Failed\"}", 0.0),
        ("jobwatch_polls_total{source=\"prod\",outcome=\"throttled\"}", 0.0),
        ("jobwatch_rule_matches_total{rule=\"failed\"}", 0.0),
        ("jobwatch_rule_matches_total{rule=\"ended\"}", 0.0),
        ("jobwatch_attempts_total{receiver=\"ops\",outcome=\"unreachable\"}", 0.0),
        ("jobwatch_deliveries_total{receiver=\"oncall\",verdict=\"dead\"}", 0.0),
        ("jobwatch_outbox_pending{receiver=\"oncall\"}", 0.0),
        ("jobwatch_outbox_oldest_seconds{receiver=\"oncall\"}", 0.0),
        ("jobwatch_detection_to_delivery_seconds_count{receiver=\"oncall\"}", 0.0),
        ("jobwatch_config_last_reload_successful", 1.0),
    ] {
        if series.contains("Frozen") {
            let frozen = text.lines().find(|line| line.contains("status=\"Frozen"));
            assert!(frozen.is_some_and(|line| line.ends_with(" 1")), "{text}");
        } else {
            assert_eq!(value(&text, series), wanted, "{series}");
        }
    }
    let seen_at = value(&text, "jobwatch_last_complete_listing_timestamp_seconds{source=\"prod\"}");
    assert!(seen_at > 1.7e9, "{seen_at}");

    // A receiver that is away, and then back.
    world.inbox.answer_with(503, &[]);
    world.swr.set_jobs(vec![failed("a", 2, "x"), job("b", "Frozen\"\n", 1)]);
    let refused = "jobwatch_attempts_total{receiver=\"oncall\",outcome=\"unreachable\"}";
    let text = shown(admin, refused, |count| count >= 1.0).await;
    assert_eq!(value(&text, "jobwatch_outbox_pending{receiver=\"oncall\"}"), 1.0);
    assert!(value(&text, "jobwatch_outbox_oldest_seconds{receiver=\"oncall\"}") > 0.0);
    assert_eq!(value(&text, "jobwatch_jobs{source=\"prod\",status=\"Running\"}"), 0.0);
    assert_eq!(value(&text, "jobwatch_jobs{source=\"prod\",status=\"Failed\"}"), 1.0);
    assert_eq!(value(&text, "jobwatch_transitions_total{source=\"prod\",from=\"Running\",to=\"Failed\"}"), 1.0);
    assert_eq!(value(&text, "jobwatch_rule_matches_total{rule=\"failed\"}"), 1.0);
    world.inbox.answer_with(204, &[]);
    assert!(world.jobwatch(&["deliveries", "retry", "--receiver", "oncall"]).await.status.success());
    let delivered = "jobwatch_deliveries_total{receiver=\"oncall\",verdict=\"delivered\"}";
    let text = shown(admin, delivered, |count| count == 1.0).await;
    assert_eq!(value(&text, "jobwatch_detection_to_delivery_seconds_count{receiver=\"oncall\"}"), 1.0);
    let pending = "jobwatch_outbox_pending{receiver=\"oncall\"}";
    shown(admin, pending, |count| count == 0.0).await;

    // A source that cannot be seen.
    world.swr.set_fault(Some(Fault::Unauthorized));
    shown(admin, "jobwatch_polls_total{source=\"prod\",outcome=\"unauthorized\"}", |count| count >= 1.0).await;

    let (_, head, open) = ask(admin, "GET /metrics", &["host: localhost", ACCEPT]).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(open.contains("# TYPE jobwatch_polls counter\n") && open.ends_with("# EOF\n"), "{open}");
    promtool(&scrape(admin).await);
}

/// Has Prometheus's own tool judge a scrape, where it is installed; `./test` sees to that.
fn promtool(text: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else { return };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_series_of_a_rule_begin_and_end_with_it() {
    let world = world_with("", "").await;
    let mut service = world.run();
    let admin = address(&mut service).await;
    service.logged("baseline").await;
    world.write("rules/failed.toml", &rule("ended", "Success", "oncall"));
    service.signal("HUP");
    service.logged("were read anew").await;
    let text = scrape(admin).await;
    assert_eq!(value(&text, "jobwatch_rule_matches_total{rule=\"ended\"}"), 0.0);
    assert!(!text.contains("rule=\"failed\""), "{text}");
}
