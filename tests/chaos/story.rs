//! The truth: which jobs there are in the cloud, and when each is in which state. The seed makes it.

use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;

use super::oracle::{GONE, Life};

/// Nothing happens before: what stands at the first poll is told to nobody.
pub(crate) const QUIET: Duration = Duration::from_secs(15);
/// So long a job is in its last state at least, before it is deleted: longer than any trouble.
const KEPT_MIN: u64 = 60_000;

/// The jobs of every source.
pub(crate) struct Story {
    pub(crate) sources: Vec<String>,
    pub(crate) lives: Vec<Life>,
}

impl Story {
    /// Jobs that begin within this time, one after the other and sometimes many at once.
    pub(crate) fn tell(rng: &mut Rng, sources: usize, span: Duration) -> Self {
        let sources: Vec<String> = (0..sources).map(|n| format!("s{n}")).collect();
        let (span, mut lives) = (millis(span), Vec::new());
        for source in &sources {
            let mut at = millis(QUIET) + rng.u64(0..2_000);
            while at < span {
                let copies = if rng.u8(0..30) == 0 { 20 } else { 1 };
                for _ in 0..copies {
                    let job = format!("{source}-{:04}", lives.len());
                    let begins = at + rng.u64(0..20);
                    lives.push(live(rng, (source.clone(), job), begins, span));
                }
                at += rng.u64(2_000..8_000);
            }
        }
        Self { sources, lives }
    }

    /// As the simulator reads it.
    pub(crate) fn scenario(&self, source: &str, token: &str, page_max: usize) -> String {
        let mut text = format!("token = \"{token}\"\nproject_id = \"{source}\"\npage_max = {page_max}\n");
        for life in self.lives.iter().filter(|life| life.key.0 == source) {
            let states: Vec<&(String, Duration)> = life.states.iter().filter(|(state, _)| state != GONE).collect();
            let (id, begins, last) = (&life.key.1, millis(states[0].1), states[states.len() - 1]);
            write!(text, "[[job]]\nid = \"{id}\"\nname = \"{id}\"\nat = \"{begins}ms\"\nreason = \"quota {id} exceeded\"\npath = [")
                .unwrap();
            for step in states.windows(2) {
                write!(text, "[\"{}\", \"{}ms\"], ", step[0].0, millis(step[1].1 - step[0].1)).unwrap();
            }
            writeln!(text, "[\"{}\"]]", last.0).unwrap();
            if let Some((_, at)) = life.states.iter().find(|(state, _)| state == GONE) {
                writeln!(text, "deleted_after = \"{}ms\"", millis(*at - last.1)).unwrap();
            }
        }
        text
    }
}

/// One job: it ends within the span, so that all can be still after it.
fn live(rng: &mut Rng, key: (String, String), begins: u64, span: u64) -> Life {
    let mut at = begins;
    let mut states = Vec::new();
    for state in ["Creating", "Initializing", "Running"] {
        if state == "Running" || rng.u8(0..5) > 0 {
            states.push((state.to_owned(), Duration::from_millis(at)));
            at += match rng.u8(0..10) {
                // Too short to be seen at every poll.
                0..=2 => rng.u64(100..1_500),
                3..=7 => rng.u64(1_500..8_000),
                _ => rng.u64(8_000..30_000),
            };
        }
    }
    let last = if rng.u8(0..3) == 0 { "Failed" } else { "Success" };
    let ends = at.min(span.max(states.last().map_or(begins, |(_, at)| millis(*at)) + 100));
    states.push((last.to_owned(), Duration::from_millis(ends)));
    let deleted = ends + KEPT_MIN + rng.u64(0..60_000);
    if rng.u8(0..4) == 0 && deleted < span {
        states.push((GONE.to_owned(), Duration::from_millis(deleted)));
    }
    Life { key, states }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

#[test]
fn a_story_is_the_same_for_the_same_seed_and_what_the_simulator_reads() {
    let tell = |seed| Story::tell(&mut Rng::with_seed(seed), 2, Duration::from_secs(300));
    let (one, same, other) = (tell(1), tell(1), tell(2));
    let text = |story: &Story| story.scenario("s1", "t", 100);
    assert_eq!(text(&one), text(&same));
    assert_ne!(text(&one), text(&other));
    let scenario = jobwatch::simulator::Scenario::read(&text(&one), std::path::Path::new("story")).unwrap();
    let start = jobwatch::model::time::Timestamp::from_micros(1_800_000_000_000_000);
    for at in [20, 77, 150, 299].map(Duration::from_secs) {
        let mut told: Vec<(String, String)> =
            scenario.jobs_at(at, start).iter().map(|job| (job.id.to_string(), job.status.to_string())).collect();
        told.sort();
        let now = |life: &&Life| life.states.iter().rfind(|(_, since)| *since <= at).map(|(state, _)| state.clone());
        let lives = one.lives.iter().filter(|life| life.key.0 == "s1");
        let mut true_now: Vec<(String, String)> = lives
            .filter_map(|life| Some((life.key.1.clone(), now(&life)?)))
            .filter(|(_, state)| state != GONE)
            .collect();
        true_now.sort();
        assert_eq!(told, true_now);
    }
}
