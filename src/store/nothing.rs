//! A store that knows nothing: for rehearsals before there is a state. It refuses to keep anything.

use std::sync::Arc;

use async_trait::async_trait;

use super::glance::{Glance, Look};
use super::share::{Begun, Bounds};
use super::view::{
    AlertFilter, AlertKey, AlertView, JobFilter, JobKey, JobView, NumberKey, OutboxView, Page, SourceFilter, SourceKey,
    SourceView, TransitionFilter, TransitionView,
};
use super::{
    Again, Answer, Commit, Delivery, Dossier, Dropped, Error, Filter, Finding, Gathered, Gauges, Lapse, Lapsed, PaceOf,
    Past, Prune, Pruned, Pruning, Record, Request, Room, Span, Store, Told, Trouble, Turns, Wanted,
};
use crate::model::alert::{Fate, Silence};
use crate::model::delivery::{Claimed, Held};
use crate::model::follow_up::{Consent, FollowUp, Listed, Standing};
use crate::model::index::Index;
use crate::model::memory::{Memory, Pacing, Sight};
use crate::model::name::{AlertId, DeliveryId, JobId, ReceiverName, SourceName};
use crate::model::time::Timestamp;
use crate::model::transition::Transition;

#[derive(Debug)]
pub(super) struct Nothing;

fn refuse<T>() -> Result<T, Error> {
    Err(Error::Failed("a rehearsal keeps nothing".into()))
}

#[async_trait]
impl Store for Nothing {
    async fn load(&self, _: &SourceName, _: Wanted) -> Result<Memory, Error> {
        Ok(Memory::default())
    }

    async fn index(&self, _: &SourceName) -> Result<(Index, bool), Error> {
        Ok((Index::default(), false))
    }

    async fn sights(&self) -> Result<Vec<(SourceName, Sight)>, Error> {
        Ok(Vec::new())
    }

    async fn glance(&self, _: Look) -> Result<Glance, Error> {
        Ok(Glance::default())
    }

    async fn tell(&self, _: Told) -> Result<(), Error> {
        refuse()
    }

    async fn commit(&self, _: Commit) -> Result<usize, Error> {
        refuse()
    }

    async fn claim(&self, _: &ReceiverName, _: Timestamp, _: Timestamp, _: usize) -> Result<Vec<Claimed>, Error> {
        Ok(Vec::new())
    }

    async fn record(&self, _: Vec<Record>) -> Result<Vec<bool>, Error> {
        refuse()
    }

    async fn escalate(&self, _: &ReceiverName, _: Timestamp) -> Result<Vec<ReceiverName>, Error> {
        Ok(Vec::new())
    }

    async fn next_escalation(&self, _: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }

    async fn overdue(&self, _: &ReceiverName, _: Timestamp, _: Timestamp) -> Result<Option<Delivery>, Error> {
        Ok(None)
    }

    async fn lapse(&self, _: Lapse) -> Result<Lapsed, Error> {
        Ok(Lapsed::default())
    }

    async fn reopen(&self, _: &ReceiverName, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn release(&self, _: Vec<Claimed>) -> Result<(), Error> {
        Ok(())
    }

    async fn next_due(&self, _: &ReceiverName) -> Result<Option<Timestamp>, Error> {
        Ok(None)
    }

    async fn trouble(&self, _: &ReceiverName) -> Result<Trouble, Error> {
        Ok(Trouble::default())
    }

    async fn waiting(&self) -> Result<Vec<(ReceiverName, usize)>, Error> {
        Ok(Vec::new())
    }

    async fn sources(&self, _: SourceFilter) -> Result<Page<SourceView, SourceKey>, Error> {
        Ok(Page::default())
    }

    async fn jobs(&self, _: JobFilter) -> Result<Page<JobView, JobKey>, Error> {
        Ok(Page::default())
    }

    async fn transitions(&self, _: TransitionFilter) -> Result<Page<TransitionView, NumberKey>, Error> {
        Ok(Page::default())
    }

    async fn transitions_after(&self, _: TransitionFilter, mark: i64) -> Result<(Vec<TransitionView>, i64), Error> {
        Ok((Vec::new(), mark))
    }

    async fn alerts(&self, _: AlertFilter) -> Result<Page<AlertView, AlertKey>, Error> {
        Ok(Page::default())
    }

    async fn alert(&self, _: &AlertId) -> Result<Option<AlertView>, Error> {
        Ok(None)
    }

    async fn deliveries(&self, _: Filter) -> Result<Page<Delivery, NumberKey>, Error> {
        Ok(Page::default())
    }

    async fn deliveries_after(&self, _: Filter, mark: i64) -> Result<(Vec<Delivery>, i64), Error> {
        Ok((Vec::new(), mark))
    }

    async fn delivery(&self, _: &DeliveryId) -> Result<Option<Delivery>, Error> {
        Ok(None)
    }

    async fn marks(&self) -> Result<(i64, i64), Error> {
        Ok((0, 0))
    }

    async fn outbox(&self) -> Result<Vec<OutboxView>, Error> {
        Ok(Vec::new())
    }

    async fn dossier(&self, _: &DeliveryId) -> Result<Option<Dossier>, Error> {
        Ok(None)
    }

    async fn gauges(&self, _: Vec<SourceName>) -> Result<Gauges, Error> {
        Ok(Gauges::default())
    }

    async fn pacing(&self, _: Vec<PaceOf>, _: Timestamp) -> Result<Pacing, Error> {
        Ok(Pacing::default())
    }

    async fn held(&self, _: &ReceiverName, _: Timestamp, _: usize, _: usize) -> Result<Vec<(i64, Held)>, Error> {
        Ok(Vec::new())
    }

    async fn holding(&self, _: Timestamp) -> Result<Vec<(ReceiverName, Timestamp)>, Error> {
        Ok(Vec::new())
    }

    async fn gathered(&self, _: Vec<Gathered>, _: Turns, _: Timestamp) -> Result<(), Error> {
        refuse()
    }

    async fn silences(&self, _: Timestamp) -> Result<Vec<Silence>, Error> {
        Ok(Vec::new())
    }

    async fn silence(&self, _: Silence) -> Result<(), Error> {
        refuse()
    }

    async fn findings(&self, _: usize) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }

    async fn find(&self, _: &str, _: usize) -> Result<Vec<(SourceName, JobId)>, Error> {
        Ok(Vec::new())
    }

    async fn past(&self, _: &SourceName, _: &JobId) -> Result<Past, Error> {
        Ok(Past::default())
    }

    async fn history(&self, _: Span) -> Result<Vec<Arc<Transition>>, Error> {
        Ok(Vec::new())
    }

    async fn fates(&self, _: Span) -> Result<Vec<(Fate, Timestamp, Option<String>)>, Error> {
        Ok(Vec::new())
    }

    async fn ask(&self, _: &str, _: Timestamp) -> Result<i64, Error> {
        refuse()
    }

    async fn requests(&self, _: Timestamp) -> Result<Vec<Request>, Error> {
        Ok(Vec::new())
    }

    async fn answer(&self, _: i64, _: Answer, _: Timestamp) -> Result<(), Error> {
        refuse()
    }

    async fn answered(&self, _: i64) -> Result<Option<Answer>, Error> {
        Ok(None)
    }

    async fn troubles(&self) -> Result<Vec<(ReceiverName, Trouble)>, Error> {
        Ok(Vec::new())
    }

    async fn end(&self, _: Vec<DeliveryId>, _: &str, _: Timestamp) -> Result<Vec<Dropped>, Error> {
        refuse()
    }

    async fn standing(&self, _: FollowUp, _: Timestamp) -> Result<Option<Standing>, Error> {
        Ok(None)
    }

    async fn begin(&self, _: Claimed, _: Bounds) -> Result<Begun, Error> {
        refuse()
    }

    async fn consent(&self, _: &DeliveryId, _: Consent, _: Timestamp) -> Result<bool, Error> {
        refuse()
    }

    async fn follow_ups(&self, _: usize) -> Result<Vec<Listed>, Error> {
        Ok(Vec::new())
    }

    async fn prune(&self, _: Prune) -> Result<Pruned, Error> {
        Ok(Pruned::default())
    }

    async fn room(&self) -> Result<Room, Error> {
        Ok(Room::default())
    }

    async fn reclaim(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn pruning(&self) -> Result<Option<Pruning>, Error> {
        Ok(None)
    }

    async fn pruned(&self, _: Pruning) -> Result<(), Error> {
        refuse()
    }

    async fn again(&self, _: Again, _: Timestamp) -> Result<Vec<DeliveryId>, Error> {
        refuse()
    }
}
