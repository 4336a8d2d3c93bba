//! One poll decided: the function the whole program exists to call.
//!
//! Everything a poll changes (snapshot rows, transitions, alerts, deliveries, what is remembered of the source) is in one
//! [`Plan`], decided here from values alone and committed in one transaction. A dry run prints it, `diff` makes one from
//! two files, a test reads it.

use std::sync::Arc;

use crate::diff::{Difference, Points, Policy, diff, vanished};
use crate::model::alert::{Alert, Fate, Muted};
use crate::model::delivery::Owed;
use crate::model::follow_up::FollowUp;
use crate::model::listing::{Fault, FaultKind, Listing, Point};
use crate::model::memory::{Memory, Sight};
use crate::model::name::{AlertId, JobId, RuleId};
use crate::model::notification::SourceFacts;
use crate::model::snapshot::Change;
use crate::model::time::Timestamp;
use crate::model::transition::Transition;
use crate::rules::RuleSet;
use decision::Decision;

mod decision;
mod follow_up;
mod pace;
mod rehearsal;
mod reload;
mod replay;
mod room;
mod sight;

pub use decision::stay;
pub use follow_up::{Guard, Permit, Ruling, moved, outcome, rule_on};
pub use pace::{DIGEST_BYTES_MAX, DIGEST_MAX, Paced, Rate, Room, digest, digests, gather, is_end, pace};
pub use rehearsal::{Disagreement, rehearse};
pub use reload::{replicas_agree, replicas_differ, rules_accepted, rules_refused};
pub use replay::{Replayed, replay};
pub use room::room_told;
pub use sight::{Outlook, SelfWatch, View, lookout};

/// Listings in a row that miss most jobs, each confirmed by the single-job call, before that is believed.
const VANISHED_BELIEVED: u8 = 12;

/// What a decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The source that was polled.
    pub source: &'a Arc<SourceFacts>,
    /// What the store knows of it.
    pub before: &'a Memory,
    /// How many jobs there are that are not gone; `before` may hold only some of them.
    pub living: usize,
    /// What the poll brought.
    pub listing: Listing,
    /// What the single-job call said.
    pub points: Points,
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// The numbers in force.
    pub policy: &'a Policy,
    /// The time.
    pub now: Timestamp,
}

/// What a poll changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The source.
    pub source: Arc<SourceFacts>,
    /// When it was decided.
    pub at: Timestamp,
    /// Rows of the snapshot to write, and the transitions among them.
    pub difference: Difference,
    /// The listing was complete: this is the new `complete_at`.
    pub complete: bool,
    /// Why it was not, if it was not.
    pub fault: Option<Fault>,
    /// Rows that could not be used.
    pub unreadable: usize,
    /// Findings of rules to write.
    pub alerts: Vec<Alert>,
    /// Findings that nobody may be told of now, by the jobs they are about.
    pub muted: Vec<Muted>,
    /// Those that are no longer kept as muted.
    pub unmuted: Vec<(AlertId, JobId)>,
    /// What is to be remembered of the source's visibility.
    pub sight: Sight,
    /// What came of each match, for whoever asks why.
    pub fates: Vec<Fate>,
    /// What is owed to receivers, in order.
    pub owed: Vec<Owed>,
    /// What is to be done about it, each once.
    pub follow_ups: Vec<FollowUp>,
    /// Rules whose templates failed, in words; the built-in text went out instead.
    pub faults: Vec<String>,
    /// The rules that matched, with the step they matched: for counting and for people.
    pub matches: Vec<(RuleId, Arc<Transition>)>,
    /// How many jobs the source has after this, by status.
    pub jobs: usize,
}

/// Decides one poll.
pub fn plan(input: Input<'_>) -> Plan {
    let Input { source, before, living, listing, points, rules, policy, now } = input;
    let (listing, vanished) = believe(before, listing, &points, policy, living);
    let unreadable = listing.rows().unreadable;
    let fault = match &listing {
        Listing::Complete(_) | Listing::Brief(_) => None,
        Listing::Incomplete { fault, .. } => Some(fault.clone()),
    };
    let difference = diff(&source.name, &before.snapshot, listing, points, policy, now);
    let mut decision = Decision::new(source, before, rules, now);
    decision.decide(&difference);
    let sight = look(before, fault.as_ref(), vanished, now);
    let was = |change: &Change| before.snapshot.jobs.get(&change.known.job.id).is_some_and(|known| !known.gone);
    let come = difference.changes.iter().filter(|change| !was(change) && !change.known.gone).count();
    let left = difference.changes.iter().filter(|change| was(change) && change.known.gone).count();
    let jobs = (living + come).saturating_sub(left);
    let unmuted = decision.muted.iter().filter(|(_, muted)| muted.is_none()).map(|(key, _)| key.clone()).collect();
    Plan {
        source: Arc::clone(source),
        at: now,
        complete: fault.is_none(),
        fault,
        unreadable,
        difference,
        alerts: decision.alerts.into_values().collect(),
        muted: decision.muted.into_values().flatten().collect(),
        unmuted,
        sight,
        owed: decision.owed,
        follow_ups: decision.follow_ups,
        fates: decision.fates,
        faults: decision.faults,
        matches: decision.matches,
        jobs,
    }
}

impl Plan {
    /// Takes the plan into a memory as a store would, when everything that is owed arrives at once.
    pub fn remember(&self, memory: &mut Memory) {
        let known = self.difference.changes.iter().map(|change| (change.known.job.id.clone(), change.known.clone()));
        memory.snapshot.jobs.extend(known);
        for alert in &self.alerts {
            let mut alert = alert.clone();
            alert.told.iter_mut().for_each(|told| told.delivered_at = told.delivered_at.or(Some(self.at)));
            memory.alerts.insert(alert.id.clone(), alert);
        }
        memory.muted.retain(|muted| {
            let key = muted.key();
            !self.unmuted.contains(&key) && !self.muted.iter().any(|newer| newer.key() == key)
        });
        memory.muted.extend(self.muted.iter().cloned());
        memory.recent.extend(self.difference.transitions().cloned());
        memory.sight = self.sight;
        if self.complete {
            memory.snapshot.complete_at = Some(self.at);
        }
    }
}

/// What is to be remembered of the source's visibility.
fn look(before: &Memory, fault: Option<&Fault>, vanished: u8, now: Timestamp) -> Sight {
    let was = before.sight;
    let blind_since = fault.map(|_| {
        // A time that lies ahead is from before the clock was set back: it counts from now.
        was.blind_since.or(before.snapshot.complete_at).unwrap_or(now).min(now)
    });
    Sight { blind_since, vanished, told_since: was.told_since }
}

/// A listing from which most jobs have vanished is not believed until the single-job calls have confirmed it often enough:
/// the fault of a listing is told as one, and not as so many deletions.
fn believe(before: &Memory, listing: Listing, points: &Points, policy: &Policy, living: usize) -> (Listing, u8) {
    let Some(absent) = vanished(&before.snapshot, &listing, policy, living) else { return (listing, 0) };
    let asked = points.values().filter(|point| !matches!(point, Point::Unknown)).count();
    let there = points.values().filter(|point| matches!(point, Point::Found(_))).count();
    let confirmed = asked > 0 && there == 0;
    let count = if confirmed { before.sight.vanished.saturating_add(1) } else { 0 };
    if confirmed && count >= VANISHED_BELIEVED {
        return (listing, count);
    }
    let asked = match (asked, there) {
        (0, _) => "the single-job call tells nothing about them".to_owned(),
        (asked, 0) => format!(
            "asked for one by one, {asked} of them are not there: believed after {VANISHED_BELIEVED} such listings"
        ),
        (asked, there) => format!("asked for one by one, {there} of {asked} are there"),
    };
    let text = format!("{absent} of {living} jobs are missing from the listing at once; {asked}");
    let Listing::Complete(mut rows) = listing else { return (listing, count) };
    // What the single-job call showed is true as well.
    rows.jobs.extend(points.values().filter_map(|point| match point {
        Point::Found(job) => Some(job.clone()),
        Point::NotFound | Point::Unknown => None,
    }));
    (Listing::Incomplete { rows, fault: Fault { kind: FaultKind::Vanished, text, retry_after: None } }, count)
}
