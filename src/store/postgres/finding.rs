//! Findings of rules in PostgreSQL: alerts and who was told of them, what is muted, silences, fates.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{Client, Row};

use super::commit::Steps;
use super::past::step;
use super::value::{Bound, Txt, flag, instant, many, maybe, number, string, text, time, values};
use super::{Fault, json, known};
use crate::model::alert::{Alert, Fate, FateOutcome, Muted, Severity, Silence, Told};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, RuleId, SourceName, TransitionId};
use crate::model::time::Timestamp;
use crate::store::{Commit, Finding};

fn alert(row: &Row) -> Result<Alert, Fault> {
    Ok(Alert {
        id: AlertId::from(string(row, "id")?),
        rule: RuleId::from(string(row, "rule")?),
        source: SourceName::from(string(row, "source")?),
        subject: JobId::from(string(row, "subject")?),
        resource: text(row, "resource")?,
        severity: severity(row)?,
        count: number(row, "count")?,
        first_seen: instant(row, "first_seen")?,
        last_seen: instant(row, "last_seen")?,
        resolved: flag(row, "resolved")?,
        told: Vec::new(),
    })
}

pub(super) fn severity(row: &Row) -> Result<Severity, Fault> {
    Ok(string(row, "severity")?.parse().unwrap_or(Severity::Warning))
}

/// The findings that `condition` chooses, with who was told of them.
pub(super) async fn alerts(client: &Client, condition: &str, values: &[Bound<'_>]) -> Result<Vec<Alert>, Fault> {
    let rows = client.query_typed(&format!("SELECT * FROM jobwatch.alert WHERE {condition}"), values).await?;
    let mut found = rows.iter().map(alert).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() {
        return Ok(found);
    }
    let ids: Vec<Txt<'_>> = found.iter().map(|alert| Txt(alert.id.as_str())).collect();
    let rows = client
        .query_typed(
            "SELECT t.*, d.state, d.ended_at, EXISTS (SELECT 1 FROM jobwatch.held AS h WHERE h.id = t.delivery) AS held
             FROM jobwatch.told AS t LEFT JOIN jobwatch.delivery AS d ON d.id = t.delivery
             WHERE t.alert = ANY($1) ORDER BY t.receiver COLLATE \"C\"",
            values![ids],
        )
        .await?;
    let mut all: HashMap<String, Vec<Told>> = HashMap::new();
    for row in &rows {
        all.entry(string(row, "alert")?).or_default().push(told(row)?);
    }
    for alert in &mut found {
        alert.told = all.remove(alert.id.as_str()).unwrap_or_default();
    }
    Ok(found)
}

fn told(row: &Row) -> Result<Told, Fault> {
    let (at, state) = (instant(row, "at")?, text(row, "state")?);
    let delivered_at = match state.as_deref() {
        Some("delivered") => time(row, "ended_at")?,
        Some(_) => None,
        None if flag(row, "held")? => None,
        // Forgotten but for when it was heard; what is forgotten altogether is counted from when it was decided.
        None => time(row, "heard_at")?.or(Some(at)),
    };
    Ok(Told {
        receiver: ReceiverName::from(string(row, "receiver")?),
        delivery: DeliveryId::from(string(row, "delivery")?),
        severity: severity(row)?,
        at,
        delivered_at,
        lost: match state.as_deref() {
            Some(state) => matches!(state, "dead" | "dropped"),
            None => flag(row, "lost")?,
        },
        held_back: number(row, "held_back")?,
    })
}

/// Findings that are not over, the newest first.
pub(super) async fn standing(client: &Client, limit: usize) -> Result<Vec<Finding>, Fault> {
    let condition = "NOT resolved ORDER BY last_seen DESC, id COLLATE \"C\" LIMIT $1";
    let found = alerts(client, condition, values![many(limit)]).await?;
    let (sources, ids): (Vec<_>, Vec<_>) =
        found.iter().map(|alert| (Txt(alert.source.as_str()), Txt(alert.subject.as_str()))).unzip();
    let rows = client
        .query_typed(
            "SELECT j.* FROM jobwatch.job AS j WHERE (j.source, j.id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
            values![sources, ids],
        )
        .await?;
    let mut jobs = HashMap::new();
    for row in &rows {
        let (id, known) = known(row)?;
        jobs.insert((SourceName::from(string(row, "source")?), id), known);
    }
    let with_job = |alert: Alert| {
        let known = jobs.get(&(alert.source.clone(), alert.subject.clone())).cloned();
        Finding { alert, known }
    };
    Ok(found.into_iter().map(with_job).collect())
}

/// Each finding once, as it is in the end.
fn last<'a, K: Ord, T>(all: impl Iterator<Item = &'a T>, key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    all.map(|one| (key(one), one)).collect::<BTreeMap<K, &T>>().into_values().collect()
}

pub(super) async fn write_alerts(client: &Client, all: &[Alert]) -> Result<(), Fault> {
    let alerts = last(all.iter(), |alert| alert.id.as_str());
    if alerts.is_empty() {
        return Ok(());
    }
    let texts = |of: fn(&Alert) -> &str| alerts.iter().map(|alert| Txt(of(alert))).collect::<Vec<_>>();
    let numbers = |of: fn(&Alert) -> i64| alerts.iter().map(|alert| of(alert)).collect::<Vec<_>>();
    let resources: Vec<Option<Txt<'_>>> = alerts.iter().map(|alert| maybe(alert.resource.as_deref())).collect();
    let resolved: Vec<bool> = alerts.iter().map(|alert| alert.resolved).collect();
    client
        .execute_typed(
            "INSERT INTO jobwatch.alert (id, rule, source, subject, severity, resource, count, first_seen, last_seen, resolved)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                 $8::bigint[], $9::bigint[], $10::boolean[])
             ON CONFLICT (id) DO UPDATE SET rule = excluded.rule, source = excluded.source, subject = excluded.subject,
             severity = excluded.severity, resource = excluded.resource, count = excluded.count,
             first_seen = excluded.first_seen, last_seen = excluded.last_seen, resolved = excluded.resolved",
            values![
                texts(|alert| alert.id.as_str()),
                texts(|alert| alert.rule.as_str()),
                texts(|alert| alert.source.as_str()),
                texts(|alert| alert.subject.as_str()),
                texts(|alert| alert.severity.as_str()),
                resources,
                numbers(|alert| i64::from(alert.count)),
                numbers(|alert| alert.first_seen.micros()),
                numbers(|alert| alert.last_seen.micros()),
                resolved,
            ],
        )
        .await?;
    let silent: Vec<Txt<'_>> =
        alerts.iter().filter(|alert| alert.told.is_empty()).map(|alert| Txt(alert.id.as_str())).collect();
    if !silent.is_empty() {
        client.execute_typed("DELETE FROM jobwatch.told WHERE alert = ANY($1)", values![silent]).await?;
    }
    write_told(client, &alerts).await
}

async fn write_told(client: &Client, alerts: &[&Alert]) -> Result<(), Fault> {
    let told: Vec<(&str, &Told)> =
        alerts.iter().flat_map(|alert| alert.told.iter().map(|told| (alert.id.as_str(), told))).collect();
    if told.is_empty() {
        return Ok(());
    }
    let texts = |of: fn(&Told) -> &str| told.iter().map(|(_, told)| Txt(of(told))).collect::<Vec<_>>();
    client
        .execute_typed(
            // It may be told in a digest by now, which a poll that was decided before does not know.
            "INSERT INTO jobwatch.told AS t (alert, receiver, delivery, severity, at, held_back)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
             ON CONFLICT (alert, receiver) DO UPDATE SET
             delivery = CASE WHEN t.at = excluded.at THEN t.delivery ELSE excluded.delivery END,
             heard_at = CASE WHEN t.at = excluded.at THEN t.heard_at END,
             lost = t.at = excluded.at AND t.lost,
             severity = excluded.severity, at = excluded.at, held_back = excluded.held_back",
            values![
                told.iter().map(|(alert, _)| Txt(alert)).collect::<Vec<_>>(),
                texts(|told| told.receiver.as_str()),
                texts(|told| told.delivery.as_str()),
                texts(|told| told.severity.as_str()),
                told.iter().map(|(_, told)| told.at.micros()).collect::<Vec<_>>(),
                told.iter().map(|(_, told)| i64::from(told.held_back)).collect::<Vec<_>>(),
            ],
        )
        .await?;
    Ok(())
}

pub(super) async fn muted(client: &Client, source: &SourceName) -> Result<Vec<Muted>, Fault> {
    let rows = client
        .query_typed(
            "SELECT * FROM jobwatch.muted WHERE source = $1 ORDER BY seen_at, alert COLLATE \"C\", job_id COLLATE \"C\"",
            values![Txt(source.as_str())],
        )
        .await?;
    let muted = |row: &Row| {
        Ok(Muted {
            alert: AlertId::from(string(row, "alert")?),
            rule: RuleId::from(string(row, "rule")?),
            transition: step(row)?,
            by: string(row, "by")?,
        })
    };
    rows.iter().map(muted).collect()
}

pub(super) async fn write_muted(client: &Client, commit: &Commit) -> Result<(), Fault> {
    if !commit.unmuted.is_empty() {
        let (alerts, jobs): (Vec<_>, Vec<_>) =
            commit.unmuted.iter().map(|(alert, job)| (Txt(alert.as_str()), Txt(job.as_str()))).unzip();
        client
            .execute_typed(
                "DELETE FROM jobwatch.muted WHERE (alert, job_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
                values![alerts, jobs],
            )
            .await?;
    }
    let muted = last(commit.muted.iter(), |muted| (muted.alert.as_str(), muted.transition.job.id.as_str()));
    if muted.is_empty() {
        return Ok(());
    }
    let steps = Steps::of(muted.iter().map(|muted| &*muted.transition));
    let texts = |of: fn(&Muted) -> &str| muted.iter().map(|muted| Txt(of(muted))).collect::<Vec<_>>();
    let (alerts, rules, by) =
        (texts(|muted| muted.alert.as_str()), texts(|muted| muted.rule.as_str()), texts(|muted| &muted.by));
    let all: Vec<Bound<'_>> = values![alerts, rules, by].iter().cloned().chain(steps.bound()).collect();
    client
        .execute_typed(
            "INSERT INTO jobwatch.muted (alert, rule, by, id, source, job_id, seq, from_state, to_state, seen_before,
                 seen_at, skipped, late, job)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
                 $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::boolean[], $14::text[])
             ON CONFLICT (alert, job_id) DO UPDATE SET rule = excluded.rule, by = excluded.by, id = excluded.id,
             source = excluded.source, seq = excluded.seq, from_state = excluded.from_state, to_state = excluded.to_state,
             seen_before = excluded.seen_before, seen_at = excluded.seen_at, skipped = excluded.skipped,
             late = excluded.late, job = excluded.job",
            &all,
        )
        .await?;
    Ok(())
}

/// Silences that are not over.
pub(super) async fn silences(client: &Client, now: Timestamp) -> Result<Vec<Silence>, Fault> {
    let rows = client
        .query_typed(
            "SELECT * FROM jobwatch.silence WHERE ends_at > $1 ORDER BY ends_at, id COLLATE \"C\"",
            values![now.micros()],
        )
        .await?;
    let silence = |row: &Row| {
        Ok(Silence {
            id: string(row, "id")?,
            matchers: serde_json::from_str(&string(row, "matchers")?).unwrap_or_default(),
            starts_at: instant(row, "starts_at")?,
            ends_at: instant(row, "ends_at")?,
            author: string(row, "author")?,
            comment: string(row, "comment")?,
        })
    };
    rows.iter().map(silence).collect()
}

pub(super) async fn write_silence(client: &Client, silence: &Silence) -> Result<(), Fault> {
    let Silence { id, matchers, starts_at, ends_at, author, comment } = silence;
    client
        .execute_typed(
            "INSERT INTO jobwatch.silence (id, matchers, starts_at, ends_at, author, comment) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET matchers = excluded.matchers, starts_at = excluded.starts_at,
             ends_at = excluded.ends_at, author = excluded.author, comment = excluded.comment",
            values![Txt(id), Txt(&json(matchers)), starts_at.micros(), ends_at.micros(), Txt(author), Txt(comment)],
        )
        .await?;
    Ok(())
}

fn receiver(fate: &Fate) -> &str {
    fate.receiver.as_ref().map_or("", ReceiverName::as_str)
}

pub(super) async fn write_fates(
    client: &Client,
    source: &SourceName,
    all: &[Fate],
    at: Timestamp,
) -> Result<(), Fault> {
    let fates = last(all.iter(), |fate| (fate.transition.as_str(), fate.rule.as_str(), receiver(fate)));
    if fates.is_empty() {
        return Ok(());
    }
    let texts = |of: fn(&Fate) -> &str| fates.iter().map(|fate| Txt(of(fate))).collect::<Vec<_>>();
    let receivers: Vec<Txt<'_>> = fates.iter().map(|fate| Txt(receiver(fate))).collect();
    let deliveries: Vec<Option<Txt<'_>>> =
        fates.iter().map(|fate| maybe(fate.delivery.as_ref().map(DeliveryId::as_str))).collect();
    client
        .execute_typed(
            "INSERT INTO jobwatch.fate (transition, source, job, rule, receiver, outcome, delivery, why, at)
             SELECT transition, $1, job, rule, receiver, outcome, delivery, why, $2
             FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
                 AS f (transition, job, rule, receiver, outcome, delivery, why)
             ON CONFLICT (transition, rule, receiver) DO UPDATE SET source = excluded.source, job = excluded.job,
             outcome = excluded.outcome, delivery = excluded.delivery, why = excluded.why, at = excluded.at",
            values![
                Txt(source.as_str()),
                at.micros(),
                texts(|fate| fate.transition.as_str()),
                texts(|fate| fate.subject.as_str()),
                texts(|fate| fate.rule.as_str()),
                receivers,
                texts(|fate| fate.outcome.as_str()),
                deliveries,
                texts(|fate| &fate.why),
            ],
        )
        .await?;
    Ok(())
}

pub(super) fn fate(row: &Row) -> Result<Fate, Fault> {
    Ok(Fate {
        rule: RuleId::from(string(row, "rule")?),
        transition: TransitionId::from(string(row, "transition")?),
        subject: JobId::from(string(row, "job")?),
        receiver: Some(string(row, "receiver")?).filter(|name| !name.is_empty()).map(ReceiverName::from),
        outcome: string(row, "outcome")?.parse().unwrap_or(FateOutcome::Told),
        delivery: text(row, "delivery")?.map(|id| DeliveryId::from(&*id)),
        why: string(row, "why")?,
    })
}
