//! `jobwatch rules backtest`: what the rules on disk would have said about recorded history, beside what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Exit, Format, Global, Since, completions, say_report, show, since};
use crate::clock::Clock;
use crate::config;
use crate::model::alert::{Fate, FateOutcome};
use crate::model::name::{ReceiverName, SourceName, TransitionId};
use crate::model::notification::{Event, SourceFacts, Topic};
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use crate::plan::{Replayed, replay};
use crate::store::Span;

/// What happened before is replayed as well, so that cooldowns and memories are as they were; so far back.
const BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Steps that are replayed; of more, the newest.
const STEPS_MAX: usize = 200_000;
/// Messages of each kind that are printed without `--all`.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Backtest {
    /// From when on, such as `14d` or an instant.
    #[arg(long, value_name = "TIME", value_parser = since, default_value = "14d")]
    since: Since,
    /// Only this source.
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// Print every message that differs.
    #[arg(long)]
    all: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What one receiver is told about one step.
type Key = (TransitionId, ReceiverName, bool);

/// A message on one side of the comparison.
struct Message {
    at: Timestamp,
    title: String,
    body: String,
    rules: BTreeSet<String>,
}

impl Backtest {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let (rules, report) = config::rules(&config.rules, Some(&config.known));
        say_report(&report)?;
        if report.has_errors() {
            return Ok(Exit::No);
        }
        let now = Clock::system().now();
        let since = self.since.before(now);
        let source = self.source.clone().map(SourceName::from);
        let span = |since| Span { source: source.clone(), since, limit: STEPS_MAX };
        let steps = store.history(span(since.minus(BEFORE))).await?;
        let fates = store.fates(span(since)).await?;
        let mut by_source: BTreeMap<&SourceName, Vec<Arc<Transition>>> = BTreeMap::new();
        for step in &steps {
            by_source.entry(&step.source).or_default().push(Arc::clone(step));
        }
        let facts = |name: &SourceName| {
            let known = config.sources.iter().map(|setup| setup.source.facts()).find(|facts| facts.name == *name);
            known.cloned().unwrap_or_else(|| {
                let (name, kind) = (name.clone(), "swr".to_owned());
                Arc::new(SourceFacts { name, kind, region: None, project_id: String::new() })
            })
        };
        let replayed: Vec<Replayed> =
            by_source.iter().flat_map(|(name, steps)| replay(&facts(name), &rules, steps, now)).collect();
        let would = said_now(&replayed, since);
        let was = said_then(&fates);
        let counted = steps.iter().filter(|step| step.seen_at >= since).count();
        self.print(since, counted, by_source.len(), &would, &was)
    }

    fn print(
        &self,
        since: Timestamp,
        steps: usize,
        sources: usize,
        would: &BTreeMap<Key, Message>,
        was: &BTreeMap<Key, Message>,
    ) -> anyhow::Result<Exit> {
        let more = ordered(would.iter().filter(|(key, _)| !was.contains_key(*key)));
        let less = ordered(was.iter().filter(|(key, _)| !would.contains_key(*key)));
        let mut out = anstream::stdout();
        if self.format == Format::Json {
            let all = |list: &[(&Key, &Message)]| list.iter().map(|(key, message)| one_json(key, message)).collect();
            let (more, less): (Vec<Value>, Vec<Value>) = (all(&more), all(&less));
            let value = json!({
                "since": since, "steps": steps, "sources": sources, "said": was.len(), "would_say": would.len(),
                "more": more, "less": less,
            });
            writeln!(out, "{value:#}")?;
            return Ok(Exit::Done);
        }
        let (bold, plain) = (show::BOLD, show::PLAIN);
        writeln!(out, "{steps} steps of {sources} sources since {since}")?;
        writeln!(
            out,
            "{bold}said: {} · the rules on disk would say: {} · {}+{}{plain}{bold} {}−{}{plain}",
            was.len(),
            would.len(),
            show::GREEN,
            more.len(),
            show::RED,
            less.len(),
        )?;
        for (sign, colour, list) in [("+", show::GREEN, &more), ("−", show::RED, &less)] {
            let shown = if self.all { list.len() } else { SHOWN };
            for ((_, receiver, _), message) in list.iter().take(shown) {
                let rules = message.rules.iter().cloned().collect::<Vec<_>>().join(", ");
                let title = show::tame(&message.title);
                writeln!(out, "\n{colour}{sign}{plain} {} to {receiver} [{rules}] {bold}{title}{plain}", message.at)?;
                for line in message.body.lines() {
                    writeln!(out, "    {}", show::tame(line))?;
                }
            }
            if list.len() > shown {
                writeln!(out, "\n{colour}{sign}{plain} {} more; --all prints them", list.len() - shown)?;
            }
        }
        writeln!(
            out,
            "\n{}Silences, and words that changed without a step, are not replayed; digests count as what is in them.{plain}",
            show::DIM
        )?;
        Ok(Exit::Done)
    }
}

fn ordered<'m>(list: impl Iterator<Item = (&'m Key, &'m Message)>) -> Vec<(&'m Key, &'m Message)> {
    let mut list: Vec<_> = list.collect();
    list.sort_by_key(|(_, message)| message.at);
    list
}

fn said_now(replayed: &[Replayed], since: Timestamp) -> BTreeMap<Key, Message> {
    let mut said = BTreeMap::new();
    for Replayed { at, owed } in replayed.iter().filter(|replayed| replayed.at >= since) {
        let Topic::Job(topic) = &owed.notification.topic else { continue };
        let resolved = owed.notification.event == Event::AlertResolved;
        let rules = owed.notification.rules().into_iter().map(ToString::to_string).collect();
        let (title, body) = (owed.notification.title.clone(), owed.notification.body.clone());
        let key = (topic.transition.id.clone(), owed.receiver.clone(), resolved);
        said.insert(key, Message { at: *at, title, body, rules });
    }
    said
}

fn said_then(fates: &[(Fate, Timestamp, Option<String>)]) -> BTreeMap<Key, Message> {
    let mut said: BTreeMap<Key, Message> = BTreeMap::new();
    for (fate, at, title) in fates {
        let resolved = match fate.outcome {
            FateOutcome::Told => false,
            FateOutcome::Resolved => true,
            FateOutcome::HeldBack | FateOutcome::Muted | FateOutcome::Counted | FateOutcome::Known => continue,
        };
        let Some(receiver) = fate.receiver.clone() else { continue };
        let title = title.clone().unwrap_or_else(|| fate.subject.to_string());
        let key = (fate.transition.clone(), receiver, resolved);
        let (body, rules) = (String::new(), BTreeSet::new());
        said.entry(key).or_insert(Message { at: *at, title, body, rules }).rules.insert(fate.rule.to_string());
    }
    said
}

fn one_json((transition, receiver, resolved): &Key, message: &Message) -> Value {
    let Message { at, title, body, rules } = message;
    json!({
        "transition": transition, "receiver": receiver, "resolved": resolved, "at": at, "rules": rules, "title": title,
        "body": body,
    })
}
