//! A store that knows nothing: for rehearsals before there is a state. It refuses to keep anything.

use async_trait::async_trait;

use super::{Again, Commit, Delivery, Dossier, Error, Filter, Record, Store, Told, Trouble, Wanted};
use crate::model::delivery::Claimed;
use crate::model::index::Index;
use crate::model::memory::{Memory, Sight};
use crate::model::name::{DeliveryId, ReceiverName, SourceName};
use crate::model::time::Timestamp;

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

    async fn tell(&self, _: Told) -> Result<(), Error> {
        refuse()
    }

    async fn commit(&self, _: Commit) -> Result<usize, Error> {
        refuse()
    }

    async fn claim(&self, _: &ReceiverName, _: Timestamp, _: Timestamp, _: usize) -> Result<Vec<Claimed>, Error> {
        Ok(Vec::new())
    }

    async fn record(&self, _: Record) -> Result<bool, Error> {
        refuse()
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

    async fn deliveries(&self, _: Filter) -> Result<Vec<Delivery>, Error> {
        Ok(Vec::new())
    }

    async fn dossier(&self, _: &DeliveryId) -> Result<Option<Dossier>, Error> {
        Ok(None)
    }

    async fn again(&self, _: Again, _: Timestamp) -> Result<Vec<DeliveryId>, Error> {
        refuse()
    }
}
