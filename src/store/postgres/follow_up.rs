//! Follow-ups in PostgreSQL: a delivery each, and what must be known of it for ever.

use tokio_postgres::{Client, Row};

use super::commit::insert;
use super::value::{Txt, flag, instant, many, number, string, text, time, values};
use super::{Fault, finding, job, news};
use crate::model::delivery::Claimed;
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::name::{AlertId, DeliveryId, FollowUpName, JobId, SourceName};
use crate::model::time::Timestamp;
use crate::store::Errand;
use crate::store::rows::follow_up_state;
use crate::store::share::{Begun, Bounds};

/// Whoever begins a follow-up holds this advisory lock until it is written: what is under way is known then.
const BEGINNING: i64 = 0x4a6f_6258;

/// Those that are known already are not written again, also when their deliveries are no longer kept.
pub(super) async fn write(client: &Client, errands: &[Errand]) -> Result<(), Fault> {
    if errands.is_empty() {
        return Ok(());
    }
    for errand in errands {
        let Errand { follow_up, at, due_at } = errand;
        let FollowUp { id, name, topic, .. } = follow_up;
        let new = client
            .execute_typed(
                "INSERT INTO jobwatch.follow_up (id, name, alert, resource, created_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (id) DO NOTHING",
                values![
                    Txt(id.as_str()),
                    Txt(name.as_str()),
                    Txt(topic.alert.id.as_str()),
                    Txt(&follow_up.resource()),
                    at.micros(),
                ],
            )
            .await?;
        if new == 0 {
            continue;
        }
        insert(client, &[errand.frozen()]).await?;
        let due = "UPDATE jobwatch.delivery SET due_at = $2 WHERE id = $1";
        client.execute_typed(due, values![Txt(id.as_str()), due_at.micros()]).await?;
    }
    news::say(client, "follow_up").await
}

pub(super) async fn standing(
    client: &Client,
    follow_up: &FollowUp,
    since: Timestamp,
) -> Result<Option<Standing>, Fault> {
    let id = Txt(follow_up.id.as_str());
    let found = client.query_typed_opt("SELECT * FROM jobwatch.follow_up WHERE id = $1", values![id]).await?;
    let Some(row) = found else { return Ok(None) };
    let (approved, by): (Option<bool>, _) = (row.try_get("approved")?, text(&row, "consent_by")?);
    let consent = approved.map(|approved| Consent { approved, by: by.map(String::from).unwrap_or_default() });
    let alert = finding::alerts(client, "id = $1", values![Txt(follow_up.topic.alert.id.as_str())]).await?.pop();
    let lane = follow_up.lane();
    let known = job(client, lane.source_name(), lane.subject.as_str()).await?;
    let recent = client
        .query_typed_one(
            "SELECT count(*) AS count FROM jobwatch.follow_up WHERE name = $1 AND started_at > $2",
            values![Txt(follow_up.name.as_str()), since.micros()],
        )
        .await?;
    Ok(Some(Standing {
        started: time(&row, "started_at")?,
        consent,
        alert,
        job: known.map(|known| (known.job.status, known.gone)),
        recent: number(&recent, "count")?,
    }))
}

/// Over all replicas: one at a time of each name and on each resource, and no more than the limit says.
pub(super) async fn begin(client: &Client, claimed: &Claimed, bounds: &Bounds) -> Result<Begun, Fault> {
    let Bounds { resource, since, limit, now } = bounds;
    client.query_typed("SELECT pg_advisory_xact_lock($1)", values![BEGINNING]).await?;
    let id = Txt(claimed.frozen.id.as_str());
    let row = client
        .query_typed_opt(
            "SELECT f.name FROM jobwatch.follow_up AS f JOIN jobwatch.delivery AS d ON d.id = f.id
                 JOIN jobwatch.claim AS c ON c.delivery = d.n
             WHERE f.id = $1 AND f.started_at IS NULL AND d.state = 'pending' AND c.token = $2 FOR UPDATE OF f, c",
            values![id, claimed.token],
        )
        .await?;
    let Some(row) = row else { return Ok(Begun::No) };
    let name = string(&row, "name")?;
    let others = client
        .query_typed_one(
            "SELECT (SELECT count(*) FROM jobwatch.follow_up WHERE name = $1 AND started_at > $3) AS recent,
                 EXISTS (SELECT 1 FROM jobwatch.follow_up AS f JOIN jobwatch.delivery AS d ON d.id = f.id
                     JOIN jobwatch.claim AS c ON c.delivery = d.n
                     WHERE f.started_at IS NOT NULL AND d.state = 'pending' AND c.until > $4
                     AND (f.name = $1 OR f.resource = $2)) AS busy",
            values![Txt(&name), Txt(resource), since.micros(), now.micros()],
        )
        .await?;
    if flag(&others, "busy")? || number::<usize>(&others, "recent")? >= *limit {
        return Ok(Begun::Later);
    }
    client
        .execute_typed("UPDATE jobwatch.follow_up SET started_at = $2 WHERE id = $1", values![id, now.micros()])
        .await?;
    Ok(Begun::Yes)
}

/// It waits for somebody's word from now on.
pub(super) async fn ask(client: &Client, id: &DeliveryId) -> Result<(), Fault> {
    client.execute_typed("UPDATE jobwatch.follow_up SET asked = TRUE WHERE id = $1", values![Txt(id.as_str())]).await?;
    Ok(())
}

/// `false` when it does not wait for a word.
pub(super) async fn consent(
    client: &Client,
    id: &DeliveryId,
    consent: &Consent,
    now: Timestamp,
) -> Result<bool, Fault> {
    let taken = client
        .execute_typed(
            "UPDATE jobwatch.follow_up SET approved = $2, consent_by = $3, consent_at = $4
             WHERE id = $1 AND asked AND approved IS NULL AND started_at IS NULL
             AND EXISTS (SELECT 1 FROM jobwatch.delivery WHERE id = $1 AND state = 'pending')",
            values![Txt(id.as_str()), consent.approved, Txt(&consent.by), now.micros()],
        )
        .await?;
    if taken == 0 {
        return Ok(false);
    }
    client
        .execute_typed(
            "UPDATE jobwatch.delivery SET due_at = $2, set_at = $2 WHERE id = $1 AND state = 'pending'",
            values![Txt(id.as_str()), now.micros()],
        )
        .await?;
    news::say(client, "follow_up").await?;
    Ok(true)
}

const LISTED: &str = "SELECT f.*, d.source, d.subject, d.title, d.state, d.note
    FROM jobwatch.follow_up AS f JOIN jobwatch.delivery AS d ON d.id = f.id";

pub(super) async fn list(client: &Client, limit: usize) -> Result<Vec<Listed>, Fault> {
    let statement = format!("{LISTED} ORDER BY f.created_at DESC, f.id COLLATE \"C\" LIMIT $1");
    client.query_typed(&statement, values![many(limit)]).await?.iter().map(listed).collect()
}

/// Those that wait for somebody's word, the oldest first.
pub(super) async fn waiting(client: &Client, limit: usize) -> Result<Vec<Listed>, Fault> {
    let statement = format!(
        "{LISTED} WHERE f.asked AND f.approved IS NULL AND f.started_at IS NULL AND d.state = 'pending'
         ORDER BY f.created_at LIMIT $1"
    );
    client.query_typed(&statement, values![many(limit)]).await?.iter().map(listed).collect()
}

fn listed(row: &Row) -> Result<Listed, Fault> {
    let (delivery, started_at): (String, _) = (string(row, "state")?, time(row, "started_at")?);
    let (asked, approved): (bool, Option<bool>) = (flag(row, "asked")?, row.try_get("approved")?);
    let state = follow_up_state(&delivery, started_at, asked, approved);
    Ok(Listed {
        id: DeliveryId::from(string(row, "id")?),
        name: FollowUpName::from(string(row, "name")?),
        source: SourceName::from(string(row, "source")?),
        job: JobId::from(string(row, "subject")?),
        alert: AlertId::from(string(row, "alert")?),
        title: string(row, "title")?,
        state: state.to_owned(),
        created_at: instant(row, "created_at")?,
        started_at,
        note: string(row, "note")?,
    })
}
