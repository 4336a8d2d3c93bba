//! Committing what a poll decided: everything of it in one transaction, a statement for each table, under the lease it was
//! decided under.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::Client;

use super::lease::FENCE;
use super::value::{Bound, Txt, bound, maybe, micros, values};
use super::{Fault, finding, follow_up, json, news, outbox, pace, turn};
use crate::model::delivery::Frozen;
use crate::model::name::SourceName;
use crate::model::snapshot::{Change, Known};
use crate::model::transition::Transition;
use crate::store::share::Fence;
use crate::store::{Commit, Error, Told, Turns};

/// Whether a poll found nothing new, and only the time it was made at moves.
pub(super) fn is_idle(commit: &Commit) -> bool {
    let Commit { changes, alerts, deliveries, reserves, held, groups, muted, unmuted, fates, follow_ups, .. } = commit;
    let nothing =
        changes.is_empty() && alerts.is_empty() && deliveries.is_empty() && reserves.is_empty() && held.is_empty();
    nothing && groups.is_empty() && muted.is_empty() && unmuted.is_empty() && fates.is_empty() && follow_ups.is_empty()
}

const SOURCE: &str = "ON CONFLICT (name) DO UPDATE SET complete_at = coalesce(excluded.complete_at, s.complete_at),
    blind_since = excluded.blind_since, vanished = excluded.vanished, fault_kind = excluded.fault_kind, fault = excluded.fault";

/// One statement, and so one round trip: most polls find nothing new.
pub(super) async fn idle(client: &Client, commit: &Commit) -> Result<usize, Fault> {
    let fence = commit.fence.as_ref();
    let statement = format!(
        "WITH fence AS ({FENCE})
         INSERT INTO jobwatch.source AS s (name, complete_at, blind_since, vanished, fault_kind, fault)
         SELECT $1, $4::bigint, $5::bigint, $6::bigint, $7::text, $8::text WHERE $2::text IS NULL OR EXISTS (SELECT 1 FROM fence) {SOURCE}"
    );
    let written = client
        .execute_typed(
            &statement,
            values![
                Txt(commit.source.as_str()),
                maybe(fence.map(|fence| fence.holder.as_str())),
                fence.map(|fence| fence.epoch),
                commit.complete.then(|| commit.at.micros()),
                micros(commit.sight.blind_since),
                i64::from(commit.sight.vanished),
                maybe(commit.fault.as_ref().map(|fault| fault.kind.as_str())),
                maybe(commit.fault.as_ref().map(|fault| &*fault.text)),
            ],
        )
        .await?;
    match written {
        0 => Err(fenced(&commit.source)),
        _ => Ok(0),
    }
}

fn fenced(source: &SourceName) -> Fault {
    Fault::Said(Error::Fenced(format!("{source} is polled by another replica by now: nothing was written")))
}

async fn guard(client: &Client, source: &SourceName, fence: Option<&Fence>) -> Result<(), Fault> {
    let Some(fence) = fence else { return Ok(()) };
    match client.query_typed_opt(FENCE, values![Txt(source.as_str()), Txt(&fence.holder), fence.epoch]).await? {
        Some(_) => Ok(()),
        None => Err(fenced(source)),
    }
}

/// Returns how many deliveries were new.
pub(super) async fn commit(client: &Client, commit: &Commit) -> Result<usize, Fault> {
    let Commit { source, changes, alerts, fates, deliveries, held, follow_ups, .. } = commit;
    let sent = deliveries.iter().map(|frozen| frozen.receiver.as_str());
    let receivers = sent.clone().chain(held.iter().map(|held| held.frozen.receiver.as_str()));
    // What is joined is sent together, and the database does it in this order; an error takes all of it back.
    tokio::try_join!(
        guard(client, source, commit.fence.as_ref()),
        write_source(client, commit),
        write_jobs(client, source, changes),
        write_steps(client, changes),
        finding::write_alerts(client, alerts),
        finding::write_muted(client, commit),
        finding::write_fates(client, source, fates, commit.at),
    )?;
    // From here on others who tell these receivers something wait.
    let ((), (), (), written, (), ()) = tokio::try_join!(
        turn::take(client, receivers, &commit.turns),
        pace::write_groups(client, &commit.groups),
        pace::write_held(client, held),
        insert(client, deliveries),
        outbox::write_reserves(client, &commit.reserves),
        news::due(client, sent),
    )?;
    follow_up::write(client, follow_ups).await?;
    if !held.is_empty() {
        news::say(client, "held").await?;
    }
    Ok(written)
}

pub(super) async fn tell(client: &Client, told: &Told) -> Result<(), Fault> {
    for (source, fence) in &told.fences {
        guard(client, source, Some(fence)).await?;
    }
    if !told.sources.is_empty() {
        let names: Vec<Txt<'_>> = told.sources.iter().map(|(source, _)| Txt(source.as_str())).collect();
        let since: Vec<Option<i64>> = told.sources.iter().map(|(_, since)| micros(*since)).collect();
        client
            .execute_typed(
                "UPDATE jobwatch.source AS s SET told_since = t.since FROM unnest($1::text[], $2::bigint[]) AS t (name, since)
                 WHERE s.name = t.name",
                values![names, since],
            )
            .await?;
    }
    write_deliveries(client, &told.deliveries).await?;
    Ok(())
}

async fn write_source(client: &Client, commit: &Commit) -> Result<(), Fault> {
    let insert = format!(
        "INSERT INTO jobwatch.source AS s (name, complete_at, blind_since, vanished, fault_kind, fault)
         VALUES ($1, $2, $3, $4, $5, $6) {SOURCE}"
    );
    client
        .execute_typed(
            &insert,
            values![
                Txt(commit.source.as_str()),
                commit.complete.then(|| commit.at.micros()),
                micros(commit.sight.blind_since),
                i64::from(commit.sight.vanished),
                maybe(commit.fault.as_ref().map(|fault| fault.kind.as_str())),
                maybe(commit.fault.as_ref().map(|fault| &*fault.text)),
            ],
        )
        .await?;
    Ok(())
}

async fn write_jobs(client: &Client, source: &SourceName, changes: &[Change]) -> Result<(), Fault> {
    // Each once, as it is in the end.
    let all: BTreeMap<&str, &Known> =
        changes.iter().map(|change| (change.known.job.id.as_str(), &change.known)).collect();
    if all.is_empty() {
        return Ok(());
    }
    let texts = |of: fn(&Known) -> &str| all.values().map(|known| Txt(of(known))).collect::<Vec<_>>();
    let maybes = |of: fn(&Known) -> Option<&str>| all.values().map(|known| maybe(of(known))).collect::<Vec<_>>();
    let numbers = |of: fn(&Known) -> i64| all.values().map(|known| of(known)).collect::<Vec<_>>();
    client
        .execute_typed(
            "INSERT INTO jobwatch.job (source, id, status, instance_id, resource_id, resource_name, type, reason, created_at,
                 updated_at, seq, status_since, seen_at, missing, stale, gone)
             SELECT $1, j.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
                 $16::boolean[]) AS j
             ON CONFLICT (source, id) DO UPDATE SET status = excluded.status, instance_id = excluded.instance_id,
             resource_id = excluded.resource_id, resource_name = excluded.resource_name, type = excluded.type,
             reason = excluded.reason, created_at = excluded.created_at, updated_at = excluded.updated_at,
             seq = excluded.seq, status_since = excluded.status_since, seen_at = excluded.seen_at,
             missing = excluded.missing, stale = excluded.stale, gone = excluded.gone",
            values![
                Txt(source.as_str()),
                texts(|known| known.job.id.as_str()),
                texts(|known| known.job.status.as_str()),
                maybes(|known| known.job.instance_id.as_deref()),
                maybes(|known| known.job.resource_id.as_deref()),
                maybes(|known| known.job.resource_name.as_deref()),
                maybes(|known| known.job.kind.as_deref()),
                maybes(|known| known.job.reason.as_deref()),
                maybes(|known| known.job.created_at.as_deref()),
                maybes(|known| known.job.updated_at.as_deref()),
                numbers(|known| i64::from(known.seq)),
                numbers(|known| known.status_since.micros()),
                numbers(|known| known.seen_at.micros()),
                numbers(|known| i64::from(known.missing)),
                numbers(|known| i64::from(known.stale)),
                all.values().map(|known| known.gone).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(())
}

/// Steps, a column each.
pub(super) struct Steps<'a> {
    ids: Vec<Txt<'a>>,
    sources: Vec<Txt<'a>>,
    jobs: Vec<Txt<'a>>,
    numbers: Vec<i64>,
    from: Vec<String>,
    to: Vec<String>,
    seen_before: Vec<Option<i64>>,
    seen_at: Vec<i64>,
    skipped: Vec<String>,
    late: Vec<bool>,
    rows: Vec<String>,
}

impl<'a> Steps<'a> {
    pub(super) fn of(steps: impl Iterator<Item = &'a Transition> + Clone) -> Self {
        Self {
            ids: steps.clone().map(|step| Txt(step.id.as_str())).collect(),
            sources: steps.clone().map(|step| Txt(step.source.as_str())).collect(),
            jobs: steps.clone().map(|step| Txt(step.job.id.as_str())).collect(),
            numbers: steps.clone().map(|step| i64::from(step.seq)).collect(),
            from: steps.clone().map(|step| step.from.to_string()).collect(),
            to: steps.clone().map(|step| step.to.to_string()).collect(),
            seen_before: steps.clone().map(|step| micros(step.seen_before)).collect(),
            seen_at: steps.clone().map(|step| step.seen_at.micros()).collect(),
            skipped: steps.clone().map(|step| json(&step.skipped)).collect(),
            late: steps.clone().map(|step| step.late).collect(),
            rows: steps.map(|step| json(&*step.job)).collect(),
        }
    }

    /// In the order of the table.
    pub(super) fn bound(&self) -> [Bound<'_>; 11] {
        [
            bound(&self.ids),
            bound(&self.sources),
            bound(&self.jobs),
            bound(&self.numbers),
            bound(&self.from),
            bound(&self.to),
            bound(&self.seen_before),
            bound(&self.seen_at),
            bound(&self.skipped),
            bound(&self.late),
            bound(&self.rows),
        ]
    }
}

async fn write_steps(client: &Client, changes: &[Change]) -> Result<(), Fault> {
    let steps = changes.iter().filter_map(|change| change.transition.as_deref());
    if steps.clone().next().is_none() {
        return Ok(());
    }
    client
        .execute_typed(
            "INSERT INTO jobwatch.transition (id, source, job_id, seq, from_state, to_state, seen_before, seen_at, skipped, late, job)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[],
                 $8::bigint[], $9::text[], $10::boolean[], $11::text[])
             ON CONFLICT (id) DO NOTHING",
            &Steps::of(steps).bound(),
        )
        .await?;
    Ok(())
}

/// Makes deliveries that are decided on nothing that others may change, and says so. Returns how many were new.
pub(super) async fn write_deliveries(client: &Client, deliveries: &[Frozen]) -> Result<usize, Fault> {
    let receivers = deliveries.iter().map(|frozen| frozen.receiver.as_str());
    turn::take(client, receivers.clone(), &Turns::new()).await?;
    let written = insert(client, deliveries).await?;
    news::due(client, receivers).await?;
    Ok(written)
}

/// For whoever has taken the turns. One whose id is known is the same one.
pub(super) async fn insert(client: &Client, deliveries: &[Frozen]) -> Result<usize, Fault> {
    if deliveries.is_empty() {
        return Ok(0);
    }
    let mut known = HashSet::new();
    let new: Vec<&Frozen> = deliveries.iter().filter(|frozen| known.insert(frozen.id.as_str())).collect();
    let texts = |of: fn(&Frozen) -> &str| new.iter().map(|frozen| Txt(of(frozen))).collect::<Vec<_>>();
    let written = client
        .execute_typed(
            "WITH given AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                     $8::bigint[], $9::bytea[]) WITH ORDINALITY
                     AS g (id, receiver, source, subject, event, title, created_at, seen_at, bytes, at)),
             made AS (
                 INSERT INTO jobwatch.delivery (id, receiver, source, subject, event, title, created_at, seen_at, state, due_at,
                     set_at, budget_from)
                 SELECT id, receiver, source, subject, event, title, created_at, seen_at, 'pending', created_at, created_at,
                     created_at FROM given ORDER BY at
                 ON CONFLICT (id) DO NOTHING RETURNING n, id)
             INSERT INTO jobwatch.payload (delivery, bytes) SELECT made.n, given.bytes FROM made JOIN given USING (id)",
            values![
                texts(|frozen| frozen.id.as_str()),
                texts(|frozen| frozen.receiver.as_str()),
                texts(|frozen| frozen.lane.source_name()),
                texts(|frozen| frozen.lane.subject.as_str()),
                texts(|frozen| &frozen.event),
                texts(|frozen| &frozen.title),
                new.iter().map(|frozen| frozen.created_at.micros()).collect::<Vec<_>>(),
                new.iter().map(|frozen| micros(frozen.seen_at)).collect::<Vec<_>>(),
                new.iter().map(|frozen| &frozen.payload[..]).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(usize::try_from(written).unwrap_or(usize::MAX))
}
