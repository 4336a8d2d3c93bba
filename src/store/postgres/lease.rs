//! Who polls what. A lease is a row for each source that changes only when it changes hands; that its holder lives stands in
//! one row of the holder's, which is all that a renewal writes. Both are timed by the database's clock.

use std::collections::{BTreeMap, HashSet};

use tokio_postgres::Client;

use super::value::{Txt, flag, instant, number, string, values};
use super::{Fault, news};
use crate::model::name::SourceName;
use crate::model::time::Timestamp;
use crate::store::share::{Attendance, Attended, Fence, ReplicaView};

/// The lease of the source `$1`, if `$2` holds it in its epoch `$3` and lives. Whoever takes it over waits for this
/// transaction.
pub(super) const FENCE: &str = "SELECT 1 FROM jobwatch.lease AS l JOIN jobwatch.living AS r ON r.id = l.holder
     WHERE l.source = $1 AND l.holder = $2 AND l.epoch = $3 FOR SHARE OF l";

/// A lease that nobody has held for so many times its length is taken by whoever finds it, whatever his share: the others may
/// not have its source.
const ORPHANED_AFTER: i64 = 2;

pub(super) async fn now(client: &Client) -> Result<Timestamp, Fault> {
    instant(&client.query_typed_one("SELECT jobwatch.now() AS now", &[]).await?, "now")
}

pub(super) async fn attend(client: &Client, replica: &str, attendance: &Attendance) -> Result<Attended, Fault> {
    let ttl = i64::try_from(attendance.ttl.as_micros()).unwrap_or(i64::MAX);
    let is_new = arrive(client, replica, attendance, ttl).await?;
    let me = Txt(replica);
    let standing = client
        .query_typed_one(
            "SELECT jobwatch.now() AS now, count(*) AS living,
                 count(*) FILTER (WHERE NOT guest) AS sharing, count(*) FILTER (WHERE NOT guest AND id < $1) AS before
             FROM jobwatch.living",
            values![me],
        )
        .await?;
    let living: usize = number(&standing, "living")?;
    let (sharing, before): (usize, usize) = (number(&standing, "sharing")?, number(&standing, "before")?);
    let (mut held, mut orphans) = held(client, replica).await?;
    let known: HashSet<&SourceName> = attendance.wanted.iter().collect();
    // What one does for all is nobody's share, nor is what nobody else wanted.
    let ours = |held: &BTreeMap<SourceName, Fence>, orphans: &HashSet<SourceName>| {
        held.keys().filter(|source| !is_apart(source) && !orphans.contains(*source)).count()
    };
    let wanted = attendance.wanted.iter().filter(|source| !is_apart(source)).count();
    let share = if attendance.guest { wanted } else { share(wanted, sharing.max(1), before) };
    let room = share.saturating_sub(ours(&held, &orphans));
    let taken = take(client, replica, attendance, room, ttl, &mut orphans).await?;
    let came = is_new && !attendance.guest || !taken.is_empty();
    held.extend(taken);
    // What is no longer wanted is given back, and of what is beyond the share the last.
    let mut excess: Vec<SourceName> = held.keys().filter(|source| !known.contains(source)).cloned().collect();
    let over = ours(&held, &orphans).saturating_sub(excess.len()).saturating_sub(share);
    let mine = |source: &&SourceName| !is_apart(source) && known.contains(*source) && !orphans.contains(*source);
    let over: Vec<SourceName> = held.keys().rev().filter(mine).take(over).cloned().collect();
    excess.extend(over);
    if came {
        news::say(client, "leases").await?;
    }
    Ok(Attended { held, excess, living, now: instant(&standing, "now")? })
}

/// Whether this is no source, but what one replica does for all.
fn is_apart(source: &SourceName) -> bool {
    source.as_str().is_empty()
}

/// A replica's share of so many sources: no two shares differ by more than one.
fn share(sources: usize, living: usize, before: usize) -> usize {
    sources / living + usize::from(before < sources % living)
}

/// Writes that the replica lives. If it is new here, or was late, its leases begin anew.
async fn arrive(client: &Client, replica: &str, attendance: &Attendance, ttl: i64) -> Result<bool, Fault> {
    let Attendance { name, version, rules, sources, started_at, wanted, .. } = attendance;
    let me = Txt(replica);
    let known = client
        .query_typed_opt(
            "SELECT until > jobwatch.now() AS living FROM jobwatch.replica WHERE id = $1 FOR UPDATE",
            values![me],
        )
        .await?;
    let in_time = known.map(|row| flag(&row, "living")).transpose()?.unwrap_or(false);
    client
        .execute_typed(
            "INSERT INTO jobwatch.replica (id, name, version, rules, sources, started_at, seen_at, until, guest)
                 VALUES ($1, $2, $3, $4, $5, $6, jobwatch.now(), jobwatch.now() + $7, $8)
                 ON CONFLICT (id) DO UPDATE SET rules = excluded.rules, sources = excluded.sources,
                 seen_at = excluded.seen_at, until = excluded.until",
            values![me, Txt(name), Txt(version), Txt(rules), Txt(sources), started_at.micros(), ttl, attendance.guest],
        )
        .await?;
    if !in_time {
        let names: Vec<Txt<'_>> = wanted.iter().map(|source| Txt(source.as_str())).collect();
        client
            .execute_typed(
                "INSERT INTO jobwatch.lease (source, since)
                     SELECT source, jobwatch.now() FROM unnest($1::text[]) AS source ORDER BY source ON CONFLICT (source) DO NOTHING",
                values![names],
            )
            .await?;
        client
            .execute_typed(
                "UPDATE jobwatch.lease SET epoch = epoch + 1, since = jobwatch.now() WHERE holder = $1",
                values![me],
            )
            .await?;
    }
    Ok(!in_time)
}

/// What it holds, and what of that nobody else wanted.
async fn held(client: &Client, replica: &str) -> Result<(BTreeMap<SourceName, Fence>, HashSet<SourceName>), Fault> {
    let rows = client
        .query_typed("SELECT source, epoch, orphan FROM jobwatch.lease WHERE holder = $1", values![Txt(replica)])
        .await?;
    let (mut held, mut orphans) = (BTreeMap::new(), HashSet::new());
    for row in &rows {
        let source = SourceName::from(string(row, "source")?);
        if flag(row, "orphan")? {
            orphans.insert(source.clone());
        }
        held.insert(source, Fence { holder: replica.to_owned(), epoch: number(row, "epoch")? });
    }
    Ok((held, orphans))
}

/// Takes what nobody holds, up to so many, and what nobody has wanted for long.
async fn take(
    client: &Client,
    replica: &str,
    attendance: &Attendance,
    room: usize,
    ttl: i64,
    orphans: &mut HashSet<SourceName>,
) -> Result<Vec<(SourceName, Fence)>, Fault> {
    // Mostly there is nothing to take, and then nobody has to hear of everything that is wanted.
    let any = "SELECT EXISTS (SELECT 1 FROM jobwatch.lease AS l
        WHERE (l.holder IS NULL OR l.holder NOT IN (SELECT id FROM jobwatch.living))) AS any";
    if !flag(&client.query_typed_one(any, &[]).await?, "any")? {
        return Ok(Vec::new());
    }
    let wanted: Vec<Txt<'_>> = attendance.wanted.iter().map(|source| Txt(source.as_str())).collect();
    let free = client
        .query_typed(
            "SELECT l.source, coalesce((SELECT r.until FROM jobwatch.replica AS r WHERE r.id = l.holder), l.since)
                     < jobwatch.now() - $1 AS orphaned
                 FROM jobwatch.lease AS l WHERE (l.holder IS NULL OR l.holder NOT IN (SELECT id FROM jobwatch.living)) AND l.source = ANY($2)
                 ORDER BY l.source COLLATE \"C\"",
            values![ttl.saturating_mul(ORPHANED_AFTER), wanted],
        )
        .await?;
    let (mut chosen, mut orphaned) = (Vec::new(), Vec::new());
    for (at, row) in free.iter().enumerate() {
        let source = string(row, "source")?;
        // The one that stands apart is the first.
        let place = at - usize::from(chosen.first().is_some_and(String::is_empty));
        if source.is_empty() || place < room {
            chosen.push(source);
        } else if flag(row, "orphaned")? {
            orphaned.push(source.clone());
            chosen.push(source);
        }
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    // No more is locked than is taken: to somebody who looks at the same moment, what is locked is not there, and he would not
    // hear that it was left to him.
    let lock = "SELECT source FROM jobwatch.lease WHERE source = ANY($1) ORDER BY source FOR UPDATE SKIP LOCKED";
    let locked = client.query_typed(lock, values![chosen]).await?;
    let locked = locked.iter().map(|row| string(row, "source")).collect::<Result<Vec<String>, Fault>>()?;
    // Asked once more, now that nobody else can take them: the look above is older than the locks.
    let taken = client
        .query_typed(
            "UPDATE jobwatch.lease AS l SET holder = $1, epoch = epoch + 1, since = jobwatch.now(), orphan = source = ANY($3)
                 WHERE source = ANY($2) AND (l.holder IS NULL OR l.holder NOT IN (SELECT id FROM jobwatch.living)) RETURNING source, epoch",
            values![Txt(replica), locked, orphaned],
        )
        .await?;
    orphans.extend(orphaned.into_iter().map(SourceName::from));
    taken
        .iter()
        .map(|row| {
            let fence = Fence { holder: replica.to_owned(), epoch: number(row, "epoch")? };
            Ok((SourceName::from(string(row, "source")?), fence))
        })
        .collect()
}

/// Gives back what is still held as it was.
pub(super) async fn hand_back(client: &Client, leases: &[(SourceName, Fence)]) -> Result<(), Fault> {
    let sources: Vec<Txt<'_>> = leases.iter().map(|(source, _)| Txt(source.as_str())).collect();
    let holders: Vec<Txt<'_>> = leases.iter().map(|(_, fence)| Txt(&fence.holder)).collect();
    let epochs: Vec<i64> = leases.iter().map(|(_, fence)| fence.epoch).collect();
    client
        .execute_typed(
            "UPDATE jobwatch.lease AS l SET holder = NULL, since = jobwatch.now()
                 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS g (source, holder, epoch)
                 WHERE l.source = g.source AND l.holder = g.holder AND l.epoch = g.epoch",
            values![sources, holders, epochs],
        )
        .await?;
    news::say(client, "leases").await
}

pub(super) async fn leave(client: &Client, replica: &str) -> Result<(), Fault> {
    client
        .execute_typed(
            "UPDATE jobwatch.lease SET holder = NULL, since = jobwatch.now() WHERE holder = $1",
            values![Txt(replica)],
        )
        .await?;
    client.execute_typed("DELETE FROM jobwatch.replica WHERE id = $1", values![Txt(replica)]).await?;
    news::say(client, "leases").await
}

/// Replicas that are there, or were lately, by name.
pub(super) async fn replicas(client: &Client) -> Result<Vec<ReplicaView>, Fault> {
    let rows = client
        .query_typed(
            "SELECT r.*, r.until > jobwatch.now() AS living,
                     ARRAY(SELECT l.source FROM jobwatch.lease AS l WHERE l.holder = r.id ORDER BY l.source COLLATE \"C\") AS holds,
                     (SELECT count(*) FROM jobwatch.claim AS c WHERE c.replica = r.id AND c.until > jobwatch.now()) AS claims
                 FROM jobwatch.replica AS r ORDER BY r.name COLLATE \"C\", r.id",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (living, all): (bool, Vec<String>) = (flag(row, "living")?, row.try_get("holds")?);
            Ok(ReplicaView {
                id: string(row, "id")?,
                name: string(row, "name")?,
                version: string(row, "version")?,
                rules: string(row, "rules")?,
                sources: string(row, "sources")?,
                started_at: instant(row, "started_at")?,
                seen_at: instant(row, "seen_at")?,
                living,
                housekeeping: living && all.iter().any(String::is_empty),
                claims: number(row, "claims")?,
                holds: all.into_iter().filter(|source| living && !source.is_empty()).map(SourceName::from).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_add_up_and_differ_by_no_more_than_one() {
        for (sources, living) in [(0, 1), (1, 3), (10, 3), (11, 3), (2_000, 7)] {
            let shares: Vec<usize> = (0..living).map(|before| share(sources, living, before)).collect();
            assert_eq!(shares.iter().sum::<usize>(), sources);
            assert!(shares.iter().max().zip(shares.iter().min()).is_some_and(|(most, least)| most - least <= 1));
        }
    }
}
