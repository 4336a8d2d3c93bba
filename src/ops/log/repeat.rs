//! What is said of a trouble that goes on: when it begins, then at growing intervals with a count, and when it ends.
//!
//! One that comes and goes is one that goes on: what begins again soon after its end is silent, and so is that end.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::time::Timestamp;

/// The first reminder comes after this; each next one after twice the time.
const FIRST: Duration = Duration::from_secs(300);
/// No longer than this.
const LONGEST: Duration = Duration::from_secs(6 * 3_600);
/// What begins again so soon after its end is the same trouble …
const RELAPSE: Duration = Duration::from_secs(300);
/// … and is said within this time: somebody was told that it had ended.
const RELAPSE_WAIT: Duration = Duration::from_secs(900);
/// Troubles of one party that are told apart; of more, the one that was said first is forgotten.
const KINDS_MAX: usize = 8;

/// Who is in trouble. There are as many as the configuration has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// A source that is not seen.
    Source(String),
    /// A source whose polls are lost.
    Polls(String),
    /// A receiver.
    Receiver(String),
    /// The state, and what it was asked.
    State(&'static str),
    /// Whoever hears signs of life.
    Heartbeat,
}

/// What is to be said of one more time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is new.
    Begins,
    /// It goes on: how often it happened, and for how long.
    GoesOn(u64, Duration),
    /// Nothing: it was said not long ago.
    Nothing,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Troubles(HashMap<Party, Vec<Trouble>>);

#[derive(Debug)]
struct Trouble {
    stem: String,
    since: Timestamp,
    times: u64,
    said_at: Timestamp,
    wait: Duration,
    /// When it ended, if it has.
    ended_at: Option<Timestamp>,
    /// Its end is to be said.
    owes_end: bool,
}

impl Troubles {
    /// It happened, in these words. Numbers in them may change.
    pub(super) fn happens(&mut self, party: Party, words: &str, now: Timestamp) -> Word {
        let stem: String = words.chars().filter(|c| !c.is_ascii_digit()).collect();
        let known = self.0.entry(party).or_default();
        known.retain(|trouble| !trouble.is_past(now));
        let Some(trouble) = known.iter_mut().find(|trouble| trouble.stem == stem) else {
            if known.len() >= KINDS_MAX {
                known.remove(0);
            }
            let (since, said_at, wait) = (now, now, FIRST);
            known.push(Trouble { stem, since, times: 1, said_at, wait, ended_at: None, owes_end: true });
            return Word::Begins;
        };
        trouble.times += 1;
        if trouble.ended_at.take().is_some() {
            trouble.wait = trouble.wait.min(RELAPSE_WAIT);
        }
        if !trouble.is_old(now) {
            return Word::Nothing;
        }
        trouble.said_at = now;
        trouble.wait = (trouble.wait * 2).min(LONGEST);
        trouble.owes_end = true;
        Word::GoesOn(trouble.times, now.since(trouble.since))
    }

    /// All is well with this party. How often it was not and for how long, if that is to be said.
    pub(super) fn ends(&mut self, party: &Party, now: Timestamp) -> Option<(u64, Duration)> {
        let known = self.0.get_mut(party)?;
        let mut said = None;
        for trouble in known.iter_mut().filter(|trouble| trouble.ended_at.is_none()) {
            trouble.ended_at = Some(now);
            if std::mem::take(&mut trouble.owes_end) {
                let (times, lasted) = said.unwrap_or_default();
                said = Some((times + trouble.times, now.since(trouble.since).max(lasted)));
            }
        }
        known.retain(|trouble| !trouble.is_past(now));
        if known.is_empty() {
            self.0.remove(party);
        }
        said
    }
}

impl Trouble {
    /// Whether it would be another one if it began again.
    fn is_past(&self, now: Timestamp) -> bool {
        self.ended_at.is_some_and(|at| now < at || now.since(at) >= RELAPSE)
    }

    /// Whether it may be said again. A clock that was set back makes it so.
    fn is_old(&self, now: Timestamp) -> bool {
        now < self.said_at || now.since(self.said_at) >= self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oncall() -> Party {
        Party::Receiver("oncall".into())
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(seconds))
    }

    /// What is said of one that happens every ten seconds, for so long: when, and how often it had happened.
    fn said(until: u64) -> (Vec<(u64, Option<u64>)>, Troubles) {
        let mut troubles = Troubles::default();
        let mut said = Vec::new();
        for second in (0..until).step_by(10) {
            match troubles.happens(oncall(), &format!("HTTP 503 after {second} ms"), at(second)) {
                Word::Begins => said.push((second, None)),
                Word::GoesOn(times, lasted) => {
                    assert_eq!(lasted.as_secs(), second);
                    said.push((second, Some(times)));
                }
                Word::Nothing => {}
            }
        }
        (said, troubles)
    }

    #[test]
    fn a_trouble_is_said_when_it_begins_at_growing_intervals_and_when_it_ends() {
        let (lines, mut troubles) = said(3_600);
        assert_eq!(lines, [(0, None), (300, Some(31)), (900, Some(91)), (2_100, Some(211))]);
        assert_eq!(troubles.ends(&oncall(), at(3_600)), Some((360, Duration::from_secs(3_600))));
        assert_eq!(troubles.ends(&oncall(), at(3_601)), None);
        let (lines, _) = said(7 * 86_400);
        assert_eq!(lines.len(), 8 + (7 * 86_400 - 38_100) / 21_600, "at the latest every six hours: {lines:?}");
    }

    #[test]
    fn one_that_comes_and_goes_is_said_like_one_that_goes_on() {
        let (mut troubles, mut lines) = (Troubles::default(), 0);
        for second in 0..300 {
            lines += u32::from(troubles.happens(oncall(), "x", at(second)) != Word::Nothing);
            lines += u32::from(troubles.ends(&oncall(), at(second)).is_some());
        }
        assert_eq!(lines, 2);
        assert_eq!(troubles.happens(oncall(), "x", at(700)), Word::Begins, "long after its end it is a new one");

        let (_, mut troubles) = said(86_400);
        assert!(troubles.ends(&oncall(), at(86_400)).is_some());
        let words = [86_410, 87_400].map(|second| troubles.happens(oncall(), "HTTP  after  ms", at(second)));
        assert!(
            words.iter().any(|word| matches!(word, Word::GoesOn(..))),
            "{words:?}: whoever heard of the end hears that it was none"
        );
    }

    #[test]
    fn troubles_that_take_turns_are_each_said_once_and_however_many_there_are_few_are_kept() {
        let mut troubles = Troubles::default();
        let mut word = |words: &str, second| troubles.happens(oncall(), words, at(second));
        assert_eq!(
            [word("a", 0), word("b", 1), word("a", 2), word("b", 3)],
            [Word::Begins, Word::Begins, Word::Nothing, Word::Nothing]
        );
        (0..100_u8).for_each(|n| assert_eq!(word(&"x".repeat(n.into()), 4), Word::Begins));
        assert_eq!(troubles.0[&oncall()].len(), KINDS_MAX);
        let other = troubles.happens(Party::Receiver("ops".into()), "x", at(5));
        assert_eq!(other, Word::Begins, "another party's are its own");
    }
}
