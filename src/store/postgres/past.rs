//! History in PostgreSQL: steps, and what came of them.

use std::sync::Arc;

use tokio_postgres::{Client, Row};

use super::finding::fate;
use super::value::{Txt, flag, instant, many, maybe, number, string, text, time, values};
use super::{Fault, job as job_of};
use crate::model::alert::Fate;
use crate::model::job::{Job, Status};
use crate::model::name::{JobId, SourceName, TransitionId};
use crate::model::time::Timestamp;
use crate::model::transition::{State, Transition};
use crate::store::{Past, Span};

/// A step as `transition` has it.
pub(super) fn step(row: &Row) -> Result<Arc<Transition>, Fault> {
    let job: Job = serde_json::from_str(&string(row, "job")?)
        .unwrap_or_else(|_| Job::bare(string(row, "job_id").unwrap_or_default(), Status::Other("?".into())));
    Ok(Arc::new(Transition {
        id: TransitionId::from(string(row, "id")?),
        source: SourceName::from(string(row, "source")?),
        from: State::read(&string(row, "from_state")?),
        to: State::read(&string(row, "to_state")?),
        seen_before: time(row, "seen_before")?,
        seen_at: instant(row, "seen_at")?,
        skipped: serde_json::from_str(&string(row, "skipped")?).unwrap_or_default(),
        changed: Vec::new(),
        late: flag(row, "late")?,
        seq: number(row, "seq")?,
        job: Arc::new(job),
    }))
}

pub(super) async fn history(client: &Client, span: &Span) -> Result<Vec<Arc<Transition>>, Fault> {
    let source = maybe(span.source.as_ref().map(SourceName::as_str));
    let rows = client
        .query_typed(
            "SELECT * FROM (SELECT * FROM jobwatch.transition WHERE seen_at >= $1 AND ($2::text IS NULL OR source = $2)
                            ORDER BY seen_at DESC, n DESC LIMIT $3) AS newest ORDER BY seen_at, n",
            values![span.since.micros(), source, many(span.limit)],
        )
        .await?;
    rows.iter().map(step).collect()
}

/// Jobs that people may mean by this: a job, a resource by name or id, a step, a delivery; the newest first.
pub(super) async fn find(client: &Client, what: &str, limit: usize) -> Result<Vec<(SourceName, JobId)>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT source, id FROM jobwatch.job WHERE id = $1 OR resource_name = $1 OR resource_id = $1
               OR (source, id) IN (SELECT source, job_id FROM jobwatch.transition WHERE id = $1
                                   UNION SELECT source, job FROM jobwatch.fate WHERE transition = $1
                                   UNION SELECT source, job FROM jobwatch.fate
                                         WHERE delivery = $1 AND outcome IN ('told', 'resolved')
                                   UNION SELECT source, subject FROM jobwatch.delivery WHERE id = $1)
               ORDER BY status_since DESC, source COLLATE "C", id COLLATE "C" LIMIT $2"#,
            values![Txt(what), many(limit)],
        )
        .await?;
    rows.iter().map(|row| Ok((SourceName::from(string(row, "source")?), JobId::from(string(row, "id")?)))).collect()
}

pub(super) async fn past(client: &Client, source: &SourceName, job: &JobId) -> Result<Past, Fault> {
    let (steps, fates, known) = tokio::try_join!(
        steps_of(client, source, job),
        fates_of(client, source, job),
        job_of(client, source.as_str(), job.as_str()),
    )?;
    Ok(Past { steps, fates, known })
}

async fn steps_of(client: &Client, source: &SourceName, job: &JobId) -> Result<Vec<Arc<Transition>>, Fault> {
    let rows = client
        .query_typed(
            "SELECT * FROM jobwatch.transition WHERE source = $1 AND job_id = $2 ORDER BY n",
            values![Txt(source.as_str()), Txt(job.as_str())],
        )
        .await?;
    rows.iter().map(step).collect()
}

async fn fates_of(client: &Client, source: &SourceName, job: &JobId) -> Result<Vec<(Fate, Timestamp)>, Fault> {
    let rows = client
        .query_typed(
            r#"SELECT * FROM jobwatch.fate WHERE source = $1 AND job = $2
               ORDER BY at, rule COLLATE "C", receiver COLLATE "C""#,
            values![Txt(source.as_str()), Txt(job.as_str())],
        )
        .await?;
    rows.iter().map(|row| Ok((fate(row)?, instant(row, "at")?))).collect()
}

pub(super) async fn fates(client: &Client, span: &Span) -> Result<Vec<(Fate, Timestamp, Option<String>)>, Fault> {
    let source = maybe(span.source.as_ref().map(SourceName::as_str));
    let rows = client
        .query_typed(
            r#"SELECT f.*, d.title FROM (SELECT * FROM jobwatch.fate WHERE at >= $1 AND ($2::text IS NULL OR source = $2)
                   ORDER BY at DESC, transition COLLATE "C" DESC, rule COLLATE "C" DESC, receiver COLLATE "C" DESC
                   LIMIT $3) AS f
               LEFT JOIN jobwatch.delivery AS d ON d.id = f.delivery
               ORDER BY f.at, f.transition COLLATE "C", f.rule COLLATE "C", f.receiver COLLATE "C""#,
            values![span.since.micros(), source, many(span.limit)],
        )
        .await?;
    let told = |row: &Row| Ok((fate(row)?, instant(row, "at")?, text(row, "title")?.map(String::from)));
    rows.iter().map(told).collect()
}
