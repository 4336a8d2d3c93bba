//! `jobwatch transitions`: every step that listings showed, and, with `--follow`, those to come.

use std::collections::HashSet;

use super::grid::{Cell, cell};
use super::list::{self, Follow, Shape};
use super::{Exit, Global, Since, show, since};
use crate::clock::Clock;
use crate::model::name::SourceName;
use crate::model::transition::State;
use crate::store::view::{PAGE_MAX, TransitionFilter, TransitionView};

#[derive(Debug, clap::Args)]
pub(super) struct Transitions {
    /// Only this source's.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only this job's.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only those from this status; `unseen` is what had not been listed before.
    #[arg(long, value_name = "STATUS", value_parser = list::state)]
    from: Option<State>,
    /// Only those to this status; `gone` is what was deleted.
    #[arg(long, value_name = "STATUS", visible_alias = "status", value_parser = list::state)]
    to: Option<State>,
    /// Only those seen within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    follow: Follow,
}

const HEAD: [&str; 8] = ["SEEN", "SOURCE", "[NAME]", "(TYPE)", "FROM", "TO", "(JOB)", "[REASON]"];

impl Transitions {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let (shape, follow) = (self.shape, self.follow.follow);
        let filter = TransitionFilter {
            source: self.source.map(SourceName::from),
            job: self.job,
            from: self.from,
            to: self.to,
            since: self.since.map(|since| since.before(Clock::system().now())),
            ..TransitionFilter::default()
        };
        // Before the first page: what is committed in between is in both, and nothing in neither.
        let (mut mark, _) = store.marks().await?;
        let fetch = async |before, limit| store.transitions(TransitionFilter { before, limit, ..filter.clone() }).await;
        let rows = list::pages(shape.limit(follow), fetch).await?;
        if !follow {
            let states: Vec<State> = filter.from.iter().chain(&filter.to).cloned().collect();
            let none = list::none("transitions", &config, filter.source.as_ref(), &states);
            return shape.print(&rows, &none, &HEAD, |row, _| cells(row));
        }
        let mut shown: HashSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        let news = async || {
            let filter = TransitionFilter { limit: PAGE_MAX, ..filter.clone() };
            let (mut rows, reached) = store.transitions_after(filter, mark).await?;
            rows.retain(|row| !shown.remove(&row.id));
            mark = reached;
            Ok(rows)
        };
        shape.follow(rows, news, line).await
    }
}

fn word(state: &State) -> Cell {
    Cell::coloured(state, show::colour(state))
}

fn cells(row: &TransitionView) -> Vec<Cell> {
    let TransitionView { source, job, from, to, seen_at, .. } = row;
    vec![
        cell(list::instant(*seen_at)),
        cell(source),
        cell(job.called()),
        cell(job.kind.as_deref().unwrap_or_default()),
        word(from),
        word(to),
        cell(&job.id),
        cell(job.reason.as_deref().unwrap_or_default()),
    ]
}

fn line(row: &TransitionView) -> String {
    let TransitionView { source, job, from, to, seen_at, late, .. } = row;
    let (at, arrow, late) = (list::instant(*seen_at), show::between(from, to), if *late { " (late)" } else { "" });
    let reason = job.reason.as_deref().map(|reason| format!(": {}", show::tame(reason))).unwrap_or_default();
    format!("{at} {source} {} {} {arrow}{late}{reason}", job.called(), job.kind_called())
}
