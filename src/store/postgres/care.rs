//! A state in a database as something that is looked after: what it holds, and whether the database keeps what it is told.

use tokio_postgres::Client;

use super::value::{flag, instant, number, string, time};
use super::{Fault, Found, Postgres, known_version, look, prune};
use crate::model::examination::{Finding, Health};
use crate::model::time::{Timestamp, span};
use crate::store::care::{Home, Info, Rows};
use crate::store::rows::COUNTED;
use crate::store::{Access, Error, Place, Pruning};

/// Jobs and messages bear the database's time: further apart than this, people wonder.
const SKEW_MAX: std::time::Duration = std::time::Duration::from_secs(5);

pub(in crate::store) async fn info(place: &Place) -> Result<Info, Error> {
    let store = Postgres::open(place, Access::Visitor).await?;
    let mut info = store.read(&(), |client, ()| Box::pin(describe(client))).await?;
    if let Home::Database { at, .. } = &mut info.home {
        at.clone_from(&store.target.shown);
    }
    Ok(info)
}

async fn describe(client: &Client) -> Result<Info, Fault> {
    let counts: Vec<String> =
        COUNTED.iter().map(|table| format!("(SELECT count(*) FROM jobwatch.{table}) AS {table}")).collect();
    // One statement: all of one moment.
    let select = format!(
        "SELECT current_setting('server_version') AS server, (SELECT version FROM jobwatch.version) AS version,
             (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
              WHERE relnamespace = 'jobwatch'::regnamespace AND relkind = 'r') AS size,
             (SELECT min(seen_at) FROM jobwatch.transition) AS oldest, (SELECT max(seen_at) FROM jobwatch.transition) AS newest,
             (SELECT count(*) FROM jobwatch.delivery WHERE state = 'pending') AS pending,
             (SELECT count(*) FROM jobwatch.delivery WHERE state = 'dead') AS dead,
             (SELECT count(*) FROM jobwatch.living) AS living, (SELECT count(*) FROM jobwatch.replica) AS replicas,
             p.at, p.kept_from, coalesce(p.removed, 0) AS removed, coalesce(p.excess, 0) AS excess, {}
         FROM (VALUES (1)) AS one LEFT JOIN jobwatch.pruning AS p ON true",
        counts.join(", ")
    );
    let row = client.query_typed_one(&select, &[]).await?;
    let rows = COUNTED.iter().map(|table| Ok(Rows { table, rows: number(&row, table)? }));
    let pruning = match time(&row, "at")? {
        None => None,
        Some(at) => Some(Pruning {
            at,
            kept_from: instant(&row, "kept_from")?,
            removed: number(&row, "removed")?,
            excess: number(&row, "excess")?,
        }),
    };
    Ok(Info {
        home: Home::Database {
            at: String::new(),
            server: string(&row, "server")?,
            living: number(&row, "living")?,
            replicas: number(&row, "replicas")?,
        },
        version: number(&row, "version")?,
        size: number(&row, "size")?,
        room: prune::room(client).await?,
        rows: rows.collect::<Result<_, Fault>>()?,
        oldest: time(&row, "oldest")?,
        newest: time(&row, "newest")?,
        pending: number(&row, "pending")?,
        dead: number(&row, "dead")?,
        pruning,
    })
}

/// What a replica depends on; what cannot be reached is the last finding.
pub(in crate::store) async fn examine(place: &Place, now: &(dyn Fn() -> Timestamp + Sync)) -> Vec<Finding> {
    let bad = |error: Error| Finding::new("state", Health::Bad, error.to_string());
    let store = match Postgres::beside(place) {
        Ok(store) => store,
        Err(error) => return vec![bad(error)],
    };
    let found = match store.read(&(), |client, ()| Box::pin(look(client))).await {
        Ok(found) => found,
        Err(error) => return vec![bad(error)],
    };
    if let Err(error) = store.judge(&found, Access::Agent) {
        return vec![bad(error)];
    }
    let mut findings = vec![store.reached(&found), store.way()];
    let before = now();
    match store.read(&(), |client, ()| Box::pin(ask(client))).await {
        Ok(facts) => {
            let after = now();
            findings.extend(facts.findings(place, (before, after)));
        }
        Err(error) => findings.push(bad(error)),
    }
    findings
}

impl Postgres {
    fn reached(&self, found: &Found) -> Finding {
        let shown = &self.target.shown;
        let (major, minor) = (found.server / 10_000, found.server % 10_000);
        let text = match found.version {
            Some((version, _)) if version < known_version() => {
                format!(
                    "{shown}, PostgreSQL {major}.{minor}: the state of an earlier jobwatch, which `jobwatch run` takes over"
                )
            }
            Some((version, _)) => format!("{shown}, PostgreSQL {major}.{minor}: a state of version {version}"),
            None => format!("{shown}, PostgreSQL {major}.{minor}: no state yet, `jobwatch run` makes it"),
        };
        Finding::new("state", Health::Good, text)
    }

    /// Who else can read what is sent.
    fn way(&self) -> Finding {
        match (self.target.tls().is_some(), self.target.is_near()) {
            (true, _) => Finding::new("database TLS", Health::Good, "the database has proved who it is"),
            (false, true) => Finding::new("database TLS", Health::Good, "none: the database is on this host"),
            (false, false) => {
                let text = "none: whoever is on the way reads the jobs' words, and can write others; leave sslmode=disable out";
                Finding::new("database TLS", Health::Doubtful, text)
            }
        }
    }
}

/// What the database says of itself.
struct Facts {
    now: Timestamp,
    /// What is in the way of writing, if anything is.
    lacks: Option<String>,
    kept: String,
    synced: bool,
    /// Connections that anybody may still open.
    free: i64,
    /// And as many as there may be in all.
    all: i64,
}

async fn ask(client: &Client) -> Result<Facts, Fault> {
    let row = client
        .query_typed_one(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
                 current_setting('transaction_read_only') = 'on' AS read_only,
                 current_setting('synchronous_commit') AS kept, current_setting('fsync') = 'on' AS synced,
                 to_regclass('jobwatch.version') IS NOT NULL AS any,
                 has_database_privilege(current_database(), 'CREATE') AS may_make, current_user::text AS me,
                 current_database()::text AS here,
                 least(current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
                       (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
                       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS most,
                 (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS open",
            &[],
        )
        .await?;
    let (me, here) = (string(&row, "me")?, string(&row, "here")?);
    let lacks = if flag(&row, "read_only")? {
        Some(format!(
            "`{me}` may only read there (default_transaction_read_only): ALTER ROLE {me} RESET default_transaction_read_only"
        ))
    } else if flag(&row, "any")? {
        lacking(client).await?.map(|table| {
            format!("`{me}` may not change `{table}`: connect as the user who owns the schema jobwatch, or GRANT ALL on its tables")
        })
    } else if !flag(&row, "may_make")? {
        Some(format!("`{me}` may not make the schema: GRANT CREATE ON DATABASE {here} TO {me}"))
    } else {
        None
    };
    let (all, open): (i64, i64) = (number(&row, "most")?, number(&row, "open")?);
    Ok(Facts {
        now: instant(&row, "now")?,
        lacks,
        kept: string(&row, "kept")?,
        synced: flag(&row, "synced")?,
        free: (all - open).max(0),
        all,
    })
}

/// The first table of the state that may not be changed.
async fn lacking(client: &Client) -> Result<Option<String>, Fault> {
    let row = client
        .query_typed_opt(
            "SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS s ON s.oid = c.relnamespace
             WHERE s.nspname = 'jobwatch' AND c.relkind = 'r'
                 AND NOT (has_schema_privilege(s.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                          AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
                          AND has_table_privilege(c.oid, 'DELETE'))
             ORDER BY c.relname LIMIT 1",
            &[],
        )
        .await?;
    row.map(|row| string(&row, "name")).transpose()
}

impl Facts {
    /// Asked between these two times of this host.
    fn findings(&self, place: &Place, asked: (Timestamp, Timestamp)) -> Vec<Finding> {
        let rights = match &self.lacks {
            Some(why) => Finding::new("database rights", Health::Bad, why.as_str()),
            None => Finding::new("database rights", Health::Good, "it can be written"),
        };
        vec![rights, self.clock(asked), self.connections(place), self.durable()]
    }

    fn clock(&self, (before, after): (Timestamp, Timestamp)) -> Finding {
        let (early, late) = (before.since(self.now), self.now.since(after));
        let apart = early.max(late);
        let (health, text) = match (apart > SKEW_MAX, early > late) {
            (false, _) => (Health::Good, "this host's and the database's agree".to_owned()),
            (true, true) => {
                (Health::Doubtful, format!("the database's is {} behind this host's: run NTP on both", span(apart)))
            }
            (true, false) => {
                (Health::Doubtful, format!("the database's is {} ahead of this host's: run NTP on both", span(apart)))
            }
        };
        Finding::new("database clock", health, text)
    }

    fn connections(&self, place: &Place) -> Finding {
        // One more listens.
        let wanted = i64::try_from(place.connections).unwrap_or(i64::MAX).saturating_add(1);
        let text = format!("{} of {} are free, and a replica opens up to {wanted}", self.free, self.all);
        match self.free < wanted {
            false => Finding::new("connections", Health::Good, text),
            true => Finding::new(
                "connections",
                Health::Doubtful,
                format!("{text}: raise max_connections, lower [agent] state_connections, or put a pooler in between"),
            ),
        }
    }

    /// Whether what was committed is kept when the power fails.
    fn durable(&self) -> Finding {
        match (self.synced, self.kept.as_str()) {
            (false, _) => Finding::new(
                "durability",
                Health::Bad,
                "fsync is off: a power cut can take the whole database; set fsync = on in postgresql.conf",
            ),
            (true, "off") => Finding::new(
                "durability",
                Health::Bad,
                "synchronous_commit is off: a crash takes back what was committed, also what was sent and recorded; \
                 ALTER DATABASE … SET synchronous_commit = on",
            ),
            (true, kept) => Finding::new("durability", Health::Good, format!("synchronous_commit is {kept}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        Facts { now, lacks: None, kept: "on".into(), synced: true, free: 90, all: 97 }
    }

    #[test]
    fn each_fact_is_judged_with_what_mends_it() {
        let at = |seconds: i64| Timestamp::from_micros((1_800_000_000 + seconds) * 1_000_000);
        let place = Place::new("postgres://u@h/d");
        let judge = |facts: &Facts, from: i64, to: i64| -> Vec<(Health, String)> {
            facts.findings(&place, (at(from), at(to))).into_iter().map(|found| (found.health, found.text)).collect()
        };
        assert!(judge(&facts(), -1, 1).iter().all(|(health, _)| *health == Health::Good));
        let behind = &judge(&facts(), 60, 61)[1];
        assert_eq!(behind.0, Health::Doubtful);
        assert!(behind.1.starts_with("the database's is 1 min behind"), "{behind:?}");
        assert!(judge(&facts(), -61, -60)[1].1.starts_with("the database's is 1 min ahead"));
        let few = &judge(&Facts { free: 8, ..facts() }, 0, 0)[2];
        assert_eq!(few.0, Health::Doubtful);
        assert!(few.1.starts_with("8 of 97 are free, and a replica opens up to 9: raise"), "{few:?}");
        assert_eq!(judge(&Facts { kept: "off".into(), ..facts() }, 0, 0)[3].0, Health::Bad);
        assert_eq!(judge(&Facts { synced: false, ..facts() }, 0, 0)[3].0, Health::Bad);
        assert_eq!(judge(&Facts { lacks: Some("no".into()), ..facts() }, 0, 0)[0].0, Health::Bad);
    }
}
