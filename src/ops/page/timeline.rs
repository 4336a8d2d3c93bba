//! The picture of the last hours, from tallies of steps: pure, so that a test reads what a browser draws.
//!
//! Three strips share one axis of time: jobs that failed, jobs that succeeded, and those under way by status. How many are
//! under way now is known; how many were is counted back from there, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::view::{Moment, plural};
use crate::model::job::Status;
use crate::model::time::{Timestamp, span};
use crate::model::transition::State;
use crate::store::glance::Tally;

/// Spans that are shown, and how long one bar of each is, in seconds: the shortest that holds all of history, else the longest.
const SPANS: [(&str, i64, i64); 3] = [("hour", HOUR, 60), ("6 hours", 6 * HOUR, 300), ("24 hours", 24 * HOUR, 1_800)];
const HOUR: i64 = 3_600;
/// Nothing is shown that is longer ago, in seconds.
pub(super) const SPAN_MAX: u64 = 24 * HOUR.unsigned_abs();
/// The height of a strip.
const HEIGHT: usize = 48;
/// The width of a bar, with the gap to the next.
const STEP: usize = 10;
/// Moments that are named along the axis, besides now.
const LABELS: usize = 4;
/// One that is no more than this stays visible beside a thousand.
const HEIGHT_MIN: usize = 3;

/// What is drawn, and the same in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Timeline {
    /// How much time it shows.
    pub(super) span: &'static str,
    /// How long one bar is.
    pub(super) bar: String,
    pub(super) width: usize,
    pub(super) height: usize,
    /// How much of it is before history begins, and when that is.
    pub(super) unknown: usize,
    pub(super) begun: Moment,
    pub(super) strips: Vec<Strip>,
    /// The moments that the axis names, from left to right.
    pub(super) labels: Vec<Moment>,
    /// The same in figures, the newest first; times in which nothing happened are left out.
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Strip {
    pub(super) name: &'static str,
    /// The figure beside its name.
    pub(super) figure: usize,
    /// What it shows, in a sentence.
    pub(super) summary: String,
    pub(super) bars: Vec<Bar>,
    /// The words for its colours, if there is more than one.
    pub(super) legend: Vec<Legend>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) height: usize,
    pub(super) label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Legend {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) at: Moment,
    pub(super) failed: usize,
    pub(super) succeeded: usize,
    pub(super) under_way: usize,
}

/// What jobs that are under way are counted by, from the bottom up.
const COURSE: [Legend; 4] = [
    Legend { class: "running", name: "Running" },
    Legend { class: "initializing", name: "Initializing" },
    Legend { class: "creating", name: "Creating" },
    Legend { class: "other", name: "Other" },
];

/// What one bar stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    failed: usize,
    succeeded: usize,
    /// By place in [`COURSE`]: at its end, and how that changed in it.
    course: [i64; 4],
    change: [i64; 4],
}

/// `present` is how many jobs there are now, by status.
pub(super) fn timeline(
    tallies: &[Tally],
    present: &BTreeMap<String, usize>,
    begun: Timestamp,
    now: Timestamp,
) -> Timeline {
    let (name, shown, step) = axis(now.since(begun));
    // Bars stand still while time passes: each begins at a multiple of its length.
    let end = (now.seconds().div_euclid(step) + 1) * step;
    let start = end - shown;
    let place = |at: Timestamp| usize::try_from((at.seconds() - start).div_euclid(step)).ok();
    let count = usize::try_from(shown / step).unwrap_or(0);
    let mut slots = vec![Slot::default(); count];
    for tally in tallies {
        if let Some(slot) = place(tally.minute).and_then(|place| slots.get_mut(place)) {
            slot.add(tally);
        }
    }
    count_back(&mut slots, present);
    let at = |slot: usize| Timestamp::from_micros((start + step * i64::try_from(slot).unwrap_or(0)) * 1_000_000);
    let moment = |slot: usize| Moment::new(at(slot), now);
    let unknown = place(begun).unwrap_or(0).min(count);
    let bar = span(Duration::from_secs(step.unsigned_abs()));
    let failed: Vec<_> = slots.iter().map(|slot| slot.failed).collect();
    let succeeded: Vec<_> = slots.iter().map(|slot| slot.succeeded).collect();
    let rows = (unknown..count).rev().filter(|slot| slots[*slot].is_eventful()).map(|slot| Row {
        at: moment(slot),
        failed: failed[slot],
        succeeded: succeeded[slot],
        under_way: slots[slot].under_way(),
    });
    Timeline {
        width: count * STEP,
        height: HEIGHT,
        unknown: unknown * STEP,
        begun: Moment::new(begun, now),
        strips: vec![
            ended("Failed", "failed", &failed, name, moment),
            ended("Succeeded", "success", &succeeded, name, moment),
            under_way(&slots[unknown..], unknown, name, moment),
        ],
        labels: (0..LABELS).map(|label| moment(count * label / LABELS)).collect(),
        rows: rows.collect(),
        span: name,
        bar,
    }
}

/// What to call the time that is shown, how long it is and how long one bar of it, in seconds.
fn axis(age: Duration) -> (&'static str, i64, i64) {
    let fits = |(_, shown, _): &&(&str, i64, i64)| age.as_secs() < shown.unsigned_abs();
    *SPANS.iter().find(fits).unwrap_or(&SPANS[SPANS.len() - 1])
}

fn course(status: &Status) -> Option<usize> {
    match status {
        Status::Running => Some(0),
        Status::Initializing => Some(1),
        Status::Creating => Some(2),
        Status::Other(_) => Some(3),
        Status::Failed | Status::Success => None,
    }
}

impl Slot {
    fn add(&mut self, tally: &Tally) {
        let change = i64::try_from(tally.count).unwrap_or(0);
        if let State::Is(from) = &tally.from
            && let Some(place) = course(from)
        {
            self.change[place] -= change;
        }
        let State::Is(to) = &tally.to else { return };
        match to {
            Status::Failed => self.failed += tally.count,
            Status::Success => self.succeeded += tally.count,
            Status::Creating | Status::Initializing | Status::Running | Status::Other(_) => {
                self.change[course(to).unwrap_or(3)] += change;
            }
        }
    }

    fn is_eventful(&self) -> bool {
        self.failed > 0 || self.succeeded > 0 || self.change.iter().any(|change| *change != 0)
    }

    fn under_way(&self) -> usize {
        self.course.iter().map(|count| usize::try_from(*count).unwrap_or(0)).sum()
    }
}

/// From what there is now to what there was: the last slot ends now.
fn count_back(slots: &mut [Slot], present: &BTreeMap<String, usize>) {
    let mut course_now = [0_i64; 4];
    for (word, count) in present {
        if let Some(place) = course(&Status::read(word)) {
            course_now[place] += i64::try_from(*count).unwrap_or(0);
        }
    }
    for slot in slots.iter_mut().rev() {
        slot.course = course_now.map(|count| count.max(0));
        for (count, change) in course_now.iter_mut().zip(slot.change) {
            *count -= change;
        }
    }
}

/// As high as `count` is among at most `most`.
fn scale(count: usize, most: usize) -> usize {
    if count == 0 { 0 } else { (count * HEIGHT / most.max(1)).clamp(HEIGHT_MIN, HEIGHT) }
}

fn ended(
    name: &'static str,
    class: &'static str,
    counts: &[usize],
    shown: &str,
    moment: impl Fn(usize) -> Moment,
) -> Strip {
    let (total, most) = (counts.iter().sum(), counts.iter().copied().max().unwrap_or(0));
    let word = name.to_lowercase();
    let bars = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(slot, count)| {
        let height = scale(*count, most);
        let label = format!("{} UTC: {count} {word}", moment(slot).clock);
        Bar { class, x: slot * STEP, y: HEIGHT - height, height, label }
    });
    let peak = counts.iter().position(|count| *count == most && most > 0);
    let peak = peak.map_or_else(String::new, |slot| format!("; most at {} UTC: {most}", moment(slot).clock));
    let summary = format!("{} {word} in the last {shown}{peak}", plural(total, "job"));
    Strip { name, figure: total, summary, bars: bars.collect(), legend: Vec::new() }
}

fn under_way(slots: &[Slot], first: usize, shown: &str, moment: impl Fn(usize) -> Moment) -> Strip {
    let most = slots.iter().map(Slot::under_way).max().unwrap_or(0);
    let mut bars = Vec::new();
    let mut used = [false; 4];
    for (at, slot) in slots.iter().enumerate() {
        let mut top = HEIGHT;
        for (place, count) in slot.course.iter().enumerate() {
            let count = usize::try_from(*count).unwrap_or(0);
            let height = scale(count, most).min(top);
            if height == 0 {
                continue;
            }
            top -= height;
            used[place] = true;
            let Legend { class, name } = COURSE[place];
            let label = format!("{} UTC: {count} {name}", moment(first + at).clock);
            bars.push(Bar { class, x: (first + at) * STEP, y: top, height, label });
        }
    }
    let now = slots.last().map_or(0, Slot::under_way);
    let summary = format!("{now} under way now, at most {most} in the last {shown}");
    let legend = COURSE.into_iter().zip(used).filter(|(_, used)| *used).map(|(legend, _)| legend);
    Strip { name: "Under way", figure: now, summary, bars, legend: legend.collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Bar, HEIGHT, Tally, Timestamp, timeline};
    use crate::model::transition::State;

    /// A whole minute, 40 s before now.
    const MINUTE: i64 = 1_800_000_000;
    const NOW: Timestamp = Timestamp::from_micros((MINUTE + 40) * 1_000_000);

    fn minute(ago: i64) -> Timestamp {
        Timestamp::from_micros((MINUTE - ago * 60) * 1_000_000)
    }

    fn tally(ago: i64, from: &str, to: &str, count: usize) -> Tally {
        Tally { minute: minute(ago), from: State::read(from), to: State::read(to), count }
    }

    #[test]
    fn what_was_under_way_is_counted_back_from_what_is_now() {
        let tallies = [
            tally(5, "unseen", "Creating", 10),
            tally(3, "Creating", "Running", 10),
            tally(1, "Running", "Failed", 4),
            tally(1, "Running", "Success", 1),
            tally(0, "Running", "gone", 2),
        ];
        let present = BTreeMap::from([("Running".to_owned(), 3), ("Success".to_owned(), 500)]);
        let drawn = timeline(&tallies, &present, minute(5), NOW);
        assert_eq!((drawn.span, drawn.bar.as_str(), drawn.width), ("hour", "1 min", 600));
        let rows: Vec<_> = drawn.rows.iter().map(|row| (row.failed, row.succeeded, row.under_way)).collect();
        assert_eq!(rows, [(0, 0, 3), (4, 1, 5), (0, 0, 10), (0, 0, 10)]);
        let [failed, succeeded, course] = &drawn.strips[..] else { panic!("three strips") };
        assert_eq!((failed.figure, succeeded.figure, course.figure), (4, 1, 3));
        assert_eq!(failed.summary, "4 jobs failed in the last hour; most at 07:59 UTC: 4");
        let bar = Bar { class: "failed", x: 580, y: 0, height: HEIGHT, label: "07:59 UTC: 4 failed".into() };
        assert_eq!(failed.bars, [bar]);
        assert_eq!(course.summary, "3 under way now, at most 10 in the last hour");
        let drawn_so: Vec<_> = course.bars.iter().map(|bar| (bar.class, bar.x / 10, bar.height)).collect();
        assert_eq!(
            drawn_so,
            [
                ("creating", 54, 48),
                ("creating", 55, 48),
                ("running", 56, 48),
                ("running", 57, 48),
                ("running", 58, 24),
                ("running", 59, 14)
            ]
        );
        assert_eq!((drawn.unknown, drawn.labels.len()), (540, 4), "before the first step nothing is drawn");
    }

    #[test]
    fn the_picture_is_bounded_whatever_history_holds() {
        for (age, bars, span) in [(30, 60, "hour"), (300, 72, "6 hours"), (100_000, 48, "24 hours")] {
            let tallies: Vec<Tally> =
                (0..1_600).map(|ago| tally(ago, "Running", "Failed", usize::MAX / 1_000_000)).collect();
            let present = BTreeMap::from([("Paused".to_owned(), usize::MAX)]);
            let drawn = timeline(&tallies, &present, minute(age), NOW);
            assert_eq!((drawn.width, drawn.span), (bars * 10, span));
            assert!(drawn.strips.iter().all(|strip| strip.bars.len() <= bars * 4));
            assert!(drawn.strips.iter().flat_map(|strip| &strip.bars).all(|bar| bar.y + bar.height <= HEIGHT));
            assert!(drawn.rows.len() <= bars);
        }
        let early = timeline(&[], &BTreeMap::new(), NOW, Timestamp::from_micros(0));
        assert!(early.rows.is_empty(), "a clock that was set back draws nothing, and breaks nothing");
    }
}
