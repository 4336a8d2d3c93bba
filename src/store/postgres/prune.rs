//! Forgetting in PostgreSQL: one bounded step at a time, along an index, oldest first.
//!
//! A step looks at rows without holding anybody up, then locks those that nobody needs, asked once more under the lock. A row
//! that somebody else has at hand is left alone until the next time.

use tokio_postgres::{Client, Row};

use super::Fault;
use super::value::{Bound, Txt, bound, flag, instant, many, number, string, values};
use crate::store::retention::{LEFT_MICROS, Mark, Part, Prune, Pruned, Pruning, Room, key};

/// Rows of a table that say how wide its rows are.
const SAMPLE: i64 = 200;
/// What a row costs besides what is in it: its header and its place in the page.
const ROW_BYTES: i64 = 28;
/// Tables that grow: what of their room is in use is measured.
const GROWING: [&str; 16] = [
    "job",
    "transition",
    "alert",
    "told",
    "muted",
    "delivery",
    "payload",
    "attempt",
    "member",
    "held",
    "reserve",
    "fate",
    "follow_up",
    "silence",
    "numbered",
    "request",
];

/// Where the rows of a part are, in which order, and when nobody needs one: who might, stands beside each condition. `$1` is
/// the age, `$2` that of what was given up, `$3` the rules whose findings last.
struct Old {
    /// Its age, and what else the order is made of.
    mark: &'static str,
    from: &'static str,
    /// Behind the last step, if anything is ever kept.
    behind: &'static str,
    order: &'static str,
    over: &'static str,
}

fn old(part: Part) -> Old {
    match part {
        // `rules explain` and `rules backtest`, about the history that is kept.
        Part::Fates => Old {
            mark: "at, 0::bigint AS n, '' AS source, '' AS id, transition, rule, receiver",
            from: "jobwatch.fate AS x WHERE at < $1",
            behind: "",
            order: "at",
            over: "true",
        },
        // Of a job that is there, the last step says how it came to where it is.
        Part::Transitions => Old {
            mark: "seen_at AS at, n, '' AS source, '' AS id",
            from: "jobwatch.transition AS x WHERE seen_at < $1",
            behind: "AND (seen_at, n) > ($4, $5)",
            order: "seen_at, n",
            over: "(EXISTS (SELECT 1 FROM jobwatch.transition AS l
                            WHERE l.source = x.source AND l.job_id = x.job_id AND l.seq > x.seq)
                    OR NOT EXISTS (SELECT 1 FROM jobwatch.job AS j WHERE j.source = x.source AND j.id = x.job_id AND NOT j.gone))",
        },
        // What is pending is owed; of what was given up, a copy for the fallback may not be due yet.
        Part::Deliveries => Old {
            mark: "created_at AS at, n, '' AS source, id",
            from: "jobwatch.delivery AS x WHERE created_at < $1",
            behind: "AND (created_at, n) > ($4, $5)",
            order: "created_at, n",
            over: "state <> 'pending'
                   AND coalesce(ended_at, created_at) < CASE state WHEN 'dead' THEN $2 ELSE $1 END
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.reserve AS r WHERE r.of = x.id)",
        },
        // The id of a follow-up is made from when its finding began: while that one stands, it can be asked for again.
        Part::FollowUps => Old {
            mark: "created_at AS at, 0::bigint AS n, '' AS source, id",
            from: "jobwatch.follow_up AS x WHERE created_at < $1",
            behind: "AND (created_at, id) > ($4, $7)",
            order: "created_at, id",
            over: "coalesce(started_at, created_at) < $1
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.delivery AS d WHERE d.id = x.id)
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.alert AS a
                                   WHERE a.id = x.alert AND NOT a.resolved AND a.first_seen <= x.created_at)",
        },
        // A job has its number as long as it has steps; a follow-up looks at it when it is its turn, and so does what is muted.
        Part::Jobs => Old {
            mark: "seen_at AS at, 0::bigint AS n, source, id",
            from: "jobwatch.job AS x WHERE gone AND seen_at < $1",
            behind: "AND (seen_at, source, id) > ($4, $6, $7)",
            order: "seen_at, source, id",
            over: "NOT EXISTS (SELECT 1 FROM jobwatch.transition AS t WHERE t.source = x.source AND t.job_id = x.id)
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.delivery AS d
                                   WHERE d.subject = x.id AND d.source = x.source AND d.state = 'pending')
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.muted AS m WHERE m.source = x.source AND m.job_id = x.id)",
        },
        // One that is over still says that a job's stay was told, while the job stays. One that stands is a cooldown, an end
        // to be told, an episode that goes on: until its job is forgotten, and as long as there is its rule if others can
        // go on with it. What waits for a word or a turn looks at it, too.
        Part::Alerts => Old {
            mark: "last_seen AS at, 0::bigint AS n, '' AS source, id",
            from: "jobwatch.alert AS x WHERE last_seen < $1",
            behind: "AND (last_seen, id) > ($4, $7)",
            order: "last_seen, id",
            over: "rule <> ALL ($3)
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.job AS j WHERE j.source = x.source AND j.id = x.subject
                                   AND (NOT x.resolved OR NOT j.gone AND j.status_since <= x.last_seen))
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.muted AS m WHERE m.alert = x.id)
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.delivery AS d
                                   WHERE d.subject = x.subject AND d.source = x.source AND d.state = 'pending')
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.told AS t JOIN jobwatch.delivery AS d ON d.id = t.delivery
                                   WHERE t.alert = x.id AND d.state = 'pending')
                   AND NOT EXISTS (SELECT 1 FROM jobwatch.told AS t JOIN jobwatch.held AS h ON h.id = t.delivery
                                   WHERE t.alert = x.id)",
        },
        Part::Leftovers => Old {
            mark: "ends_at AS at, 0::bigint AS n, '' AS source, id",
            from: "jobwatch.silence AS x WHERE ends_at < $1",
            behind: "",
            order: "ends_at, id",
            over: "true",
        },
    }
}

/// The rows that a step looks at: `$4` to `$7` is where it begins, `$8` how many there are.
fn looked(part: Part) -> String {
    let Old { mark, from, behind, order, over } = old(part);
    format!("SELECT {mark}, ({over}) AS over FROM {from} {behind} ORDER BY {order} LIMIT $8")
}

/// Locks those rows of which this still holds; `keys` names some, from `$4` on.
fn locked(part: Part, keys: &str, columns: &str) -> String {
    let Old { from, over, .. } = old(part);
    format!("SELECT {columns} FROM {from} AND {keys} AND ({over}) FOR UPDATE OF x SKIP LOCKED")
}

pub(super) async fn prune(client: &Client, step: &Prune) -> Result<Pruned, Fault> {
    let lasting: Vec<Txt<'_>> = step.lasting.iter().map(|rule| Txt(rule.as_str())).collect();
    let (before, dead_before) = (step.before.micros(), step.dead_before.micros());
    let Mark { at, n, source, id } = &step.from;
    let ages = [bound(&before), bound(&dead_before), bound(&lasting)];
    let (source, id, limit) = (Txt(source), Txt(id), many(step.limit));
    let mut all: Vec<Bound<'_>> = ages.to_vec();
    all.extend([bound(at), bound(n), bound(&source), bound(&id), bound(&limit)]);
    let rows = client.query_typed(&looked(step.part), &all).await?;
    let over: Vec<&Row> = rows
        .iter()
        .filter_map(|row| flag(row, "over").map(|over| over.then_some(row)).transpose())
        .collect::<Result<_, _>>()?;
    let mut removed = if over.is_empty() { 0 } else { forget(client, step.part, &ages, &over).await? };
    if step.part == Part::Leftovers {
        removed += leftovers(client, step.now.micros()).await?;
    }
    let last = rows.last().filter(|_| many(rows.len()) == limit).map(mark).transpose()?;
    Ok(Pruned { removed: usize::try_from(removed).unwrap_or(usize::MAX), next: last })
}

fn mark(row: &Row) -> Result<Mark, Fault> {
    Ok(Mark { at: number(row, "at")?, n: number(row, "n")?, source: string(row, "source")?, id: string(row, "id")? })
}

/// Removes rows of a part, with what belongs to them. Returns how many.
async fn forget(client: &Client, part: Part, ages: &[Bound<'_>; 3], over: &[&Row]) -> Result<u64, Fault> {
    let texts = |column: &str| over.iter().map(|row| string(row, column)).collect::<Result<Vec<_>, _>>();
    match part {
        Part::Fates => {
            let (transitions, rules, receivers) = (texts("transition")?, texts("rule")?, texts("receiver")?);
            let (transitions, rules, receivers) = (txts(&transitions), txts(&rules), txts(&receivers));
            let before = [ages[0].clone(), bound(&transitions), bound(&rules), bound(&receivers)];
            Ok(client
                .execute_typed(
                    "DELETE FROM jobwatch.fate AS x USING unnest($2, $3, $4) AS o (transition, rule, receiver)
                     WHERE x.transition = o.transition AND x.rule = o.rule AND x.receiver = o.receiver AND x.at < $1",
                    &before,
                )
                .await?)
        }
        // Nobody ever writes a step anew.
        Part::Transitions => {
            let numbers = over.iter().map(|row| number(row, "n")).collect::<Result<Vec<i64>, _>>()?;
            Ok(client.execute_typed("DELETE FROM jobwatch.transition WHERE n = ANY ($1)", values![numbers]).await?)
        }
        Part::Deliveries => {
            let numbers = over.iter().map(|row| number(row, "n")).collect::<Result<Vec<i64>, _>>()?;
            let keys = with(ages, [bound(&numbers)]);
            let locked = client.query_typed(&locked(part, "n = ANY ($4)", "n"), &keys).await?;
            let numbers = locked.iter().map(|row| number(row, "n")).collect::<Result<Vec<i64>, _>>()?;
            // A cooldown counts from when it was heard, and who never heard of a beginning is not told the end.
            client
                .execute_typed(
                    "UPDATE jobwatch.told AS t
                     SET heard_at = CASE d.state WHEN 'delivered' THEN d.ended_at END, lost = d.state <> 'delivered'
                     FROM jobwatch.delivery AS d WHERE d.n = ANY ($1) AND t.delivery = d.id",
                    values![numbers],
                )
                .await?;
            Ok(client.execute_typed("DELETE FROM jobwatch.delivery WHERE n = ANY ($1)", values![numbers]).await?)
        }
        Part::FollowUps => forget_named(client, part, "follow_up", ages, &texts("id")?).await,
        Part::Alerts => forget_named(client, part, "alert", ages, &texts("id")?).await,
        Part::Leftovers => forget_named(client, part, "silence", ages, &texts("id")?).await,
        Part::Jobs => {
            let (sources, ids) = (texts("source")?, texts("id")?);
            let (sources, ids) = (txts(&sources), txts(&ids));
            let keys = with(ages, [bound(&sources), bound(&ids)]);
            let named = "(source, id) IN (SELECT * FROM unnest($4, $5))";
            let locked = client.query_typed(&locked(part, named, "source, id, seq"), &keys).await?;
            forget_jobs(client, &locked).await
        }
    }
}

/// Removes rows by their ids; of a finding, with who was told of it.
async fn forget_named(
    client: &Client,
    part: Part,
    table: &str,
    ages: &[Bound<'_>; 3],
    ids: &[String],
) -> Result<u64, Fault> {
    let ids = txts(ids);
    let keys = with(ages, [bound(&ids)]);
    let locked = client.query_typed(&locked(part, "id = ANY ($4)", "id"), &keys).await?;
    let ids = locked.iter().map(|row| string(row, "id")).collect::<Result<Vec<_>, _>>()?;
    if part == Part::Alerts {
        client.execute_typed("DELETE FROM jobwatch.told WHERE alert = ANY ($1)", values![ids]).await?;
    }
    Ok(client.execute_typed(&format!("DELETE FROM jobwatch.{table} WHERE id = ANY ($1)"), values![ids]).await?)
}

/// Removes jobs that are locked, and keeps their numbers.
async fn forget_jobs(client: &Client, jobs: &[Row]) -> Result<u64, Fault> {
    let sources = jobs.iter().map(|row| string(row, "source")).collect::<Result<Vec<_>, _>>()?;
    let ids = jobs.iter().map(|row| string(row, "id")).collect::<Result<Vec<_>, _>>()?;
    let mut numbers = std::collections::BTreeMap::<i64, i64>::new();
    for ((source, id), row) in sources.iter().zip(&ids).zip(jobs) {
        let seq: i64 = number(row, "seq")?;
        numbers.entry(key(source, id)).and_modify(|known| *known = seq.max(*known)).or_insert(seq);
    }
    let (keys, numbers): (Vec<i64>, Vec<i64>) = numbers.into_iter().unzip();
    client
        .execute_typed(
            "INSERT INTO jobwatch.numbered AS x (key, seq) SELECT * FROM unnest($1, $2)
             ON CONFLICT (key) DO UPDATE SET seq = greatest(x.seq, excluded.seq)",
            values![keys, numbers],
        )
        .await?;
    let (sources, ids) = (txts(&sources), txts(&ids));
    Ok(client
        .execute_typed(
            "DELETE FROM jobwatch.job AS x USING unnest($1, $2) AS o (source, id) WHERE x.source = o.source AND x.id = o.id",
            values![sources, ids],
        )
        .await?)
}

/// The ages, and what names some rows.
fn with<'a, const N: usize>(ages: &[Bound<'a>; 3], keys: [Bound<'a>; N]) -> Vec<Bound<'a>> {
    ages.iter().cloned().chain(keys).collect()
}

fn txts(texts: &[String]) -> Vec<Txt<'_>> {
    texts.iter().map(|text| Txt(text)).collect()
}

/// Requests that were made long ago with their answers, groups of which nothing is held, and replicas that are no more.
async fn leftovers(client: &Client, now: i64) -> Result<u64, Fault> {
    let before = now.saturating_sub(LEFT_MICROS);
    let mut removed = 0;
    for statement in [
        "DELETE FROM jobwatch.request WHERE n IN
             (SELECT n FROM jobwatch.request WHERE asked_at < $1 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM jobwatch.gathering WHERE (receiver, grp) IN
             (SELECT receiver, grp FROM jobwatch.gathering AS g WHERE until < $1 AND NOT EXISTS
                  (SELECT 1 FROM jobwatch.held AS h WHERE h.receiver = g.receiver AND h.grp = g.grp)
              FOR UPDATE SKIP LOCKED)",
    ] {
        removed += client.execute_typed(statement, values![before]).await?;
    }
    // Those live by the database's own clock.
    let replicas = "DELETE FROM jobwatch.replica WHERE id IN
        (SELECT id FROM jobwatch.replica WHERE until < jobwatch.now() - $1 FOR UPDATE SKIP LOCKED)";
    Ok(removed + client.execute_typed(replicas, values![LEFT_MICROS]).await?)
}

/// The last numbers of jobs that are forgotten, of those that are.
pub(super) async fn numbered(client: &Client, source: &str, ids: &[&str]) -> Result<Vec<(String, u32)>, Fault> {
    let keys: Vec<i64> = ids.iter().map(|id| key(source, id)).collect();
    // When no job was ever forgotten, nothing is looked for.
    let rows = client
        .query_typed(
            "SELECT o.at, x.seq FROM unnest($1) WITH ORDINALITY AS o (key, at) JOIN jobwatch.numbered AS x ON x.key = o.key
             WHERE EXISTS (SELECT 1 FROM jobwatch.numbered)",
            values![keys],
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let at: usize = number(row, "at")?;
        if let Some(id) = ids.get(at.wrapping_sub(1)) {
            found.push(((*id).to_owned(), number(row, "seq")?));
        }
    }
    Ok(found)
}

/// Room that was given free in a table is used again by the table and seldom given back: what is in use is counted from its
/// rows, because history is forgotten for as long as too much is.
pub(super) async fn room(client: &Client) -> Result<Room, Fault> {
    let part = |table: &&str| {
        format!(
            "SELECT pg_total_relation_size('jobwatch.{table}') AS whole, pg_table_size('jobwatch.{table}') AS main,
                 (SELECT count(*) FROM jobwatch.{table})
                 * (SELECT coalesce(avg(pg_column_size(x.*)), 0)::bigint + {ROW_BYTES}
                    FROM (SELECT * FROM jobwatch.{table} LIMIT {SAMPLE}) AS x) AS rows"
        )
    };
    let parts: Vec<String> = GROWING.iter().map(part).collect();
    let select = format!(
        "SELECT coalesce(sum(CASE WHEN main > 0 THEN whole * least(1.0, rows::numeric / main) ELSE 0 END), 0)::bigint AS used
         FROM ({}) AS t",
        parts.join(" UNION ALL ")
    );
    let row = client.query_typed_one(&select, &[]).await?;
    Ok(Room { used: number(&row, "used")?, free: 0, shrinks: true })
}

pub(super) async fn pruning(client: &Client) -> Result<Option<Pruning>, Fault> {
    let row = client.query_typed_opt("SELECT at, kept_from, removed, excess FROM jobwatch.pruning", &[]).await?;
    let read = |row: Row| {
        Ok(Pruning {
            at: instant(&row, "at")?,
            kept_from: instant(&row, "kept_from")?,
            removed: number(&row, "removed")?,
            excess: number(&row, "excess")?,
        })
    };
    row.map(read).transpose()
}

pub(super) async fn note(client: &Client, pruning: &Pruning) -> Result<(), Fault> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let Pruning { at, kept_from, removed, excess } = pruning;
    client
        .execute_typed(
            "INSERT INTO jobwatch.pruning (one, at, kept_from, removed, excess) VALUES (1, $1, $2, $3, $4)
             ON CONFLICT (one) DO UPDATE SET at = excluded.at, kept_from = excluded.kept_from,
                 removed = excluded.removed, excess = excluded.excess",
            values![at.micros(), kept_from.micros(), count(*removed), count(*excess)],
        )
        .await?;
    Ok(())
}
