//! Carrying out follow-ups: claim what is due, ask whether it may be done, write that it is begun, do it, record and tell.
//!
//! At most once: that it is begun is written before the deed. What was begun and not recorded, because the agent was killed
//! in between, is told as what it is, and not done again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};

use super::dispatch::Shared;
use super::observer::Seen;
use super::pulse::Heart;
use super::shutdown::Shutdown;
use super::{FollowUpSetup, GRACE};
use crate::deliver::act::Done;
use crate::model::delivery::{Attempt, Claimed, Outcome, Verdict};
use crate::model::follow_up::{Ending, FollowUp, Report};
use crate::model::listing::Point;
use crate::model::name::{FollowUpName, JobId, SourceName};
use crate::model::time::Timestamp;
use crate::plan::{Plan, Ruling, moved, outcome, rule_on};
use crate::source::Source;
use crate::store::share::{Begun, Bounds};
use crate::store::{Errand, Record, Trouble};

/// The outbox is looked at this often without a nudge: somebody may have approved something.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A claim outlives the deed's timeout by this: what goes before and comes after it.
const CLAIM_MARGIN: Duration = Duration::from_secs(180);
/// Follow-ups of one name that are looked at together.
const CLAIMS_MAX: usize = 16;
/// A record that the store did not take is offered again this often before the claim is left to lapse.
const RECORD_TRIES: u32 = 5;
/// The pause before a store that failed is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Looking at a job takes no longer.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// A job that cannot be looked at is looked at again after this …
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// … and so often, before the follow-up is left.
const LOOKS_MAX: u32 = 120;
/// Later than any word that is waited for.
const NEVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Who carries out follow-ups.
pub(super) struct Performer {
    follow_ups: BTreeMap<FollowUpName, FollowUpSetup>,
    sources: HashMap<SourceName, Arc<dyn Source>>,
    shared: Arc<Shared>,
    wake: Notify,
}

impl fmt::Debug for Performer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Performer").field("follow_ups", &self.follow_ups).finish_non_exhaustive()
    }
}

/// How the task of a deed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is settled, or somebody else's.
    Over,
    /// Another replica is at one like it: looking again at once would find the same.
    PutOff,
}

/// Deeds under way: of which follow-up, on which resource.
#[derive(Default)]
struct Flight {
    tasks: JoinSet<End>,
    deeds: HashMap<Id, (FollowUpName, String)>,
}

impl Flight {
    /// Waits until a deed is over, and others may have their turn: `false` when none is under way any more.
    async fn over(&mut self) -> bool {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (id, end) = ended.unwrap_or_else(|error| (error.id(), End::Over));
            self.deeds.remove(&id);
            if end == End::Over {
                return true;
            }
        }
        false
    }

    /// Whether another one of the same name, or on the same resource, is under way.
    fn is_busy(&self, follow_up: &FollowUp) -> bool {
        let resource = follow_up.resource();
        self.deeds.values().any(|(name, busy)| *name == follow_up.name || *busy == resource)
    }
}

impl Performer {
    pub(super) fn new(
        follow_ups: BTreeMap<FollowUpName, FollowUpSetup>,
        sources: HashMap<SourceName, Arc<dyn Source>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { follow_ups, sources, shared, wake: Notify::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.follow_ups.is_empty()
    }

    /// What a plan asks for, each with its time.
    pub(super) fn errands(&self, plan: &Plan) -> Vec<Errand> {
        let errand = |follow_up: &FollowUp| {
            let setup = self.follow_ups.get(&follow_up.name)?;
            Some(Errand { follow_up: follow_up.clone(), at: plan.at, due_at: plan.at.plus(setup.guard.wait) })
        };
        plan.follow_ups.iter().filter_map(errand).collect()
    }

    /// Something may be due.
    pub(super) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Performs until the agent stops; then waits for what is under way, and ends what does not end.
    pub(super) async fn run(self: Arc<Self>, shutdown: Shutdown, heart: Heart) {
        let mut flight = Flight::default();
        while !shutdown.is_requested() {
            heart.beat(LOOK_EVERY + STORE_PAUSE);
            self.launch(&mut flight).await;
            tokio::select! {
                true = flight.over() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.requested() => {}
            }
        }
        heart.beat(GRACE);
        let ending = async { while flight.tasks.join_next().await.is_some() {} };
        // What is cut off here was begun, and is told of after the next start.
        drop(tokio::time::timeout(GRACE, ending).await);
    }

    /// Does what is due now and comes back when nothing more is.
    pub(super) async fn turn(self: &Arc<Self>) {
        let mut flight = Flight::default();
        self.launch(&mut flight).await;
        while flight.over().await {
            self.launch(&mut flight).await;
        }
    }

    /// Begins whatever may be begun now.
    async fn launch(self: &Arc<Self>, flight: &mut Flight) {
        for (name, setup) in &self.follow_ups {
            let now = self.shared.clock.now();
            let until = now.plus(setup.timeout).plus(CLAIM_MARGIN);
            let claims = self.shared.store.claim(&FollowUp::receiver(name), now, until, CLAIMS_MAX).await;
            let claims = claims.unwrap_or_else(|error| {
                self.shared.observer.see(&Seen::StoreFailed { doing: "claiming follow-ups", error: &error });
                Vec::new()
            });
            for claimed in claims {
                self.consider(setup, claimed, flight, now).await;
            }
        }
    }

    /// Decides about one whose turn it is.
    async fn consider(self: &Arc<Self>, setup: &FollowUpSetup, claimed: Claimed, flight: &mut Flight, now: Timestamp) {
        let Some(follow_up) = FollowUp::read(&claimed.frozen.id, &claimed.frozen.payload) else {
            self.lose(claimed, now).await;
            return;
        };
        let since = now.minus(setup.guard.limit.per);
        let standing = match self.shared.store.standing(follow_up.clone(), since).await {
            Ok(Some(standing)) => standing,
            Ok(None) => {
                self.lose(claimed, now).await;
                return;
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "looking at a follow-up", error: &error });
                self.give_back(claimed).await;
                return;
            }
        };
        let intent = setup.deed.intent(&follow_up);
        let busy = flight.is_busy(&follow_up);
        let end = match (rule_on(&setup.guard, &follow_up, &standing, busy), intent) {
            (Ruling::Wait, _) => {
                self.give_back(claimed).await;
                return;
            }
            (Ruling::Act, Ok(intent)) => {
                let deed = (follow_up.name.clone(), follow_up.resource());
                // Somebody's word stands above the limit.
                let limit = standing.consent.map_or(setup.guard.limit.count, |_| usize::MAX);
                let task = flight.tasks.spawn(Arc::clone(self).act(setup.clone(), claimed, follow_up, intent, limit));
                flight.deeds.insert(task.id(), deed);
                return;
            }
            (Ruling::Rehearse, Ok(intent)) => {
                (Ending::DryRun, format!("Would {intent}. Nothing was done: its mode is `dry_run`."))
            }
            (Ruling::Ask(why), Ok(intent)) => (Ending::Waiting, format!("Would {intent}; it waits for a word: {why}.")),
            (Ruling::Leave(why), _) | (Ruling::Act | Ruling::Rehearse | Ruling::Ask(_), Err(why)) => {
                (Ending::NotDone, format!("Nothing was done: {why}."))
            }
            (Ruling::Interrupted, intent) => {
                let what = intent.unwrap_or_else(|_| "do it".into());
                let text = format!(
                    "The agent ended after it had begun to {what}. Whether it was done is not known; it is not tried again."
                );
                (Ending::Unknown, text)
            }
        };
        let (ending, what) = end;
        let done = Done { ending, what, code: None, output: String::new() };
        self.finish(claimed, &follow_up, done, now).await;
    }

    /// Does it: the job is looked at once more, that it is begun is written, and then it is done.
    async fn act(
        self: Arc<Self>,
        setup: FollowUpSetup,
        claimed: Claimed,
        follow_up: FollowUp,
        intent: String,
        limit: usize,
    ) -> End {
        let at = self.shared.clock.now();
        let topic = &follow_up.topic;
        let source = self.sources.get(&topic.source.name);
        if setup.deed.touches_cloud() {
            let why = match source {
                None => Some("its source is no longer in the configuration".to_owned()),
                Some(source) => match look(&**source, &topic.transition.job.id).await {
                    Point::Found(job) => moved(&topic.transition.to, Some((&job.status, false))),
                    Point::NotFound => moved(&topic.transition.to, None),
                    Point::Unknown if claimed.tries < LOOKS_MAX => {
                        self.postpone(claimed, at).await;
                        return End::Over;
                    }
                    Point::Unknown => Some("its job could not be looked at".to_owned()),
                },
            };
            if let Some(why) = why {
                let what = format!("Nothing was done: {why}.");
                let done = Done { ending: Ending::NotDone, what, code: None, output: String::new() };
                self.finish(claimed, &follow_up, done, at).await;
                return End::Over;
            }
        }
        let now = self.shared.clock.now();
        let since = now.minus(setup.guard.limit.per);
        let bounds = Bounds { resource: follow_up.resource(), since, limit, now };
        match self.shared.store.begin(claimed.clone(), bounds).await {
            Ok(Begun::Yes) => {}
            // Somebody else has it.
            Ok(Begun::No) => return End::Over,
            // Another replica is at one like it.
            Ok(Begun::Later) => {
                self.give_back(claimed).await;
                return End::PutOff;
            }
            Err(error) => {
                self.shared.observer.see(&Seen::StoreFailed { doing: "beginning a follow-up", error: &error });
                // It may have been written: what becomes of it is decided at the next look.
                self.give_back(claimed).await;
                return End::PutOff;
            }
        }
        let mut done = setup.deed.perform(&follow_up, source.and_then(|source| source.project())).await;
        done.what = format!("{}: {}.", sentence(&intent), done.what.trim_end_matches('.'));
        self.finish(claimed, &follow_up, done, at).await;
        End::Over
    }

    /// Records what came of it, and tells whoever heard of the match.
    async fn finish(&self, claimed: Claimed, follow_up: &FollowUp, done: Done, at: Timestamp) {
        let now = self.shared.clock.now();
        let Done { ending, what, code, output } = done;
        let detail = match output.trim().is_empty() {
            true => what.clone(),
            false => format!("{what}\n{output}"),
        };
        let (answer, verdict) = match ending {
            Ending::Done | Ending::DryRun => (Outcome::Accepted { note: detail }, Verdict::Delivered),
            Ending::Failed | Ending::NotDone | Ending::Unknown => (Outcome::Refused { why: detail }, Verdict::Dead),
            Ending::Waiting => {
                (Outcome::Unreachable { why: detail, retry_after: None }, Verdict::RetryAt(now.plus(NEVER)))
            }
        };
        let output = (!output.trim().is_empty()).then_some(output);
        let report =
            Report { id: follow_up.id.clone(), name: follow_up.name.clone(), outcome: ending, what, code, output };
        let owed = outcome(follow_up, &report, now);
        let deliveries = self.shared.freeze(&owed, now);
        let attempt = Attempt { at, took: now.since(at), outcome: answer, progress: Vec::new() };
        let asks = ending == Ending::Waiting;
        let record = Record { claimed, attempt, verdict, trouble: Trouble::default(), deliveries, asks };
        if self.record(record).await {
            self.shared.observer.see(&Seen::FollowedUp { follow_up, report: &report });
            owed.iter().for_each(|owed| self.shared.nudges.nudge(&owed.receiver));
        }
    }

    async fn record(&self, record: Record) -> bool {
        for offer in 1..=RECORD_TRIES {
            match self.shared.store.record(vec![record.clone()]).await {
                Ok(kept) => return kept.first() == Some(&true),
                Err(error) => {
                    self.shared.observer.see(&Seen::StoreFailed { doing: "recording a follow-up", error: &error });
                    if offer < RECORD_TRIES {
                        tokio::time::sleep(STORE_PAUSE).await;
                    }
                }
            }
        }
        false
    }

    /// The job cannot be looked at for the moment.
    async fn postpone(&self, claimed: Claimed, at: Timestamp) {
        let now = self.shared.clock.now();
        let why = "the job could not be looked at: nothing is done until it can be".to_owned();
        let outcome = Outcome::Unreachable { why, retry_after: None };
        let attempt = Attempt { at, took: now.since(at), outcome, progress: Vec::new() };
        let verdict = Verdict::RetryAt(now.plus(LOOK_AGAIN));
        let record = Record { claimed, attempt, verdict, trouble: Trouble::default(), deliveries: vec![], asks: false };
        self.record(record).await;
    }

    /// What cannot be read cannot be done.
    async fn lose(&self, claimed: Claimed, at: Timestamp) {
        let outcome = Outcome::Refused { why: "what was to be done cannot be read".into() };
        let attempt = Attempt { at, took: Duration::ZERO, outcome, progress: Vec::new() };
        let (verdict, trouble) = (Verdict::Dead, Trouble::default());
        self.record(Record { claimed, attempt, verdict, trouble, deliveries: vec![], asks: false }).await;
    }

    async fn give_back(&self, claimed: Claimed) {
        if let Err(error) = self.shared.store.release(vec![claimed]).await {
            self.shared.observer.see(&Seen::StoreFailed { doing: "returning a follow-up", error: &error });
        }
    }
}

/// A job as it is now.
async fn look(source: &dyn Source, id: &JobId) -> Point {
    tokio::time::timeout(LOOK_MAX, source.show(id)).await.unwrap_or(Point::Unknown)
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
