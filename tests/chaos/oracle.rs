//! The verdict: what the cloud knows to be true against what receivers heard. It knows nothing of the program, its store or
//! its logs.
//!
//! A listing shows what stands when it is read, so not every status must be told: those that were in the cloud while one
//! undisturbed replica polled on and on ([`visible`]), and each job's last. What is told must be true, in order and without a
//! gap: each step begins where the one before it ended. Each step has one id at a receiver, and each id one body; it may
//! come again, but the next step of its job comes only after the receiver took it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// What a job that no listing had shown is said to be in before.
const UNSEEN: &str = "unseen";
/// What a deleted job is said to be in.
pub(crate) const GONE: &str = "gone";
/// A poll whose listing moved under it begins again at once: requests for a first page so close to each other are of one poll.
const ONE_POLL: Duration = Duration::from_millis(300);
/// So many polls of one replica one after the other see what stands in all of them, but the last: it may not have been
/// written. One more may have found a listing that moved.
const POLLS: usize = 4;

/// A job: its source and its id.
pub(crate) type Key = (String, String);

/// What happened to a job in truth: each state, and since when. No state comes twice.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) key: Key,
    pub(crate) states: Vec<(String, Duration)>,
}

impl Life {
    pub(crate) fn last(&self) -> &str {
        self.states.last().map_or(UNSEEN, |(state, _)| state)
    }
}

/// A step as a receiver is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) key: Key,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// A message as it came. They are in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Duration,
    /// When it was answered that it was taken; nothing if it was not.
    pub(crate) taken: Option<Duration>,
    /// What it tells; several in a digest.
    pub(crate) steps: Vec<Step>,
}

/// The beginning of a poll, as the cloud saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) at: Duration,
    pub(crate) source: usize,
    /// Which replica, and which process of it.
    pub(crate) who: (usize, u32),
}

/// A time in which a replica, or the database for all, was disturbed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) replica: Option<usize>,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A state that was to be seen was not told.
    Lost { receiver: String, key: Key, state: String },
    /// A step was told under two ids.
    Doubled { receiver: String, step: Step, ids: (String, String) },
    /// A step was told before one that came before it, or does not begin where that one ended.
    Disordered { receiver: String, step: Step, after: String },
    /// A step was told before the receiver had taken the one before it.
    Hasty { receiver: String, step: Step },
    /// Something was told that never was.
    Invented { receiver: String, step: Step },
    /// An id came again with another body.
    Altered { receiver: String, id: String },
    /// More messages were decided within the time of a receiver's rate.
    Hurried { receiver: String, count: usize, at: i64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |step: &Step| format!("{}/{} {} -> {}", step.key.0, step.key.1, step.from, step.to);
        match self {
            Self::Lost { receiver, key, state } => write!(f, "{receiver}: {}/{} never told in {state}", key.0, key.1),
            Self::Doubled { receiver, step, ids } => {
                write!(f, "{receiver}: {} told as {} and as {}", show(step), ids.0, ids.1)
            }
            Self::Disordered { receiver, step, after } => write!(f, "{receiver}: {} told after {after}", show(step)),
            Self::Hasty { receiver, step } => {
                write!(f, "{receiver}: {} told before the step before it was taken", show(step))
            }
            Self::Invented { receiver, step } => write!(f, "{receiver}: {} never was", show(step)),
            Self::Altered { receiver, id } => write!(f, "{receiver}: {id} came with two bodies"),
            Self::Hurried { receiver, count, at } => {
                write!(f, "{receiver}: {count} messages were decided in the time of its rate that began at {at}")
            }
        }
    }
}

/// What stood in the cloud while one undisturbed replica polled on and on, so that it must have been seen and written.
pub(crate) fn visible(
    sources: &[String],
    lives: &[Life],
    polls: &[Poll],
    troubles: &[Trouble],
) -> BTreeSet<(Key, String)> {
    let mut seen = BTreeSet::new();
    for (number, source) in sources.iter().enumerate() {
        let windows = windows(number, polls, troubles);
        for life in lives.iter().filter(|life| life.key.0 == *source) {
            for (at, (state, from)) in life.states.iter().enumerate() {
                let until = life.states.get(at + 1).map_or(Duration::MAX, |(_, next)| *next);
                // A deletion is believed only after several listings and a question: the verdict at the end is about that.
                if state != GONE && windows.iter().any(|(first, last)| from < first && *last < until) {
                    seen.insert((life.key.clone(), state.clone()));
                }
            }
        }
    }
    seen
}

/// Times in which what stands is seen for sure.
fn windows(source: usize, polls: &[Poll], troubles: &[Trouble]) -> Vec<(Duration, Duration)> {
    let mut all: Vec<Poll> = Vec::new();
    for poll in polls.iter().filter(|poll| poll.source == source) {
        let again = |last: &Poll| last.who == poll.who && poll.at.saturating_sub(last.at) < ONE_POLL;
        if !all.last().is_some_and(again) {
            all.push(*poll);
        }
    }
    let calm = |some: &&[Poll]| {
        let (first, last) = (some[0], some[some.len() - 1]);
        let touches = |trouble: &Trouble| trouble.from <= last.at && first.at <= trouble.until;
        let hits = |trouble: &Trouble| trouble.replica.is_none_or(|replica| replica == first.who.0);
        some.iter().all(|poll| poll.who == first.who)
            && !troubles.iter().any(|trouble| touches(trouble) && hits(trouble))
    };
    all.windows(POLLS).filter(calm).map(|some| (some[0].at, some[POLLS - 2].at)).collect()
}

/// Everything that is wrong with what a receiver heard.
pub(crate) fn judge(receiver: &str, heard: &[Heard], lives: &[Life], seen: &BTreeSet<(Key, String)>) -> Vec<Fault> {
    let receiver = receiver.to_owned();
    let mut faults = Vec::new();
    let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut taken: BTreeMap<&str, Duration> = BTreeMap::new();
    for message in heard {
        if *bodies.entry(&message.id).or_insert(&message.body) != message.body {
            faults.push(Fault::Altered { receiver: receiver.clone(), id: message.id.clone() });
        }
        if let Some(at) = message.taken {
            let first = taken.entry(&message.id).or_insert(at);
            *first = at.min(*first);
        }
    }
    let lives: BTreeMap<&Key, &Life> = lives.iter().map(|life| (&life.key, life)).collect();
    // Of each job, what was told: the step, under which id.
    let mut told: BTreeMap<&Key, Vec<(&Step, &str)>> = BTreeMap::new();
    for message in heard {
        for step in &message.steps {
            let steps = told.entry(&step.key).or_default();
            if let Some((_, id)) = steps.iter().find(|(known, _)| known.to == step.to) {
                if *id != message.id {
                    let ids = ((*id).to_owned(), message.id.clone());
                    faults.push(Fault::Doubled { receiver: receiver.clone(), step: step.clone(), ids });
                }
                continue;
            }
            let rank = |state: &str| lives.get(&step.key)?.states.iter().position(|(known, _)| known == state);
            let before = if step.from == UNSEEN { Some(None) } else { rank(&step.from).map(Some) };
            match (before, rank(&step.to)) {
                (Some(before), Some(after)) if before < Some(after) => {}
                _ => faults.push(Fault::Invented { receiver: receiver.clone(), step: step.clone() }),
            }
            let last = steps.last().map_or((UNSEEN, None), |(step, id)| (step.to.as_str(), Some(*id)));
            if step.from != last.0 {
                let after = last.0.to_owned();
                faults.push(Fault::Disordered { receiver: receiver.clone(), step: step.clone(), after });
            }
            let waited = |id: &str| id == message.id || taken.get(id).is_some_and(|at| *at <= message.at);
            if !last.1.is_none_or(waited) {
                faults.push(Fault::Hasty { receiver: receiver.clone(), step: step.clone() });
            }
            steps.push((step, &message.id));
        }
    }
    for (key, life) in &lives {
        let steps = told.get(key).map(Vec::as_slice).unwrap_or_default();
        let heard = |state: &str| steps.iter().any(|(step, id)| step.to == state && taken.contains_key(id));
        for (state, _) in &life.states {
            // A job that nobody could see before it was deleted is not missed.
            let unknown = steps.is_empty() && state == GONE;
            let last = state == life.last() && !unknown;
            if (last || seen.contains(&((*key).clone(), state.clone()))) && !heard(state) {
                faults.push(Fault::Lost { receiver: receiver.clone(), key: (*key).clone(), state: state.clone() });
            }
        }
    }
    faults
}

/// Whether more messages were decided within a receiver's time than its rate has, by when they were, in microseconds. They
/// are sent when they can be.
pub(crate) fn judge_rate(receiver: &str, mut decided: Vec<i64>, (count, per): (usize, Duration)) -> Vec<Fault> {
    decided.sort_unstable();
    let per = i64::try_from(per.as_micros()).unwrap_or(i64::MAX);
    let (mut faults, mut first) = (Vec::new(), 0);
    for (at, time) in decided.iter().enumerate() {
        while time - decided[first] >= per {
            first += 1;
        }
        if at + 1 - first > count {
            faults.push(Fault::Hurried { receiver: receiver.to_owned(), count: at + 1 - first, at: decided[first] });
        }
    }
    faults
}

/// Replicas that went on polling a source which another one had begun to poll, while they were cut off and could know it
/// themselves.
pub(crate) fn trespasses(polls: &[Poll], cut: &[Trouble]) -> Vec<(Poll, Poll)> {
    let mut found = Vec::new();
    for trouble in cut {
        let within = |poll: &&Poll| (trouble.from..trouble.until).contains(&poll.at);
        let theirs = |poll: &&Poll| Some(poll.who.0) != trouble.replica;
        let mut taken: BTreeMap<usize, Poll> = BTreeMap::new();
        let mut held = BTreeSet::new();
        for poll in polls.iter().filter(within) {
            if theirs(&poll) {
                if held.contains(&poll.source) {
                    taken.entry(poll.source).or_insert(*poll);
                }
            } else {
                held.insert(poll.source);
                found.extend(taken.get(&poll.source).map(|first| (*first, *poll)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("s0".into(), "a".into())
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn life() -> Life {
        let states = [("Creating", 1), ("Running", 11), ("Failed", 21)];
        Life { key: key(), states: states.map(|(state, at)| (state.to_owned(), seconds(at))).to_vec() }
    }

    fn step(from: &str, to: &str) -> Step {
        Step { key: key(), from: from.into(), to: to.into() }
    }

    /// The n-th second, an id, and the step it tells; it was taken at once.
    fn heard(n: u64, id: &str, from: &str, to: &str) -> Heard {
        let body = format!("{id} {from} {to}").into_bytes();
        Heard { id: id.into(), body, at: seconds(n), taken: Some(seconds(n)), steps: vec![step(from, to)] }
    }

    fn all() -> Vec<Heard> {
        vec![
            heard(2, "1", "unseen", "Creating"),
            heard(12, "2", "Creating", "Running"),
            heard(22, "3", "Running", "Failed"),
        ]
    }

    fn judged(heard: &[Heard], seen: &[&str]) -> Vec<Fault> {
        let seen = seen.iter().map(|state| (key(), (*state).to_owned())).collect();
        judge("fast", heard, &[life()], &seen)
    }

    fn receiver() -> String {
        "fast".into()
    }

    #[test]
    fn a_true_record_passes_with_repeats_and_with_states_that_nobody_could_see() {
        assert_eq!(judged(&all(), &["Creating", "Running"]), []);
        let mut again = all();
        again.push(again[1].clone());
        assert_eq!(judged(&again, &[]), []);
        let skipped = [heard(2, "1", "unseen", "Creating"), heard(22, "3", "Creating", "Failed")];
        assert_eq!(judged(&skipped, &["Creating"]), []);
    }

    #[test]
    fn a_lost_step_is_found_whether_it_was_skipped_never_taken_or_the_last() {
        let skipped = [heard(2, "1", "unseen", "Creating"), heard(22, "3", "Creating", "Failed")];
        let lost = |state: &str| Fault::Lost { receiver: receiver(), key: key(), state: state.into() };
        assert_eq!(judged(&skipped, &["Running"]), [lost("Running")]);
        assert_eq!(judged(&all()[..2], &[]), [lost("Failed")]);
        let mut refused = all();
        refused[2].taken = None;
        assert_eq!(judged(&refused, &[]), [lost("Failed")]);
        assert_eq!(judged(&[], &[]), [lost("Failed")]);
        let gap = [all()[0].clone(), all()[2].clone()];
        let after =
            Fault::Disordered { receiver: receiver(), step: step("Running", "Failed"), after: "Creating".into() };
        assert_eq!(judged(&gap, &[]), [after]);
    }

    #[test]
    fn a_step_under_two_ids_is_found_even_if_it_is_told_otherwise() {
        let mut twice = all();
        twice.push(heard(23, "4", "Running", "Failed"));
        twice.push(heard(24, "5", "Creating", "Failed"));
        let doubled = |from, other: &str| Fault::Doubled {
            receiver: receiver(),
            step: step(from, "Failed"),
            ids: ("3".into(), other.into()),
        };
        assert_eq!(judged(&twice, &[]), [doubled("Running", "4"), doubled("Creating", "5")]);
    }

    #[test]
    fn steps_that_change_places_are_found_and_so_are_those_that_do_not_wait() {
        let mut swapped = all();
        swapped.swap(1, 2);
        let after = |step, after: &str| Fault::Disordered { receiver: receiver(), step, after: after.into() };
        let hasty = |step| Fault::Hasty { receiver: receiver(), step };
        let (second, third) = (step("Creating", "Running"), step("Running", "Failed"));
        assert_eq!(
            judged(&swapped, &[]),
            [after(third.clone(), "Creating"), after(second.clone(), "Failed"), hasty(second.clone())]
        );
        let mut early = all();
        early[0].taken = Some(seconds(13));
        assert_eq!(judged(&early, &[]), [hasty(second)]);
        early[0].taken = None;
        assert_eq!(judged(&early, &["Creating"]).len(), 2);
    }

    #[test]
    fn what_never_was_is_found_and_so_is_another_body_under_the_same_id() {
        let invented = |step| Fault::Invented { receiver: receiver(), step };
        let mut told = all();
        told.insert(1, heard(3, "9", "Creating", "Success"));
        assert_eq!(judged(&told, &[])[0], invented(step("Creating", "Success")));
        let mut altered = all();
        altered.push(Heard { body: b"other".to_vec(), ..altered[1].clone() });
        assert_eq!(judged(&altered, &[]), [Fault::Altered { receiver: receiver(), id: "2".into() }]);
    }

    #[test]
    fn in_a_digest_steps_are_in_order_too() {
        let steps = vec![step("unseen", "Creating"), step("Creating", "Running"), step("Running", "Failed")];
        let mut digest = Heard { steps, ..heard(22, "d", "", "") };
        assert_eq!(judged(&[digest.clone()], &["Creating", "Running"]), []);
        digest.steps.swap(0, 1);
        assert_ne!(judged(&[digest], &[]), []);
    }

    #[test]
    fn a_rate_counts_in_every_stretch_of_its_time() {
        let faults =
            |count| judge_rate("fast", [12, 1, 2, 3, 11].map(|n| n * 1_000_000).to_vec(), (count, seconds(10)));
        assert_eq!(faults(3), []);
        let hurried = |at: i64| Fault::Hurried { receiver: receiver(), count: 3, at: at * 1_000_000 };
        assert_eq!(faults(2), [1, 2, 3].map(hurried));
    }

    fn polls(times: &[(u64, usize)]) -> Vec<Poll> {
        times.iter().map(|(at, replica)| Poll { at: seconds(*at), source: 0, who: (*replica, 0) }).collect()
    }

    #[test]
    fn what_must_be_seen_is_what_stands_while_one_replica_polls_undisturbed() {
        let states = |polls: &[Poll], troubles: &[Trouble]| -> Vec<String> {
            visible(&["s0".into()], &[life()], polls, troubles).into_iter().map(|(_, state)| state).collect()
        };
        let steady = polls(&[(2, 0), (4, 0), (6, 0), (8, 0)]);
        assert_eq!(states(&steady, &[]), ["Creating"]);
        assert_eq!(states(&steady[..3], &[]), [""; 0]);
        assert_eq!(states(&polls(&[(2, 0), (4, 0), (5, 1), (6, 0), (8, 0)]), &[]), [""; 0]);
        let trouble = |replica| [Trouble { replica, from: seconds(7), until: seconds(9) }];
        assert_eq!(states(&steady, &trouble(Some(0))), [""; 0]);
        assert_eq!(states(&steady, &trouble(None)), [""; 0]);
        assert_eq!(states(&steady, &trouble(Some(1))), ["Creating"]);
        assert_eq!(states(&polls(&[(22, 1), (24, 1), (26, 1), (28, 1)]), &[]), ["Failed"]);
    }

    #[test]
    fn who_is_cut_off_stops_before_another_begins() {
        let cut = [Trouble { replica: Some(0), from: seconds(3), until: seconds(20) }];
        assert_eq!(trespasses(&polls(&[(2, 0), (4, 0), (5, 0), (9, 1), (22, 0)]), &cut), []);
        assert_eq!(trespasses(&polls(&[(2, 0), (4, 0), (9, 1), (10, 0)]), &cut).len(), 1);
    }
}
