//! A cloud that answers wrongly: a clear line, no false transition, and the next poll recovers.

use jobwatch::model::job::Job;
use jobwatch::simulator::Fault;
use serde_json::Value;

use crate::world::{World, failed, job, soon};

/// The service watches 250 running jobs; the cloud goes wrong; then it is well again and one job has failed.
async fn goes_wrong(fault: Fault, line: &str, kind: &str) {
    let world = World::new().await;
    let jobs = |n: usize| -> Vec<Job> { (0..n).map(|n| job(&format!("j{n:03}"), "Running", 1)).collect() };
    world.swr.set_jobs(jobs(250));
    let mut service = world.watched().await;
    world.swr.set_fault(Some(fault));
    let logged = service.logged("no complete listing").await;
    assert!(logged.contains(line) && logged.contains(kind), "{fault:?}: {logged}");
    let mut after = jobs(250);
    after[42] = failed("j042", 2, "real");
    world.swr.set_jobs(after);
    world.swr.set_fault(None);
    service.logged("complete again").await;
    let received = soon("the webhook", world.inbox.next(0)).await;
    let body: Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!((&body["subject"], &body["data"]["reason"]), (&"j042".into(), &"real".into()));
    service.logged(" transition ").await;
    let log = service.log();
    let steps: Vec<&str> = log.lines().filter(|line| line.contains(" transition ")).collect();
    let real: Vec<&&str> = steps.iter().filter(|line| !line.contains("shift-") && !line.contains("tail-")).collect();
    assert_eq!(real.len(), 1, "no false transition: {real:#?}");
    assert_eq!(world.inbox.received().len(), 1);
}

#[tokio::test]
async fn an_html_page_with_status_200_is_no_empty_listing() {
    goes_wrong(Fault::Html, "no listing: 58 bytes of text/html", "malformed").await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_listing() {
    goes_wrong(Fault::Truncated, "error reading a body", "unavailable").await;
}

#[tokio::test]
async fn half_a_document_is_no_listing() {
    goes_wrong(Fault::NotJson, "EOF while parsing", "malformed").await;
}

#[tokio::test]
async fn an_empty_body_is_no_empty_listing() {
    goes_wrong(Fault::Empty, "an empty body", "malformed").await;
}

#[tokio::test]
async fn a_listing_whose_pages_shift_is_read_again_and_then_called_incomplete() {
    goes_wrong(Fault::Shifting, "the listing moved while it was read, 3 times", "shifted").await;
}

#[tokio::test]
async fn a_total_that_disagrees_with_the_rows_is_no_empty_listing() {
    goes_wrong(Fault::Disagreeing, "the listing ends after 0 rows, but `total` is 257", "shifted").await;
}

#[tokio::test]
async fn a_401_says_what_to_do_about_the_token() {
    goes_wrong(Fault::Unauthorized, "HTTP 401 APIGW.0301: Incorrect IAM authentication", "unauthorized").await;
}

#[tokio::test]
async fn a_403_names_the_permission() {
    goes_wrong(Fault::Forbidden, "HTTP 403 SVCSTG.SWR.4030170: Insufficient permissions", "swr:instance:listJobs")
        .await;
}

#[tokio::test]
async fn a_400_is_told_with_its_code() {
    goes_wrong(
        Fault::BadRequest,
        "HTTP 400 SVCSTG.SWR.4000016: Request error (request 8f3c1d5e7a9b4c6d)",
        "misdirected",
    )
    .await;
}

#[tokio::test]
async fn a_500_is_told_with_its_code_and_request_id() {
    goes_wrong(
        Fault::ServerError,
        "HTTP 500 SVCSTG.SWR.5000001: Internal error (request 8f3c1d5e7a9b4c6d)",
        "unavailable",
    )
    .await;
}

#[tokio::test]
async fn a_502_of_a_gateway_is_described_and_not_repeated() {
    goes_wrong(Fault::BadGateway, "HTTP 502: 37 bytes of text/html", "unavailable").await;
}

#[tokio::test]
async fn throttling_is_told_and_waited_out() {
    goes_wrong(Fault::Throttled, "HTTP 429 APIGW.0308: The throttling threshold has been reached", "throttled").await;
}

#[tokio::test]
async fn a_redirect_of_the_api_is_not_followed() {
    goes_wrong(Fault::Redirect, "redirects are not followed", "misdirected").await;
}

#[tokio::test]
async fn a_cloud_that_never_answers_is_left_in_time() {
    let world = World::new().await;
    world.write("jobwatch.toml", &world.config("poll_every = \"100ms\"\ntimeout = \"1s\"", ""));
    let mut service = world.watched().await;
    world.swr.set_fault(Some(Fault::Hang));
    let logged = service.logged("no complete listing").await;
    assert!(logged.contains("no answer in time"), "{logged}");
}

#[tokio::test]
async fn an_operator_hears_when_a_source_cannot_be_seen_and_when_it_can_again() {
    let world = World::new().await;
    let config = world
        .config("poll_every = \"100ms\"", "")
        .replace("notify = [\"ops\"]", "notify = [\"ops\"]\nblind_after = \"1s\"");
    world.write("jobwatch.toml", &config);
    let _service = world.watched().await;
    world.swr.set_fault(Some(Fault::ServerError));
    let blind = soon("the mail about blindness", world.mailbox.next(0)).await;
    assert!(blind.data.contains("io.jobwatch.agent.blind"), "{}", blind.data);
    world.swr.set_fault(None);
    let restored = soon("the mail about its end", world.mailbox.next(1)).await;
    assert!(restored.data.contains("io.jobwatch.agent.restored"), "{}", restored.data);
}
