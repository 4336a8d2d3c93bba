//! `jobwatch jobs`: every job that is known, as it was last seen.

use super::grid::{Cell, cell};
use super::list::{self, Shape};
use super::{Exit, Global, Since, show, since};
use crate::clock::Clock;
use crate::model::name::SourceName;
use crate::model::time::{Timestamp, span};
use crate::model::transition::State;
use crate::store::view::{JobFilter, JobView};

#[derive(Debug, clap::Args)]
pub(super) struct Jobs {
    /// Only this source's.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only those in this status, or in one of these, with commas between them; `gone` are those that were deleted.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = list::state)]
    status: Vec<State>,
    /// Only those that came into their status within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only the job with this id, and those on a resource with this name or id.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    #[command(flatten)]
    shape: Shape,
}

const HEAD: [&str; 7] = ["SOURCE", "[NAME]", "(TYPE)", "STATUS", "FOR", "(JOB)", "[REASON]"];

impl Jobs {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let source = self.source.map(SourceName::from);
        let none = list::none("jobs", &config, source.as_ref(), &self.status);
        let since = self.since.map(|since| since.before(Clock::system().now()));
        let filter = JobFilter { source, states: self.status, since, job: self.job, ..JobFilter::default() };
        let fetch = async |before, limit| store.jobs(JobFilter { before, limit, ..filter.clone() }).await;
        let rows = list::pages(self.shape.limit(false), fetch).await?;
        self.shape.print(&rows, &none, &HEAD, cells)
    }
}

fn cells(row: &JobView, now: Timestamp) -> Vec<Cell> {
    let JobView { source, job, status_since, gone, .. } = row;
    let state = if *gone { State::Gone } else { State::Is(job.status.clone()) };
    let word = if *gone { format!("gone (was {})", job.status) } else { job.status.to_string() };
    vec![
        cell(source),
        cell(job.called()),
        cell(job.kind.as_deref().unwrap_or_default()),
        Cell::coloured(word, show::colour(&state)),
        cell(span(now.since(*status_since))),
        cell(&job.id),
        cell(job.reason.as_deref().unwrap_or_default()),
    ]
}
