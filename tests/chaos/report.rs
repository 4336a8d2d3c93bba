//! What happened, line by line, and the figures at the end: on standard error and in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobwatch::clock::Stopwatch;

use super::acts::{Act, Deed};
use super::oracle::{GONE, Heard, Poll};
use super::story::Story;

pub(crate) struct Report {
    path: PathBuf,
    file: File,
    watch: Stopwatch,
    /// Deeds, by name.
    deeds: BTreeMap<String, usize>,
    /// From the deed to the first poll by somebody else, by the deed.
    taken_over: BTreeMap<String, Vec<Duration>>,
    handed_over: Vec<Duration>,
    recovered: Vec<Duration>,
}

impl Report {
    pub(crate) fn at(path: &Path, watch: Stopwatch) -> Self {
        Self {
            path: path.to_owned(),
            file: File::create(path).unwrap(),
            watch,
            deeds: BTreeMap::new(),
            taken_over: BTreeMap::new(),
            handed_over: Vec::new(),
            recovered: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[expect(clippy::print_stderr, reason = "whoever waits for ten minutes sees what goes on")]
    pub(crate) fn line(&mut self, text: &str) {
        let line = format!("{:7.2}  {text}", self.watch.elapsed().as_secs_f64());
        eprintln!("{line}");
        writeln!(self.file, "{line}").unwrap();
    }

    pub(crate) fn counts(&mut self, act: &Act) {
        *self.deeds.entry(format!("{:?}", act.deed)).or_default() += act.whom.len().max(1);
    }

    pub(crate) fn taken_over(&mut self, deed: Deed, source: usize, after: Duration) {
        self.taken_over.entry(format!("{deed:?}")).or_default().push(after);
        self.line(&format!("  s{source} polled by another {} after the deed", show(after)));
    }

    pub(crate) fn handed_over(&mut self, source: usize, after: Duration) {
        self.handed_over.push(after);
        self.line(&format!("  s{source} polled by another {} after the exit", show(after)));
    }

    pub(crate) fn recovered(&mut self, source: usize, after: Duration) {
        self.recovered.push(after);
        self.line(&format!("  s{source} polled {} after the database was there again", show(after)));
    }

    /// What took too long.
    pub(crate) fn late(&mut self, takeover_max: Duration, handover_max: Duration) -> Vec<String> {
        let mut faults = Vec::new();
        let mut all: Vec<(String, Vec<Duration>, Duration)> = std::mem::take(&mut self.taken_over)
            .into_iter()
            .map(|(deed, times)| (format!("taken over after {deed}"), times, takeover_max))
            .collect();
        let kinds = ["Kill", "Pause"].map(|deed| format!("taken over after {deed}"));
        let whole =
            all.iter().filter(|(what, ..)| kinds.contains(what)).flat_map(|(_, times, _)| times.clone()).collect();
        all.push(("taken over after Kill or Pause".into(), whole, takeover_max));
        all.push(("handed over after Leave".into(), std::mem::take(&mut self.handed_over), handover_max));
        all.push((
            "polled again after the database came back".into(),
            std::mem::take(&mut self.recovered),
            takeover_max,
        ));
        for (what, mut times, max) in all {
            times.sort_unstable();
            let (Some(most), middle) = (times.last(), times.get(times.len() / 2)) else { continue };
            let middle = show(*middle.unwrap_or(most));
            self.line(&format!("{what}: {} sources, median {middle}, most {}", times.len(), show(*most)));
            if *most > max {
                faults.push(format!("{what}: {} is more than {}", show(*most), show(max)));
            }
        }
        let deeds: Vec<String> = self.deeds.iter().map(|(deed, count)| format!("{count} {deed}")).collect();
        self.line(&format!("deeds: {}", deeds.join(", ")));
        faults
    }

    pub(crate) fn heard(&mut self, receiver: &str, heard: &[Heard]) {
        let ids: BTreeSet<&str> = heard.iter().map(|one| one.id.as_str()).collect();
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        heard.iter().filter(|one| one.taken.is_some()).for_each(|one| *taken.entry(&one.id).or_default() += 1);
        let twice: usize = taken.values().map(|count| count - 1).sum();
        let steps: BTreeSet<_> = heard.iter().flat_map(|one| &one.steps).map(|step| (&step.key, &step.to)).collect();
        let digests = heard.iter().filter(|one| one.steps.len() > 1).map(|one| &one.id).collect::<BTreeSet<_>>().len();
        self.line(&format!(
            "{receiver}: {} steps in {} messages ({digests} digests), {} requests, {twice} taken more than once",
            steps.len(),
            ids.len(),
            heard.len(),
        ));
    }

    pub(crate) fn polls(&mut self, polls: &[Poll]) {
        let mut last: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
        let moved =
            polls.iter().filter(|poll| last.insert(poll.source, poll.who).is_some_and(|who| who != poll.who)).count();
        self.line(&format!("{} polls; sources changed hands {moved} times", polls.len()));
    }
}

/// Jobs whose last state was not told, or not taken.
pub(crate) fn untold(story: &Story, heard: &[Heard]) -> usize {
    let taken = heard.iter().filter(|one| one.taken.is_some());
    let told: BTreeSet<_> = taken.flat_map(|one| &one.steps).map(|step| (&step.key, step.to.as_str())).collect();
    let known: BTreeSet<_> = told.iter().map(|(key, _)| *key).collect();
    let missing = |key, last: &str| !told.contains(&(key, last)) && (last != GONE || known.contains(key));
    story.lives.iter().filter(|life| missing(&life.key, life.last())).count()
}

fn show(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}
