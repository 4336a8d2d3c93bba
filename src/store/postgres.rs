//! The shared engine: a PostgreSQL that the users already run, on which any number of agents work together.
//!
//! Every change is one transaction at READ COMMITTED, and holds by what it checks itself: a commit by the lease it was
//! decided under ([`lease`]), a record by the token of its claim ([`outbox`]), whatever is owed to a receiver by the turn it
//! was decided in ([`turn`]). Transactions that the database breaks off to resolve a deadlock are made again. Statements
//! have no names and nothing is set for a session, so that a pooler in between may give every transaction another
//! connection; only what others did is then heard of later ([`news`]).
//!
//! Times are the caller's, who takes them from the database's clock; leases are timed by the database itself.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Pool, PoolError};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

pub(super) mod care;
mod commit;
pub(super) mod copy;
mod finding;
mod follow_up;
mod gauge;
mod glance;
mod lease;
mod link;
mod load;
mod news;
mod outbox;
mod pace;
mod past;
mod prune;
mod request;
mod turn;
mod value;
mod view;

use super::glance::{Glance, Look};
use super::rows::json;
use super::share::{Attendance, Attended, Begun, Bounds, Fence, Health, News, ReplicaView};
use super::view::{
    AlertFilter, AlertKey, AlertView, JobFilter, JobKey, JobView, NumberKey, OutboxView, Page, SourceFilter, SourceKey,
    SourceView, TransitionFilter, TransitionView,
};
use super::{
    Access, Again, Answer, AttemptRow, Commit, Delivery, Dossier, Dropped, Error, Filter, Finding, Gathered, Gauges,
    Lapse, Lapsed, PaceOf, Past, Place, Prune, Pruned, Pruning, Record, Request, Room, Span, Store, Told, Trouble,
    Turns, Wanted,
};
use crate::model::alert::{Fate, Silence};
use crate::model::delivery::{Claimed, DeliveryState, Held};
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::index::Index;
use crate::model::job::{Job, Status};
use crate::model::listing;
use crate::model::memory::{Memory, Pacing, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::snapshot::Known;
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use link::{Loan, Target};
use value::{Txt, flag, instant, number, string, text, time, values};

/// Each step takes a state from version *n* to *n + 1*.
const MIGRATIONS: &[&str] = &[include_str!("schema/postgres-1.sql")];
/// The oldest version of the program's schema that can go on working with what this one writes: while replicas are renewed
/// one by one, both are at work.
const READABLE_FROM: i64 = 1;
/// Whoever brings the state to the present version holds this advisory lock meanwhile.
const MIGRATION_LOCK: i64 = 0x4a6f_6257;
/// The first version with what the statements use.
const SERVER_MIN: i64 = 130_000;
/// What is asked of the database is answered within this time, or is given up.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// A transaction: its statements end before the agent gives it up, and it waits for no lock for long. One whose agent stands
/// still in the middle of it, or is cut off, is ended before those who wait for what it has locked give up.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '5s'; \
     SET LOCAL idle_in_transaction_session_timeout = '4s'";
/// A transaction that was broken off to resolve a deadlock is made again, so often.
const TRIES_MAX: u32 = 8;

/// What came of a statement, until it is an [`Error`].
#[derive(Debug)]
pub(super) enum Fault {
    /// The database's.
    Sql(tokio_postgres::Error),
    /// Ours.
    Said(Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

/// Something that is being done on a connection.
type Doing<'t, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 't>>;

/// A state in PostgreSQL.
pub(super) struct Postgres {
    pool: Pool,
    target: Target,
    /// This agent, as leases and answers know it; nothing for a command beside the agents.
    replica: String,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("at", &self.target.shown)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    pub(super) async fn open(place: &Place, access: Access) -> Result<Self, Error> {
        let mut store = Self::beside(place)?;
        let found = store.read(&(), |client, ()| Box::pin(look(client))).await?;
        store.judge(&found, access)?;
        if access == Access::Agent {
            store.write(&(), |client, ()| Box::pin(migrate(client))).await?;
            store.replica = found.fresh;
        }
        Ok(store)
    }

    /// The way there; nobody has gone it yet.
    fn beside(place: &Place) -> Result<Self, Error> {
        let target = Target::read(place)?;
        let pool = target.pool(place.connections)?;
        Ok(Self { pool, target, replica: String::new() })
    }

    /// Whether what was found there can be used.
    fn judge(&self, found: &Found, access: Access) -> Result<(), Error> {
        let (shown, known) = (&self.target.shown, known_version());
        if found.server < SERVER_MIN {
            return Err(Error::Unusable(format!(
                "{shown} is a PostgreSQL of version {}: 13 or newer is needed",
                found.server / 10_000
            )));
        }
        if found.standby {
            return Err(Error::Failed(format!("{shown} is a standby, where nothing can be written: name the primary")));
        }
        match (found.version, access) {
            (Some((version, readable_from)), _) if version > known && readable_from > known => {
                Err(Error::Unusable(format!(
                    "the state {shown} was written by a newer jobwatch (version {version}, this one knows {known}); it was left as it is"
                )))
            }
            (None, Access::Visitor) => Err(Error::Missing(shown.clone())),
            (Some((version, _)), Access::Visitor) if version < known => Err(Error::Failed(format!(
                "the state {shown} was written by an earlier jobwatch: start `jobwatch run` once, which takes it over"
            ))),
            (Some(_) | None, _) => Ok(()),
        }
    }

    async fn connect(&self) -> Result<Loan, Error> {
        match self.pool.get().await {
            Ok(object) => Ok(Loan::new(object)),
            Err(PoolError::Backend(error)) => Err(self.sort(&error)),
            Err(error) => Err(Error::Failed(format!("the state {}: no connection: {error}", self.target.shown))),
        }
    }

    /// Asks for something. What is asked for in several statements may be of several moments.
    async fn read<A: Sync + ?Sized, T>(
        &self,
        about: &A,
        work: for<'t> fn(&'t Client, &'t A) -> Doing<'t, T>,
    ) -> Result<T, Error> {
        for last in [false, true] {
            let loan = self.connect().await?;
            match tokio::time::timeout(ANSWER_MAX, work(loan.client(), about)).await {
                Ok(Ok(found)) => {
                    loan.give_back();
                    return Ok(found);
                }
                // It was closed while it lay in the pool.
                Ok(Err(Fault::Sql(error))) if !last && error.is_closed() => {}
                Ok(Err(fault)) => {
                    loan.give_back();
                    return Err(self.sorted(fault));
                }
                Err(_) => return Err(self.silent()),
            }
        }
        Err(self.silent())
    }

    /// Makes a change: all of it, for good, or nothing.
    async fn write<A: Sync + ?Sized, T>(
        &self,
        about: &A,
        work: for<'t> fn(&'t Client, &'t A) -> Doing<'t, T>,
    ) -> Result<T, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let loan = self.connect().await?;
            let change = async {
                let client = loan.client();
                // The first statement does not wait for the answer to this: both are on their way together.
                let made = tokio::try_join!(async { Ok(client.batch_execute(BEGIN).await?) }, work(client, about));
                match made {
                    Ok(((), made)) => {
                        client.batch_execute("COMMIT").await?;
                        Ok(made)
                    }
                    Err(fault) => {
                        client.batch_execute("ROLLBACK").await?;
                        Err(fault)
                    }
                }
            };
            match tokio::time::timeout(ANSWER_MAX, change).await {
                Ok(Ok(made)) => {
                    loan.give_back();
                    return Ok(made);
                }
                Ok(Err(fault)) => {
                    // It was rolled back; one that is closed is not taken out of the pool again.
                    loan.give_back();
                    if tries < TRIES_MAX && is_passing(&fault) {
                        tokio::time::sleep(Duration::from_millis(u64::from(tries) * 5)).await;
                        continue;
                    }
                    return Err(self.sorted(fault));
                }
                Err(_) => return Err(self.silent()),
            }
        }
    }

    fn silent(&self) -> Error {
        Error::Failed(format!("the state {}: no answer within {} s", self.target.shown, ANSWER_MAX.as_secs()))
    }

    fn sorted(&self, fault: Fault) -> Error {
        match fault {
            Fault::Sql(error) => self.sort(&error),
            Fault::Said(error) => error,
        }
    }

    /// In words, with what would mend it.
    fn sort(&self, error: &tokio_postgres::Error) -> Error {
        let shown = &self.target.shown;
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        let hint = match error.code() {
            None if said.contains("password missing") => " (set [agent] state_password)",
            Some(code)
                if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                " (set [agent] state_password, or let pg_hba.conf take this user from here)"
            }
            Some(code) if *code == SqlState::INVALID_CATALOG_NAME => " (make it: createdb)",
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                " (the user needs CREATE on the database for the first start, and owns the schema jobwatch from then on)"
            }
            Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
                " (raise max_connections, lower [agent] state_connections, or put a pooler in between)"
            }
            Some(_) | None => "",
        };
        Error::Failed(format!("the state {shown}: {said}{hint}"))
    }
}

/// Whether a transaction that ended so can be made again at once.
fn is_passing(fault: &Fault) -> bool {
    match fault {
        Fault::Sql(error) => error.code().is_some_and(|code| {
            *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE
        }),
        Fault::Said(_) => false,
    }
}

fn known_version() -> i64 {
    value::many(MIGRATIONS.len())
}

/// What stands in a database.
struct Found {
    /// The server's version.
    server: i64,
    standby: bool,
    /// The state's version, and the oldest one that can work with it; `None` when there is no state.
    version: Option<(i64, i64)>,
    /// An id that nobody has.
    fresh: String,
}

async fn look(client: &Client) -> Result<Found, Fault> {
    let row = client
        .query_typed_one(
            "SELECT current_setting('server_version_num')::bigint AS server, pg_is_in_recovery() AS standby,
                 to_regclass('jobwatch.version') IS NOT NULL AS any, gen_random_uuid()::text AS fresh",
            &[],
        )
        .await?;
    let version = match flag(&row, "any")? {
        true => version(client).await?,
        false => None,
    };
    Ok(Found {
        server: number(&row, "server")?,
        standby: flag(&row, "standby")?,
        version,
        fresh: string(&row, "fresh")?,
    })
}

async fn version(client: &Client) -> Result<Option<(i64, i64)>, Fault> {
    let row = client.query_typed_opt("SELECT version, readable_from FROM jobwatch.version", &[]).await?;
    row.map(|row| Ok((number(&row, "version")?, number(&row, "readable_from")?))).transpose()
}

/// Brings the state to the present version; of several that start at once, one does.
async fn migrate(client: &Client) -> Result<(), Fault> {
    client.query_typed("SELECT pg_advisory_xact_lock($1)", values![MIGRATION_LOCK]).await?;
    // Asked of the catalogue itself: what this session remembers of names may be from before it had the lock.
    let any = "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = 'jobwatch' AND tablename = 'version') AS any";
    let any = client.query_typed_one(any, &[]).await?;
    if !flag(&any, "any")? {
        client
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS jobwatch;
                 CREATE TABLE jobwatch.version (version BIGINT NOT NULL, readable_from BIGINT NOT NULL);
                 INSERT INTO jobwatch.version VALUES (0, 0)",
            )
            .await?;
    }
    let (from, _) = version(client).await?.unwrap_or_default();
    for step in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        client.batch_execute(step).await?;
    }
    if from < known_version() {
        client
            .execute_typed(
                "UPDATE jobwatch.version SET version = $1, readable_from = $2",
                values![known_version(), READABLE_FROM],
            )
            .await?;
    }
    Ok(())
}

/// What is wrong with a URL.
pub(super) fn check(place: &Place) -> Result<(), String> {
    Target::parse(place).map(drop)
}

#[async_trait]
impl Store for Postgres {
    async fn load(&self, source: &SourceName, wanted: Wanted) -> Result<Memory, Error> {
        self.read(&(source, &wanted), |client, (source, wanted)| Box::pin(load::load(client, source, wanted))).await
    }

    async fn index(&self, source: &SourceName) -> Result<(Index, bool), Error> {
        self.read(source, |client, source| Box::pin(load::index(client, source))).await
    }

    async fn sights(&self) -> Result<Vec<(SourceName, Sight)>, Error> {
        self.read(&(), |client, ()| Box::pin(load::sights(client))).await
    }

    async fn amiss(&self) -> Result<Vec<(SourceName, Sight, Option<listing::Fault>)>, Error> {
        self.read(&(), |client, ()| Box::pin(load::amiss(client))).await
    }

    async fn tell(&self, told: Told) -> Result<(), Error> {
        self.write(&told, |client, told| Box::pin(commit::tell(client, told))).await
    }

    async fn commit(&self, commit: Commit) -> Result<usize, Error> {
        if commit::is_idle(&commit) {
            return self.read(&commit, |client, commit| Box::pin(commit::idle(client, commit))).await;
        }
        self.write(&commit, |client, commit| Box::pin(commit::commit(client, commit))).await
    }

    async fn claim(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, Error> {
        let asked = outbox::Asked { replica: &self.replica, receiver, now, until, limit, seen: None };
        self.write(&asked, |client, asked| Box::pin(outbox::claim(client, asked))).await
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<bool>, Error> {
        self.write(&records, |client, records| Box::pin(outbox::record(client, records))).await
    }

    async fn escalate(&self, receiver: &ReceiverName, now: Timestamp) -> Result<Vec<ReceiverName>, Error> {
        // Mostly there is nothing to write.
        if self.next_escalation(receiver).await?.is_none_or(|due| due > now) {
            return Ok(Vec::new());
        }
        self.write(&(receiver, now), |client, (receiver, now)| Box::pin(outbox::escalate(client, receiver, *now))).await
    }

    async fn next_escalation(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        self.read(receiver, |client, receiver| Box::pin(outbox::next_escalation(client, receiver))).await
    }

    async fn overdue(
        &self,
        receiver: &ReceiverName,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Delivery>, Error> {
        self.read(&(receiver, before, now), |client, (receiver, before, now)| {
            Box::pin(outbox::first_overdue(client, receiver, *before, *now))
        })
        .await
    }

    async fn lapse(&self, lapse: Lapse) -> Result<Lapsed, Error> {
        self.write(&lapse, |client, lapse| Box::pin(outbox::lapse(client, lapse))).await
    }

    async fn reopen(&self, receiver: &ReceiverName, now: Timestamp) -> Result<bool, Error> {
        self.write(&(receiver, now), |client, (receiver, now)| {
            Box::pin(async move { Ok(!outbox::reopen(client, &[receiver.as_str()], *now).await?.is_empty()) })
        })
        .await
    }

    async fn release(&self, claimed: Vec<Claimed>) -> Result<(), Error> {
        self.read(&claimed, |client, claimed| Box::pin(outbox::release(client, claimed))).await
    }

    async fn next_due(&self, receiver: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        self.read(receiver, |client, receiver| Box::pin(outbox::next_due(client, receiver))).await
    }

    async fn trouble(&self, receiver: &ReceiverName) -> Result<Trouble, Error> {
        self.read(receiver, |client, receiver| Box::pin(outbox::trouble_of(client, receiver))).await
    }

    async fn troubles(&self) -> Result<Vec<(ReceiverName, Trouble)>, Error> {
        self.read(&(), |client, ()| Box::pin(outbox::troubles(client))).await
    }

    async fn waiting(&self) -> Result<Vec<(ReceiverName, usize)>, Error> {
        self.read(&(), |client, ()| Box::pin(outbox::waiting(client))).await
    }

    async fn again(&self, which: Again, now: Timestamp) -> Result<Vec<DeliveryId>, Error> {
        self.write(&(which, now), |client, (which, now)| Box::pin(outbox::again(client, which, *now))).await
    }

    async fn end(&self, ids: Vec<DeliveryId>, note: &str, now: Timestamp) -> Result<Vec<Dropped>, Error> {
        self.write(&(ids, note, now), |client, (ids, note, now)| Box::pin(outbox::end(client, ids, note, *now))).await
    }

    async fn sources(&self, filter: SourceFilter) -> Result<Page<SourceView, SourceKey>, Error> {
        self.read(&filter, |client, filter| Box::pin(view::sources(client, filter))).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Page<JobView, JobKey>, Error> {
        self.read(&filter, |client, filter| Box::pin(view::jobs(client, filter))).await
    }

    async fn transitions(&self, filter: TransitionFilter) -> Result<Page<TransitionView, NumberKey>, Error> {
        self.read(&filter, |client, filter| Box::pin(view::transitions(client, filter))).await
    }

    async fn transitions_after(
        &self,
        filter: TransitionFilter,
        mark: i64,
    ) -> Result<(Vec<TransitionView>, i64), Error> {
        self.read(&(filter, mark), |client, (filter, mark)| Box::pin(view::transitions_after(client, filter, *mark)))
            .await
    }

    async fn alerts(&self, filter: AlertFilter) -> Result<Page<AlertView, AlertKey>, Error> {
        self.read(&filter, |client, filter| Box::pin(view::alerts(client, filter))).await
    }

    async fn alert(&self, id: &AlertId) -> Result<Option<AlertView>, Error> {
        self.read(id, |client, id| Box::pin(view::alert_of(client, id))).await
    }

    async fn gauges(&self, counted: Vec<SourceName>) -> Result<Gauges, Error> {
        self.read(&counted, |client, counted| Box::pin(gauge::gauges(client, counted))).await
    }

    async fn deliveries(&self, filter: Filter) -> Result<Page<Delivery, NumberKey>, Error> {
        self.read(&filter, |client, filter| Box::pin(view::deliveries(client, filter))).await
    }

    async fn deliveries_after(&self, filter: Filter, mark: i64) -> Result<(Vec<Delivery>, i64), Error> {
        self.read(&(filter, mark), |client, (filter, mark)| Box::pin(view::deliveries_after(client, filter, *mark)))
            .await
    }

    async fn delivery(&self, id: &DeliveryId) -> Result<Option<Delivery>, Error> {
        self.read(id, |client, id| Box::pin(view::delivery_of(client, id))).await
    }

    async fn marks(&self) -> Result<(i64, i64), Error> {
        self.read(&(), |client, ()| Box::pin(view::marks(client))).await
    }

    async fn outbox(&self) -> Result<Vec<OutboxView>, Error> {
        self.read(&(), |client, ()| Box::pin(view::outbox(client))).await
    }

    async fn dossier(&self, id: &DeliveryId) -> Result<Option<Dossier>, Error> {
        self.read(id, |client, id| Box::pin(view::dossier(client, id))).await
    }

    async fn pacing(&self, receivers: Vec<PaceOf>, now: Timestamp) -> Result<Pacing, Error> {
        self.read(&(receivers, now), |client, (receivers, now)| Box::pin(pace::pacing(client, receivers, *now))).await
    }

    async fn held(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(i64, Held)>, Error> {
        self.read(&(receiver, now, limit, bytes_max), |client, (receiver, now, limit, bytes_max)| {
            Box::pin(pace::held(client, receiver, *now, *limit, *bytes_max))
        })
        .await
    }

    async fn holding(&self, now: Timestamp) -> Result<Vec<(ReceiverName, Timestamp)>, Error> {
        self.read(&now, |client, now| Box::pin(pace::holding(client, *now))).await
    }

    async fn gathered(&self, gathered: Vec<Gathered>, turns: Turns, now: Timestamp) -> Result<(), Error> {
        self.write(&(gathered, turns, now), |client, (gathered, turns, now)| {
            Box::pin(pace::gathered(client, gathered, turns, *now))
        })
        .await
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, Error> {
        self.read(&now, |client, now| Box::pin(finding::silences(client, *now))).await
    }

    async fn silence(&self, silence: Silence) -> Result<(), Error> {
        self.write(&silence, |client, silence| Box::pin(finding::write_silence(client, silence))).await
    }

    async fn findings(&self, limit: usize) -> Result<Vec<Finding>, Error> {
        self.read(&limit, |client, limit| Box::pin(finding::standing(client, *limit))).await
    }

    async fn find(&self, what: &str, limit: usize) -> Result<Vec<(SourceName, JobId)>, Error> {
        self.read(&(what, limit), |client, (what, limit)| Box::pin(past::find(client, what, *limit))).await
    }

    async fn past(&self, source: &SourceName, job: &JobId) -> Result<Past, Error> {
        self.read(&(source, job), |client, (source, job)| Box::pin(past::past(client, source, job))).await
    }

    async fn history(&self, span: Span) -> Result<Vec<std::sync::Arc<Transition>>, Error> {
        self.read(&span, |client, span| Box::pin(past::history(client, span))).await
    }

    async fn fates(&self, span: Span) -> Result<Vec<(Fate, Timestamp, Option<String>)>, Error> {
        self.read(&span, |client, span| Box::pin(past::fates(client, span))).await
    }

    async fn ask(&self, what: &str, now: Timestamp) -> Result<i64, Error> {
        self.write(&(what, now), |client, (what, now)| Box::pin(request::ask(client, what, *now))).await
    }

    async fn requests(&self, now: Timestamp) -> Result<Vec<Request>, Error> {
        self.read(&(&self.replica, now), |client, (replica, now)| Box::pin(request::open(client, replica, *now))).await
    }

    async fn answer(&self, n: i64, answer: Answer, now: Timestamp) -> Result<(), Error> {
        self.write(&(&self.replica, n, answer, now), |client, (replica, n, answer, now)| {
            Box::pin(request::answer(client, replica, *n, answer, *now))
        })
        .await
    }

    async fn answered(&self, n: i64) -> Result<Option<Answer>, Error> {
        self.read(&n, |client, n| Box::pin(request::answered(client, *n))).await
    }

    async fn glance(&self, look: Look) -> Result<Glance, Error> {
        self.read(&look, |client, look| Box::pin(glance::glance(client, *look))).await
    }

    async fn standing(&self, follow_up: FollowUp, since: Timestamp) -> Result<Option<Standing>, Error> {
        self.read(&(follow_up, since), |client, (follow_up, since)| {
            Box::pin(follow_up::standing(client, follow_up, *since))
        })
        .await
    }

    async fn begin(&self, claimed: Claimed, bounds: Bounds) -> Result<Begun, Error> {
        self.write(&(claimed, bounds), |client, (claimed, bounds)| Box::pin(follow_up::begin(client, claimed, bounds)))
            .await
    }

    async fn consent(&self, id: &DeliveryId, consent: Consent, now: Timestamp) -> Result<bool, Error> {
        self.write(&(id, consent, now), |client, (id, consent, now)| {
            Box::pin(follow_up::consent(client, id, consent, *now))
        })
        .await
    }

    async fn follow_ups(&self, limit: usize) -> Result<Vec<Listed>, Error> {
        self.read(&limit, |client, limit| Box::pin(follow_up::list(client, *limit))).await
    }

    async fn prune(&self, step: Prune) -> Result<Pruned, Error> {
        self.write(&step, |client, step| Box::pin(prune::prune(client, step))).await
    }

    async fn room(&self) -> Result<Room, Error> {
        self.read(&(), |client, ()| Box::pin(prune::room(client))).await
    }

    async fn reclaim(&self, _bytes: u64) -> Result<(), Error> {
        // The database's own autovacuum does that.
        Ok(())
    }

    async fn pruning(&self) -> Result<Option<Pruning>, Error> {
        self.read(&(), |client, ()| Box::pin(prune::pruning(client))).await
    }

    async fn pruned(&self, pruning: Pruning) -> Result<(), Error> {
        self.write(&pruning, |client, pruning| Box::pin(prune::note(client, pruning))).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn time(&self) -> Result<Option<Timestamp>, Error> {
        self.read(&(), |client, ()| Box::pin(async move { Ok(Some(lease::now(client).await?)) })).await
    }

    async fn attend(&self, attendance: Attendance) -> Result<Attended, Error> {
        self.write(&(&self.replica, attendance), |client, (replica, attendance)| {
            Box::pin(lease::attend(client, replica, attendance))
        })
        .await
    }

    async fn hand_back(&self, leases: Vec<(SourceName, Fence)>) -> Result<(), Error> {
        self.write(&leases, |client, leases| Box::pin(lease::hand_back(client, leases))).await
    }

    async fn leave(&self) -> Result<(), Error> {
        self.write(&self.replica, |client, replica| Box::pin(lease::leave(client, replica))).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaView>, Error> {
        self.read(&(), |client, ()| Box::pin(lease::replicas(client))).await
    }

    async fn listen(&self, tell: &(dyn Fn(News) + Send + Sync)) -> Error {
        news::listen(self, tell).await.map_or_else(|fault| self.sorted(fault), |()| self.silent())
    }

    async fn health(&self, receiver: &ReceiverName) -> Result<Option<Health>, Error> {
        self.read(receiver, |client, receiver| Box::pin(async move { Ok(Some(turn::health(client, receiver).await?)) }))
            .await
    }

    async fn set_health(&self, receiver: &ReceiverName, seen: i64, state: Option<String>) -> Result<Health, Error> {
        self.write(&(receiver, seen, state), |client, (receiver, seen, state)| {
            Box::pin(turn::set_health(client, receiver, *seen, state.as_deref()))
        })
        .await
    }

    async fn claim_together(
        &self,
        receiver: &ReceiverName,
        now: Timestamp,
        until: Timestamp,
        width: usize,
        seen: i64,
    ) -> Result<Vec<Claimed>, Error> {
        let asked = outbox::Asked { replica: &self.replica, receiver, now, until, limit: width, seen: Some(seen) };
        self.write(&asked, |client, asked| Box::pin(outbox::claim(client, asked))).await
    }
}

fn sight(row: &Row) -> Result<Sight, Fault> {
    Ok(Sight {
        blind_since: time(row, "blind_since")?,
        told_since: time(row, "told_since")?,
        vanished: number(row, "vanished")?,
    })
}

fn known(row: &Row) -> Result<(JobId, Known), Fault> {
    let id = JobId::from(string(row, "id")?);
    let job = Job {
        id: id.clone(),
        instance_id: text(row, "instance_id")?,
        resource_id: text(row, "resource_id")?,
        resource_name: text(row, "resource_name")?,
        kind: text(row, "type")?,
        status: Status::read(&string(row, "status")?),
        reason: text(row, "reason")?,
        created_at: text(row, "created_at")?,
        updated_at: text(row, "updated_at")?,
    };
    let known = Known {
        job,
        seq: number(row, "seq")?,
        status_since: instant(row, "status_since")?,
        seen_at: instant(row, "seen_at")?,
        missing: number(row, "missing")?,
        stale: number(row, "stale")?,
        gone: flag(row, "gone")?,
    };
    Ok((id, known))
}

/// One job, if it is known.
async fn job(client: &Client, source: &str, id: &str) -> Result<Option<Known>, Fault> {
    let row = client
        .query_typed_opt("SELECT * FROM jobwatch.job WHERE source = $1 AND id = $2", values![Txt(source), Txt(id)])
        .await?;
    row.map(|row| Ok(known(&row)?.1)).transpose()
}

fn delivery(row: &Row) -> Result<Delivery, Fault> {
    Ok(Delivery {
        id: DeliveryId::from(string(row, "id")?),
        receiver: ReceiverName::from(string(row, "receiver")?),
        source: string(row, "source")?,
        subject: string(row, "subject")?,
        event: string(row, "event")?,
        title: string(row, "title")?,
        state: string(row, "state")?.parse().unwrap_or(DeliveryState::Pending),
        created_at: instant(row, "created_at")?,
        due_at: instant(row, "due_at")?,
        parked: flag(row, "parked")?,
        attempts: number(row, "attempts")?,
        note: string(row, "note")?,
        ended_at: time(row, "ended_at")?,
    })
}

fn attempt(row: &Row) -> Result<AttemptRow, Fault> {
    Ok(AttemptRow {
        number: number(row, "number")?,
        at: instant(row, "at")?,
        took: Duration::from_micros(number(row, "took")?),
        outcome: string(row, "outcome")?,
        detail: string(row, "detail")?,
    })
}
