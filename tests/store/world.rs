//! What the stories are told with: one source, one receiver, and time that passes when a story says so.

use std::time::Duration;

use jobwatch::model::alert::{self, Alert, Severity};
use jobwatch::model::delivery::{Attempt, Claimed, Frozen, Held, Lane, Outcome, Verdict};
use jobwatch::model::job::{Job, Status};
use jobwatch::model::name::{DeliveryId, JobId, ReceiverName, SourceName};
use jobwatch::model::snapshot::{Change, Known};
use jobwatch::model::time::Timestamp;
use jobwatch::store::{Commit, Error, Record, Store, Trouble};

pub(crate) const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

pub(crate) fn prod() -> SourceName {
    SourceName::from("prod")
}

pub(crate) fn oncall() -> ReceiverName {
    ReceiverName::from("oncall")
}

pub(crate) fn seconds(n: u64) -> Timestamp {
    START.plus(Duration::from_secs(n))
}

pub(crate) fn frozen(id: &str, job: &str) -> Frozen {
    Frozen {
        id: DeliveryId::from(id),
        receiver: oncall(),
        lane: Lane { source: Some(prod()), subject: JobId::from(job) },
        event: "io.jobwatch.job.failed".into(),
        title: format!("{job} failed"),
        created_at: START,
        seen_at: Some(START),
        payload: format!("{{\"job\":\"{job}\"}}").into_bytes(),
    }
}

pub(crate) fn commit(deliveries: Vec<Frozen>) -> Commit {
    Commit { deliveries, ..Commit::unchanged(prod(), START) }
}

pub(crate) fn record(claimed: Claimed, outcome: Outcome, verdict: Verdict) -> Record {
    let attempt =
        Attempt { at: START, took: Duration::from_millis(3), outcome, progress: vec!["a@example.org".into()] };
    Record { claimed, attempt, verdict, trouble: Trouble::default(), deliveries: vec![], asks: false }
}

pub(crate) fn accepted() -> Outcome {
    Outcome::Accepted { note: "HTTP 204".into() }
}

pub(crate) fn ids(claims: &[Claimed]) -> Vec<&str> {
    claims.iter().map(|claim| claim.frozen.id.as_str()).collect()
}

/// Records one attempt. `false` when its claim was lost.
pub(crate) async fn kept(store: &dyn Store, record: Record) -> Result<bool, Error> {
    Ok(store.record(vec![record]).await?.remove(0))
}

pub(crate) async fn claim(store: &dyn Store, at: u64, limit: usize) -> Vec<Claimed> {
    store.claim(&oncall(), seconds(at), seconds(at + 60), limit).await.unwrap()
}

pub(crate) fn known(id: &str, missing: u8, gone: bool) -> Change {
    let job = Job::bare(id, Status::Running);
    let known = Known { job, seq: 0, status_since: START, seen_at: START, missing, stale: 0, gone };
    Change { known, transition: None }
}

pub(crate) fn held(id: &str, job: &str, due: u64) -> Held {
    Held {
        frozen: frozen(id, job),
        severity: Severity::Error,
        class: "quota <n> exceeded".into(),
        group: String::new(),
        due_at: seconds(due),
        data: serde_json::json!({ "title": job }),
    }
}

pub(crate) fn told_by(alert: &str, job: &str, delivery: &str) -> Alert {
    Alert {
        id: alert.into(),
        rule: "failed".into(),
        source: prod(),
        subject: job.into(),
        resource: None,
        severity: Severity::Error,
        count: 1,
        first_seen: START,
        last_seen: START,
        resolved: false,
        told: vec![alert::Told {
            receiver: oncall(),
            delivery: delivery.into(),
            severity: Severity::Error,
            at: START,
            delivered_at: None,
            lost: false,
            held_back: 0,
        }],
    }
}
