//! `jobwatch alerts`: the findings of rules, who was told of them, and what kept them quiet.

use std::collections::HashMap;
use std::time::Duration;

use super::grid::{Cell, cell};
use super::list::{self, Follow, Shape};
use super::{Exit, Global, Since, show, since};
use crate::clock::Clock;
use crate::model::alert::Severity;
use crate::model::name::{AlertId, RuleId, SourceName};
use crate::model::time::{Timestamp, span};
use crate::store::view::{AlertFilter, AlertView, PAGE_MAX};
use crate::store::{self, Store};

/// A finding is committed at most so long after the time that it bears.
const COMMITTED_WITHIN: Duration = Duration::from_secs(120);
/// Findings whose end is waited for, the newest.
const OPEN_MAX: usize = 500;

#[derive(Debug, clap::Args)]
pub(super) struct Alerts {
    /// Only this source's.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only this rule's.
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Only those that matter so much.
    #[arg(long, value_name = "WORD", value_parser = ["info", "warning", "error", "critical"])]
    severity: Option<String>,
    /// Those that stand, that are over, or both; with --follow, ends are told of what was shown.
    #[arg(long, default_value = "standing", value_parser = ["standing", "over", "all"])]
    state: String,
    /// Only those that last spoke of this job.
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only those that fired within this time, such as `2h` or `14d`, or since this instant.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    follow: Follow,
}

const HEAD: [&str; 9] = ["SEVERITY", "RULE", "SOURCE", "[NAME]", "STATE", "(COUNT)", "(FOR)", "LAST", "[TOLD]"];

impl Alerts {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let (shape, follow, began) = (self.shape, self.follow.follow, Clock::system().now());
        let filter = AlertFilter {
            source: self.source.map(SourceName::from),
            rule: self.rule.map(RuleId::from),
            severity: self.severity.and_then(|word| word.parse().ok()),
            job: self.job,
            standing: match self.state.as_str() {
                "standing" => Some(true),
                "over" => Some(false),
                _ => None,
            },
            since: self.since.map(|since| since.before(began)),
            ..AlertFilter::default()
        };
        let rows = all(&*store, &filter, shape.limit(follow)).await?;
        if !follow {
            let none = list::none("alerts", &config, filter.source.as_ref(), &[]);
            return shape.print(&rows, &none, &HEAD, cells);
        }
        let mut news = News { shown: HashMap::new(), since: began.minus(COMMITTED_WITHIN) };
        // What was there before is known, whether it is shown or not.
        let recent = AlertFilter { standing: None, since: Some(news.since), ..filter.clone() };
        let before = all(&*store, &recent, OPEN_MAX).await?;
        for row in before.iter().chain(&rows) {
            news.is_new(row);
        }
        shape.follow(rows, async || news.look(&*store, &filter).await, line).await
    }
}

async fn all(store: &dyn Store, filter: &AlertFilter, limit: usize) -> Result<Vec<AlertView>, store::Error> {
    let fetch = async |before, limit| store.alerts(AlertFilter { before, limit, ..filter.clone() }).await;
    list::pages(limit, fetch).await
}

/// What a line said of a finding: another line is printed when that changes.
type Said = (bool, u32, Timestamp, Vec<String>);

/// What is new about findings: they begin, fire again, are told, and end. None of that has a number in the order of commits, so
/// those that fired lately and those that stand are looked at.
struct News {
    shown: HashMap<AlertId, Said>,
    since: Timestamp,
}

impl News {
    fn is_new(&mut self, row: &AlertView) -> bool {
        let told = row.told.iter().map(|told| format!("{} {}", told.receiver, told.state));
        let muted = row.muted.iter().map(|muted| format!("{} {}", muted.job, muted.by));
        let said = (row.standing, row.count, row.last_seen, told.chain(muted).collect());
        self.shown.insert(row.id.clone(), said.clone()) != Some(said)
    }

    /// The end of what stands is told to whoever asked for what stands.
    async fn look(&mut self, store: &dyn Store, filter: &AlertFilter) -> Result<Vec<AlertView>, store::Error> {
        let since = Some(self.since.max(filter.since.unwrap_or(self.since)));
        let recent = AlertFilter { since, standing: None, ..filter.clone() };
        let mut rows = all(store, &recent, 10 * PAGE_MAX).await?;
        for id in self.open(&rows) {
            rows.extend(store.alert(&id).await?);
        }
        rows.retain(|row| self.is_new(row) && (filter.standing != Some(false) || !row.standing));
        rows.sort_by_key(|row| row.last_seen);
        self.since = Clock::system().now().minus(COMMITTED_WITHIN);
        let since = self.since;
        self.shown.retain(|_, (standing, _, last_seen, _)| *standing || *last_seen >= since);
        Ok(rows)
    }

    /// Those that stood when they were last looked at, and did not fire since.
    fn open(&self, rows: &[AlertView]) -> Vec<AlertId> {
        let mut open: Vec<(&AlertId, Timestamp)> = self
            .shown
            .iter()
            .filter(|(id, (standing, ..))| *standing && !rows.iter().any(|row| row.id == **id))
            .map(|(id, (_, _, last_seen, _))| (id, *last_seen))
            .collect();
        open.sort_by_key(|(_, last_seen)| std::cmp::Reverse(*last_seen));
        open.into_iter().take(OPEN_MAX).map(|(id, _)| id.clone()).collect()
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::Error => show::RED,
        Severity::Warning => show::YELLOW,
        Severity::Info => "",
    }
}

fn called(row: &AlertView) -> String {
    row.job.as_ref().map_or_else(|| row.subject.to_string(), crate::model::job::Job::called)
}

fn state(row: &AlertView) -> (&'static str, &'static str) {
    match (row.standing, row.muted.is_empty()) {
        (true, true) => ("standing", ""),
        (true, false) => ("muted", show::DIM),
        (false, _) => ("over", show::GREEN),
    }
}

/// Who was told, and what forbade it.
fn told(row: &AlertView) -> String {
    let told = row.told.iter().map(|told| format!("{}: {}", told.receiver, told.state));
    let mut words: Vec<String> = told.collect();
    if let Some(muted) = row.muted.first() {
        words.push(format!("nobody of {}: {}", count(row.muted.len(), "job"), muted.by));
    }
    words.join(", ")
}

fn count(many: usize, word: &str) -> String {
    if many == 1 { format!("1 {word}") } else { format!("{many} {word}s") }
}

fn cells(row: &AlertView, now: Timestamp) -> Vec<Cell> {
    let (word, colour) = state(row);
    vec![
        Cell::coloured(row.severity, severity(row.severity)),
        cell(&row.rule),
        cell(&row.source),
        cell(called(row)),
        Cell::coloured(word, colour),
        cell(row.count),
        cell(span(now.since(row.first_seen))),
        cell(format!("{} ago", span(now.since(row.last_seen)))),
        cell(told(row)),
    ]
}

fn line(row: &AlertView) -> String {
    let (at, word) = (list::instant(row.last_seen), state(row).0);
    let (colour, plain) = (severity(row.severity), show::PLAIN);
    let (rule, source, name) = (show::tame(row.rule.as_str()), &row.source, show::tame(&called(row)));
    let told = match told(row) {
        told if told.is_empty() => told,
        told => format!(" ({})", show::tame(&told)),
    };
    let reason = row.job.as_ref().and_then(|job| job.reason.as_deref()).filter(|_| row.standing);
    let reason = reason.map(|reason| format!(": {}", show::tame(reason))).unwrap_or_default();
    format!("{at} {colour}{}{plain} {rule} {source} {name} {word}, {}{told}{reason}", row.severity, times(row.count))
}

fn times(count: u32) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}
