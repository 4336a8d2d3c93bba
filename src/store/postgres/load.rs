//! Loading what a poll is decided with: the jobs that are wanted, and what was found about them.

use std::collections::HashSet;

use tokio_postgres::Client;

use super::value::{Txt, string, text, time, values};
use super::{Fault, finding, known, past, prune, sight};
use crate::model::alert::Alert;
use crate::model::index::Index;
use crate::model::listing::{self, FaultKind};
use crate::model::memory::{Memory, Sight};
use crate::model::name::{JobId, SourceName};
use crate::model::snapshot::Snapshot;
use crate::store::{Span, Wanted};

/// Steps that are loaded to count bursts; of more, the newest: a burst is large enough long before that.
const RECENT_MAX: usize = 50_000;

pub(super) async fn load(client: &Client, source: &SourceName, wanted: &Wanted) -> Result<Memory, Fault> {
    let name = Txt(source.as_str());
    let others = async {
        match wanted.others {
            None => Ok(Vec::new()),
            Some(_) => {
                let every = "SELECT id FROM jobwatch.job WHERE source = $1 AND NOT gone";
                Ok(client.query_typed(every, values![name]).await?)
            }
        }
    };
    let head = async {
        let head = "SELECT complete_at, blind_since, told_since, vanished FROM jobwatch.source WHERE name = $1";
        Ok(client.query_typed_opt(head, values![name]).await?)
    };
    let (head, others, silences, muted) =
        tokio::try_join!(head, others, finding::silences(client, wanted.now), finding::muted(client, source))?;
    let (complete_at, sight) = match head {
        Some(row) => (time(&row, "complete_at")?, sight(&row)?),
        None => Default::default(),
    };
    let snapshot = Snapshot { complete_at, ..Snapshot::default() };
    let mut memory = Memory { snapshot, sight, silences, muted, ..Memory::default() };
    let mut ids: HashSet<JobId> = wanted.ids.iter().cloned().collect();
    if let Some(choice) = &wanted.others {
        for row in &others {
            ids.extend(Some(string(row, "id")?).filter(|id| choice(id)).map(JobId::from));
        }
    }
    jobs(client, source, &ids, wanted, &mut memory).await?;
    if let Some(since) = wanted.recent {
        let span = Span { source: Some(source.clone()), since, limit: RECENT_MAX };
        memory.recent = past::history(client, &span).await?;
    }
    let subjects: HashSet<JobId> = ids.into_iter().chain(memory.timed.keys().cloned()).collect();
    let found = findings(client, source, wanted, &subjects, &memory).await?;
    memory.alerts.extend(found.into_iter().map(|alert| (alert.id.clone(), alert)));
    Ok(memory)
}

/// Those that are wanted, the numbers of those that are not known any more, those whose time in their status matters, and
/// those that something was muted about.
async fn jobs(
    client: &Client,
    source: &SourceName,
    ids: &HashSet<JobId>,
    wanted: &Wanted,
    memory: &mut Memory,
) -> Result<(), Fault> {
    let name = Txt(source.as_str());
    let all: Vec<Txt<'_>> = ids.iter().map(|id| Txt(id.as_str())).collect();
    let muted: Vec<Txt<'_>> = memory.muted.iter().map(|muted| Txt(muted.transition.job.id.as_str())).collect();
    let statuses: Vec<Txt<'_>> = wanted.statuses.iter().map(|status| Txt(status.as_str())).collect();
    let by_id = async |ids: &Vec<Txt<'_>>| -> Result<_, Fault> {
        match ids.is_empty() {
            true => Ok(Vec::new()),
            false => {
                let some = "SELECT * FROM jobwatch.job WHERE source = $1 AND id = ANY($2)";
                Ok(client.query_typed(some, values![name, *ids]).await?)
            }
        }
    };
    let timed = async {
        match statuses.is_empty() {
            true => Ok(Vec::new()),
            false => {
                let some = "SELECT * FROM jobwatch.job WHERE source = $1 AND status = ANY($2) AND NOT gone";
                Ok(client.query_typed(some, values![name, statuses]).await?)
            }
        }
    };
    let (listed, timed, muted) = tokio::try_join!(by_id(&all), timed, by_id(&muted))?;
    for row in &listed {
        memory.snapshot.jobs.extend(Some(known(row)?));
    }
    for row in timed.iter().chain(&muted) {
        memory.timed.extend(Some(known(row)?));
    }
    let Snapshot { jobs, numbers, .. } = &mut memory.snapshot;
    let forgotten: Vec<&str> = ids.iter().filter(|id| !jobs.contains_key(*id)).map(JobId::as_str).collect();
    if !forgotten.is_empty() {
        let found = prune::numbered(client, source.as_str(), &forgotten).await?;
        numbers.extend(found.into_iter().map(|(id, number)| (JobId::from(id), number)));
    }
    Ok(())
}

async fn findings(
    client: &Client,
    source: &SourceName,
    wanted: &Wanted,
    subjects: &HashSet<JobId>,
    memory: &Memory,
) -> Result<Vec<Alert>, Fault> {
    let mut named = wanted.findings.clone();
    if let Some(naming) = &wanted.named {
        named.extend(memory.snapshot.jobs.values().flat_map(|known| naming(&known.job)));
    }
    named.extend(memory.muted.iter().map(|muted| muted.alert.clone()));
    let named: Vec<Txt<'_>> = named.iter().map(|id| Txt(id.as_str())).collect();
    let resources: Vec<Txt<'_>> = wanted.resources.iter().map(|resource| Txt(resource)).collect();
    let subjects: Vec<Txt<'_>> = subjects.iter().map(|id| Txt(id.as_str())).collect();
    if named.is_empty() && resources.is_empty() && subjects.is_empty() {
        return Ok(Vec::new());
    }
    let condition =
        "id = ANY($2) OR source = $1 AND resource = ANY($3) AND NOT resolved OR source = $1 AND subject = ANY($4)";
    finding::alerts(client, condition, values![Txt(source.as_str()), named, resources, subjects]).await
}

/// What is known of every job that is there, and whether there was a baseline.
pub(super) async fn index(client: &Client, source: &SourceName) -> Result<(Index, bool), Fault> {
    let name = Txt(source.as_str());
    let jobs = async {
        Ok(client.query_typed("SELECT * FROM jobwatch.job WHERE source = $1 AND NOT gone", values![name]).await?)
    };
    let baseline = async {
        let seen = "SELECT 1 FROM jobwatch.source WHERE name = $1 AND complete_at IS NOT NULL";
        Ok::<_, Fault>(client.query_typed_opt(seen, values![name]).await?.is_some())
    };
    let (jobs, baseline) = tokio::try_join!(jobs, baseline)?;
    let mut index = Index::default();
    for row in &jobs {
        index.put(&known(row)?.1);
    }
    Ok((index, baseline))
}

pub(super) async fn sights(client: &Client) -> Result<Vec<(SourceName, Sight)>, Fault> {
    let select = "SELECT name, blind_since, told_since, vanished FROM jobwatch.source ORDER BY name COLLATE \"C\"";
    let rows = client.query_typed(select, &[]).await?;
    rows.iter().map(|row| Ok((SourceName::from(string(row, "name")?), sight(row)?))).collect()
}

/// Sources that are not seen, or of which that was told.
pub(super) async fn amiss(client: &Client) -> Result<Vec<(SourceName, Sight, Option<listing::Fault>)>, Fault> {
    let rows = client
        .query_typed(
            "SELECT name, blind_since, told_since, vanished, fault_kind, fault FROM jobwatch.source
             WHERE blind_since IS NOT NULL OR told_since IS NOT NULL ORDER BY name",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let kind = text(row, "fault_kind")?.and_then(|kind| FaultKind::read(&kind));
            let text = text(row, "fault")?.map(String::from).unwrap_or_default();
            let fault = kind.map(|kind| listing::Fault { kind, text, retry_after: None });
            Ok((SourceName::from(string(row, "name")?), sight(row)?, fault))
        })
        .collect()
}
