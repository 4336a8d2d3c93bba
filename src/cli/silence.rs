//! `jobwatch silence`: orders that some findings are not told for a while.

use std::io::Write as _;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use serde_json::{Value, json};

use super::run::now;
use super::{Exit, Format, Global, completions, show};
use crate::config;
use crate::document::{self, suggest};
use crate::model::alert::Silence;
use crate::model::name::derive;
use crate::model::time::{Timestamp, span};
use crate::rules::{Facts, Hush, RuleSet, class_of};
use crate::store::{Finding, Store};

/// No silence is longer: what is to be quiet for ever belongs into the rules.
const LENGTH_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Findings that a preview looks at, the newest.
const FINDINGS_MAX: usize = 10_000;
/// Findings that a preview names.
const NAMED_MAX: usize = 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Silences {
    /// Keep quiet about what all matchers hold for. Detection and history go on, ends are still told, and what still stands
    /// when the silence is over is told then, once.
    Add(Add),
    /// Silences that are in force or will be.
    List {
        /// How to print them.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// End silences now.
    Expire {
        /// Their ids.
        #[arg(required = true, value_name = "ID", add = completions::silences())]
        ids: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// `FIELD=VALUE`, `FIELD!=VALUE`, `FIELD=~REGEX` or `FIELD!~REGEX`; fields are those of `match` in rules, `rule` and
    /// `severity`. A pattern is of the whole value.
    #[arg(required = true, value_name = "MATCHER")]
    matchers: Vec<String>,
    /// For how long, at most 30 days.
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Duration,
    /// From this instant on instead of now.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Timestamp>,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    comment: String,
    /// Who orders it.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    author: String,
    /// Only say what it would mute now.
    #[arg(long)]
    dry_run: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn length(text: &str) -> Result<Duration, String> {
    match document::duration(text) {
        Some(length) if length > LENGTH_MAX => Err("a silence lasts 30 days at most".into()),
        Some(length) if !length.is_zero() => Ok(length),
        Some(_) | None => Err("such as 30m, 2h or 14d".into()),
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "such as 2026-11-24T22:00:00Z".into())
}

impl Silences {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        match self {
            Self::Add(add) => {
                let (rules, report) = config::rules(&config.rules, Some(&config.known));
                if report.has_errors() {
                    let what = "the rules on disk have errors: whether such a rule exists is not known";
                    writeln!(anstream::stderr(), "warning: {what}")?;
                }
                add.run(&*store, (!report.has_errors()).then_some(&rules)).await
            }
            Self::List { format } => list(&*store, format).await,
            Self::Expire { ids } => expire(&*store, ids).await,
        }
    }
}

impl Add {
    /// Without rules, whether there is such a rule is not asked.
    async fn run(self, store: &dyn Store, rules: Option<&RuleSet>) -> anyhow::Result<Exit> {
        let now = now(store).await?;
        let starts_at = self.from.unwrap_or(now);
        let ends_at = starts_at.plus(self.length);
        let refuse = |why: String| -> anyhow::Result<Exit> {
            writeln!(anstream::stderr(), "error: {why}")?;
            Ok(Exit::No)
        };
        if ends_at <= now {
            return refuse(format!("it would be over since {ends_at}"));
        }
        if starts_at.since(now) > LENGTH_MAX {
            return refuse("it would begin more than 30 days from now".into());
        }
        if let Some(why) = rules.and_then(|rules| unknown_rule(&self.matchers, rules)) {
            return refuse(why);
        }
        let mut parts: Vec<String> = vec![now.micros().to_string(), self.author.clone()];
        parts.extend(self.matchers.iter().cloned());
        let mut id = derive("sil", &parts.iter().map(String::as_str).collect::<Vec<_>>());
        // Short, because people type it.
        id.truncate(12);
        let silence =
            Silence { id, matchers: self.matchers, starts_at, ends_at, author: self.author, comment: self.comment };
        let hush = match Hush::new(silence.clone()) {
            Ok(hush) => hush,
            Err(why) => return refuse(why),
        };
        let findings = store.findings(FINDINGS_MAX).await?;
        let mutes: Vec<&Finding> = findings.iter().filter(|finding| mutes(&hush, finding, starts_at)).collect();
        if !self.dry_run {
            store.silence(silence.clone()).await?;
        }
        let mut out = anstream::stdout();
        if self.format == Format::Json {
            let mut value = json!(silence);
            value["mutes_now"] = mutes.iter().map(|finding| finding_json(finding)).collect();
            value["written"] = json!(!self.dry_run);
            writeln!(out, "{value:#}")?;
            return Ok(Exit::Done);
        }
        let verb = if self.dry_run { "would be" } else { "is" };
        writeln!(out, "silence {} {verb} in force from {starts_at} until {ends_at}", silence.id)?;
        writeln!(out, "of what stands now it covers {} of {} findings", mutes.len(), findings.len())?;
        for finding in mutes.iter().take(NAMED_MAX) {
            let title = finding.known.as_ref().map_or(finding.alert.subject.as_str(), |known| known.job.title());
            let reason = finding.known.as_ref().and_then(|known| known.job.reason.as_deref()).unwrap_or("");
            writeln!(out, "  {} {}  {}", finding.alert.rule, show::tame(title), show::tame(reason))?;
        }
        if mutes.len() > NAMED_MAX {
            writeln!(out, "  and {} more", mutes.len() - NAMED_MAX)?;
        }
        Ok(Exit::Done)
    }
}

/// A matcher that names a rule which does not exist mutes nothing: most are spelling mistakes.
fn unknown_rule(matchers: &[String], rules: &RuleSet) -> Option<String> {
    let known: Vec<&str> = rules.rules.iter().map(|rule| rule.id().as_str()).collect();
    let name = |text: &String| {
        let (field, value) = text.split_once('=')?;
        (field.trim() == "rule" && !value.starts_with('~')).then(|| value.trim().to_owned())
    };
    let unknown = matchers.iter().filter_map(name).find(|name| !known.contains(&name.as_str()))?;
    Some(format!("there is no rule `{unknown}`: {}", suggest(&unknown, &known)))
}

/// Whether a silence that is in force would keep quiet about a finding.
fn mutes(hush: &Hush, finding: &Finding, now: Timestamp) -> bool {
    let Finding { alert, known: Some(known) } = finding else { return false };
    let class = class_of(&known.job);
    let facts = Facts { job: &known.job, reason_class: &class, source: &alert.source, now };
    hush.covers(&alert.rule, alert.severity, &facts)
}

fn finding_json(finding: &Finding) -> Value {
    let Finding { alert, known } = finding;
    json!({
        "alert": alert.id, "rule": alert.rule, "source": alert.source, "severity": alert.severity, "count": alert.count,
        "first_seen": alert.first_seen, "last_seen": alert.last_seen,
        "job": known.as_ref().map(|known| &known.job),
    })
}

async fn list(store: &dyn Store, format: Format) -> anyhow::Result<Exit> {
    let now = now(store).await?;
    let silences = store.silences(now).await?;
    let mut out = anstream::stdout();
    if format == Format::Json {
        writeln!(out, "{:#}", json!(silences))?;
        return Ok(Exit::Done);
    }
    if silences.is_empty() {
        writeln!(out, "no silences")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["ID", "STATE", "ENDS", "MATCHERS", "AUTHOR", "COMMENT"]);
    for silence in &silences {
        let state = match silence.starts_at > now {
            true => format!("in {}", span(silence.starts_at.since(now))),
            false => "in force".to_owned(),
        };
        table.add_row([
            Cell::new(&silence.id),
            Cell::new(state),
            Cell::new(format!("in {}", span(silence.ends_at.since(now)))),
            Cell::new(show::tame(&silence.matchers.join(" "))),
            Cell::new(show::tame(&silence.author)),
            Cell::new(show::tame(&silence.comment)),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(Exit::Done)
}

async fn expire(store: &dyn Store, ids: Vec<String>) -> anyhow::Result<Exit> {
    let now = now(store).await?;
    let silences = store.silences(now).await?;
    let mut exit = Exit::Done;
    for id in ids {
        match silences.iter().find(|silence| silence.id == id) {
            Some(silence) => {
                let starts_at = silence.starts_at.min(now);
                store.silence(Silence { ends_at: now, starts_at, ..silence.clone() }).await?;
                writeln!(anstream::stdout(), "silence {id} is over: what still stands is told with the next poll")?;
            }
            None => {
                writeln!(anstream::stderr(), "error: there is no silence {id} that is not over")?;
                exit = Exit::No;
            }
        }
    }
    Ok(exit)
}
