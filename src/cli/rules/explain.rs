//! `jobwatch rules explain`: why somebody was told of a job or not, clause by clause.

use std::io::Write;

use serde_json::{Value, json};

use super::{Exit, Format, Global, completions, say_report, show};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::model::alert::{Fate, FateOutcome};
use crate::model::delivery::DeliveryState;
use crate::model::name::{JobId, SourceName};
use crate::model::time::{Timestamp, span};
use crate::model::transition::Transition;
use crate::plan::stay;
use crate::rules::{Explanation, Facts, Holds, Line, Rule, RuleSet, When, class_of};
use crate::store::{Past, Store, Wanted};

/// Jobs that are explained when several are meant; more are counted.
const JOBS_MAX: usize = 5;
/// Steps of a job that are explained, the newest.
const STEPS_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Explain {
    /// A job's id, a resource's name or id, a step (`evt_…`) or a delivery (`msg_…`).
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only in this source.
    #[arg(long, value_name = "NAME", add = completions::sources())]
    source: Option<String>,
    /// Only this rule.
    #[arg(long, value_name = "ID", add = completions::rules())]
    rule: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// What became of a rule's match for a receiver, with its delivery.
struct Told {
    fate: Fate,
    delivery: Option<String>,
}

/// A rule beside a step, and what came of it then.
struct Verdict<'a> {
    rule: &'a str,
    /// `None` when the rule is no longer on disk.
    explanation: Option<Explanation>,
    told: Vec<Told>,
}

struct Chapter<'a> {
    step: Transition,
    verdicts: Vec<Verdict<'a>>,
}

impl Explain {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let (config, store) = match global.visit().await? {
            Ok(visit) => visit,
            Err(exit) => return Ok(exit),
        };
        let (rules, report) = config::rules(&config.rules, Some(&config.known));
        say_report(&report)?;
        if let Some(wanted) = &self.rule
            && !rules.rules.iter().any(|rule| rule.id().as_str() == wanted)
        {
            let known: Vec<&str> = rules.rules.iter().map(|rule| rule.id().as_str()).collect();
            let help = crate::document::suggest(wanted, &known);
            writeln!(anstream::stderr(), "error: there is no rule `{wanted}` on disk: {help}")?;
            return Ok(Exit::No);
        }
        let mut found = store.find(&self.what, 1_000).await?;
        found.retain(|(source, _)| self.source.as_ref().is_none_or(|wanted| source.as_str() == wanted));
        if found.is_empty() {
            unknown(&self.what, &config, &*store).await?;
            return Ok(Exit::No);
        }
        let mut out = anstream::stdout();
        let mut values = Vec::new();
        for (source, job) in found.iter().take(JOBS_MAX) {
            let past = store.past(source, job).await?;
            let chapters = self.chapters(source, &past, &rules, &*store).await?;
            match self.format {
                Format::Json => values.push(chapters_json(source, job, &past, &chapters)),
                Format::Text => self.print(&mut out, (source, job), &past, &chapters, &rules)?,
            }
        }
        if self.format == Format::Json {
            writeln!(out, "{:#}", Value::Array(values))?;
        } else if found.len() > JOBS_MAX {
            writeln!(out, "and {} more jobs: name one by its id", found.len() - JOBS_MAX)?;
        }
        Ok(Exit::Done)
    }

    async fn chapters<'r>(
        &self,
        source: &SourceName,
        past: &'r Past,
        rules: &'r RuleSet,
        store: &dyn Store,
    ) -> anyhow::Result<Vec<Chapter<'r>>> {
        let mut steps: Vec<Transition> = past.steps.iter().map(|step| (**step).clone()).collect();
        if let Some(known) = past.known.as_ref().filter(|known| !known.gone) {
            // How long it has been there is what rules about stays look at.
            steps.push(stay(source, known, Clock::system().now()));
        }
        steps.drain(..steps.len().saturating_sub(STEPS_MAX));
        let mut chapters = Vec::new();
        for step in steps {
            let verdicts = self.verdicts(source, &step, past, rules, store).await?;
            chapters.push(Chapter { step, verdicts });
        }
        Ok(chapters)
    }

    async fn verdicts<'r>(
        &self,
        source: &SourceName,
        step: &Transition,
        past: &'r Past,
        rules: &'r RuleSet,
        store: &dyn Store,
    ) -> anyhow::Result<Vec<Verdict<'r>>> {
        let class = class_of(&step.job);
        let facts = Facts { job: &step.job, reason_class: &class, source, now: step.seen_at };
        let wanted = |id: &str| self.rule.as_ref().is_none_or(|wanted| wanted == id);
        let mut verdicts: Vec<Verdict<'r>> = Vec::new();
        for rule in rules.rules.iter().filter(|rule| wanted(rule.id().as_str())) {
            // A stay is looked at by the rules about stays, and a step by the others.
            if matches!(rule.when, When::Stays { .. }) == step.is_stay() {
                let explanation = Some(rule.explain(step, &facts));
                verdicts.push(Verdict { rule: rule.id().as_str(), explanation, told: Vec::new() });
            }
        }
        for (fate, _) in past.fates.iter().filter(|(fate, _)| fate.transition == step.id && wanted(fate.rule.as_str()))
        {
            let told = Told { fate: fate.clone(), delivery: delivery(fate, store).await? };
            match verdicts.iter_mut().find(|verdict| verdict.rule == fate.rule.as_str()) {
                Some(verdict) => verdict.told.push(told),
                None => {
                    verdicts.push(Verdict { rule: fate.rule.as_str(), explanation: None, told: vec![told] });
                }
            }
        }
        Ok(verdicts)
    }

    fn print(
        &self,
        out: &mut impl Write,
        (source, id): (&SourceName, &JobId),
        past: &Past,
        chapters: &[Chapter<'_>],
        rules: &RuleSet,
    ) -> std::io::Result<()> {
        let (bold, dim, plain) = (show::BOLD, show::DIM, show::PLAIN);
        let job = past.known.as_ref().map(|known| &known.job);
        let title = job.map_or(id.as_str(), |job| job.title());
        let kind = job.and_then(|job| job.kind.as_deref()).unwrap_or("job");
        writeln!(
            out,
            "{bold}{}{plain} {} {dim}job {} in {source}{plain}",
            show::tame(title),
            show::tame(kind),
            show::tame(id.as_str())
        )?;
        if past.steps.is_empty() {
            writeln!(
                out,
                "  no step of it was seen: it was there with the first listing, which is recorded and not told"
            )?;
        }
        for Chapter { step, verdicts } in chapters {
            if step.is_stay() && verdicts.is_empty() {
                continue;
            }
            heading(out, step)?;
            for verdict in verdicts {
                one(out, verdict, self.rule.is_some())?;
            }
            if verdicts.is_empty() {
                writeln!(out, "  no rule looks at steps")?;
            }
        }
        let others: Vec<&Rule> = rules.rules.iter().filter(|rule| matches!(rule.when, When::Changed { .. })).collect();
        let changes = past.fates.iter().filter(|(fate, _)| others.iter().any(|rule| *rule.id() == fate.rule));
        for (fate, at) in changes {
            writeln!(out, "\n{bold}a change seen at {at}{plain}\n  {}: {}", fate.rule, outcome(fate))?;
        }
        writeln!(out)
    }
}

/// Where the delivery stands that a fate speaks of.
async fn delivery(fate: &Fate, store: &dyn Store) -> anyhow::Result<Option<String>> {
    let Some(id) = &fate.delivery else { return Ok(None) };
    let text = match store.dossier(id).await? {
        None => format!("{id} waits to be told together with others"),
        Some(dossier) => {
            let delivery = dossier.delivery;
            let digest = if delivery.event.ends_with(".digest") { ", a digest" } else { "" };
            match delivery.state {
                DeliveryState::Pending => format!("{id}{digest} is due at {}: {}", delivery.due_at, delivery.note),
                DeliveryState::Delivered => {
                    let at = delivery.ended_at.map(|at| at.to_string()).unwrap_or_default();
                    format!("{id}{digest} was delivered at {at}")
                }
                DeliveryState::Dead => format!("{id}{digest} was given up: {}", delivery.note),
                DeliveryState::Dropped => format!("{id}{digest} was dropped: {}", delivery.note),
            }
        }
    };
    Ok(Some(text))
}

/// Nothing of the kind was ever seen: what is seen, then?
async fn unknown(what: &str, config: &Config, store: &dyn Store) -> anyhow::Result<()> {
    let mut out = anstream::stderr();
    writeln!(out, "no listing has ever shown a job or a resource `{}`", show::tame(what))?;
    let now = Clock::system().now();
    for setup in &config.sources {
        let name = &setup.source.facts().name;
        let memory = store.load(name, Wanted { now, ..Wanted::default() }).await?;
        let seen = match memory.snapshot.complete_at {
            Some(at) => format!("its last complete listing was {} ago", span(now.since(at))),
            None => "no complete listing of it was ever read".to_owned(),
        };
        let blind = memory.sight.blind_since.map(|at| format!("; it cannot be seen since {at}")).unwrap_or_default();
        writeln!(out, "  source {name}: {seen}{blind}")?;
    }
    Ok(())
}

fn heading(out: &mut impl Write, step: &Transition) -> std::io::Result<()> {
    let (bold, plain) = (show::BOLD, show::PLAIN);
    if step.is_stay() {
        let stayed = span(step.seen_at.since(step.seen_before.unwrap_or(step.seen_at)));
        return writeln!(out, "\n{bold}{} for {stayed} now{plain}", step.to);
    }
    let late = if step.late { ", late" } else { "" };
    writeln!(out, "\n{} {}seen at {}{late} · {}{}", show::arrow(step), show::DIM, step.seen_at, step.id, show::PLAIN)?;
    match &step.job.reason {
        Some(reason) => writeln!(out, "  reason: {}", show::tame(reason)),
        None => Ok(()),
    }
}

/// A rule that does not look at the step at all is one line, unless somebody asked about it.
fn one(out: &mut impl Write, verdict: &Verdict<'_>, whole: bool) -> std::io::Result<()> {
    let (green, red, yellow, dim, plain) = (show::GREEN, show::RED, show::YELLOW, show::DIM, show::PLAIN);
    let Verdict { rule, explanation, told } = verdict;
    let Some(Explanation { lines, fires, missing }) = explanation else {
        writeln!(out, "  {yellow}?{plain} {rule} is no longer on disk")?;
        return fates(out, told);
    };
    match lines.first().filter(|line| line.holds != Holds::Yes && !whole && told.is_empty()) {
        Some(when) => return writeln!(out, "  {dim}✗ {rule} looks at: {}{plain}", when.wants),
        None if *fires && waits(told) => writeln!(out, "  {yellow}–{plain} {rule} matches, and does not fire")?,
        None if *fires => writeln!(out, "  {green}✓{plain} {rule} fires")?,
        None => writeln!(out, "  {red}✗{plain} {rule} does not fire")?,
    }
    for Line { part, wants, found, holds } in lines {
        let excepts = *part == "except";
        let (colour, word) = match holds {
            Holds::Yes if excepts => (yellow, "holds"),
            Holds::No if excepts => (dim, "no"),
            Holds::Yes => (green, "holds"),
            Holds::No => (red, "no"),
            Holds::CannotTell => (yellow, "cannot tell"),
        };
        let (wants, found) = (show::tame(wants), show::tame(found));
        writeln!(out, "      {part:<6} {wants}: {colour}{word}{plain} {dim}({found}){plain}")?;
    }
    if !fires {
        writeln!(out, "      it would fire with: {}", show::tame(&missing.join("; ")))?;
    } else if told.is_empty() {
        writeln!(out, "      {yellow}nothing came of it then: this rule was not in force, or tells nobody{plain}")?;
    }
    fates(out, told)
}

/// A burst that is not full, or a reason that is known: the rule holds, and nothing is found.
fn waits(told: &[Told]) -> bool {
    let nothing = |told: &Told| matches!(told.fate.outcome, FateOutcome::Counted | FateOutcome::Known);
    !told.is_empty() && told.iter().all(nothing)
}

fn fates(out: &mut impl Write, told: &[Told]) -> std::io::Result<()> {
    for Told { fate, delivery } in told {
        let receiver = fate.receiver.as_ref().map_or("nobody", |name| name.as_str());
        let delivery = delivery.as_ref().map(|text| format!(" · {}", show::tame(text))).unwrap_or_default();
        writeln!(out, "      → {receiver}: {}{delivery}", outcome(fate))?;
    }
    Ok(())
}

/// What came of a match, in words.
fn outcome(fate: &Fate) -> String {
    let word = match fate.outcome {
        FateOutcome::Told => "told",
        FateOutcome::HeldBack => "held back",
        FateOutcome::Muted => "muted",
        FateOutcome::Counted => "counted",
        FateOutcome::Known => "known already",
        FateOutcome::Resolved => "told of the end",
    };
    match fate.why.as_str() {
        "" => word.to_owned(),
        why => format!("{word}: {}", show::tame(why)),
    }
}

fn chapters_json(source: &SourceName, job: &JobId, past: &Past, chapters: &[Chapter<'_>]) -> Value {
    let told = |Told { fate, delivery }: &Told| {
        json!({
            "receiver": fate.receiver, "outcome": fate.outcome.as_str(), "why": fate.why, "delivery": fate.delivery,
            "state": delivery,
        })
    };
    let verdict = |verdict: &Verdict<'_>| {
        json!({
            "rule": verdict.rule, "explanation": verdict.explanation,
            "told": verdict.told.iter().map(told).collect::<Vec<_>>(),
        })
    };
    let chapter = |Chapter { step, verdicts }: &Chapter<'_>| {
        json!({
            "transition": step.id, "from": step.from, "to": step.to, "seen_at": step.seen_at, "stay": step.is_stay(),
            "rules": verdicts.iter().map(verdict).collect::<Vec<_>>(),
        })
    };
    let since: Option<Timestamp> = past.known.as_ref().map(|known| known.status_since);
    json!({
        "source": source, "id": job, "job": past.known.as_ref().map(|known| &known.job), "status_since": since,
        "steps": chapters.iter().map(chapter).collect::<Vec<_>>(),
    })
}
