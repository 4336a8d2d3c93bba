//! One view of a receiver's health among all replicas: what each feels is added to what all know.
//!
//! While a receiver is well, nothing is written: a look that is made beside each claim finds nothing. When one replica has
//! found it to be away, all spare it, and over all of them one attempt at a time is made.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Lane;
use crate::model::delivery::{Claimed, Outcome};
use crate::model::name::DeliveryId;
use crate::model::time::Timestamp;
use crate::retry::Breaker;
use crate::store;
use crate::store::share::Health;

/// Attempts that were felt and not yet told; of more, the oldest are of no interest.
const FELT_MAX: usize = 64;
/// Others may say something at the same time, so often.
const OFFERS_MAX: u32 = 10;

/// What a lane has to agree on with others.
#[derive(Default)]
pub(super) struct Accord {
    /// What all said when it was last read.
    version: AtomicI64,
    felt: Mutex<VecDeque<Felt>>,
}

/// What an attempt said about the receiver's health.
struct Felt {
    delivery: DeliveryId,
    outcome: Outcome,
    at: Timestamp,
    chance: f64,
}

impl Lane {
    /// An attempt said something about the receiver's health, if it is not that all is well as before.
    pub(super) fn felt(&self, before: &Breaker, claimed: &Claimed, outcome: &Outcome, at: Timestamp, chance: f64) {
        let well = matches!(outcome, Outcome::Accepted { .. }) && *before == Breaker::default();
        if !self.shared.store.is_shared() || well {
            return;
        }
        let mut felt = self.accord.felt.lock().unwrap_or_else(PoisonError::into_inner);
        felt.push_back(Felt { delivery: claimed.frozen.id.clone(), outcome: outcome.clone(), at, chance });
        if felt.len() > FELT_MAX {
            felt.pop_front();
        }
    }

    /// Claims as much as all together may, and no more than is wanted. Nothing when the store did not answer.
    pub(super) async fn claim_in_accord(
        &self,
        wanted: usize,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<Vec<Claimed>> {
        let setup = self.setup();
        let version = self.accord.version.load(Ordering::SeqCst);
        let is_well = version == 0 && self.breaker().flows(setup.concurrency) && !self.has_felt();
        if is_well {
            // Mostly it stays so: what is claimed and what others say is asked for together.
            let (claimed, health) = tokio::join!(self.claim(wanted, now, until), self.shared.store.health(&self.name));
            let claimed = claimed?;
            match health {
                Ok(Some(Health { version: 0, .. }) | None) => return Some(claimed),
                Ok(Some(health)) => {
                    self.adopt(&health);
                    self.give_back(claimed).await;
                }
                Err(error) => {
                    self.failed("asking how a receiver fares", &error);
                    return Some(claimed);
                }
            }
        }
        if let Err(error) = self.agree().await {
            self.failed("agreeing on how a receiver fares", &error);
            return None;
        }
        let breaker = self.breaker().clone();
        if breaker.flows(setup.concurrency) {
            return self.claim(wanted, now, until).await;
        }
        let width = breaker.places(setup.concurrency, 0, now);
        if width == 0 || wanted == 0 {
            return Some(Vec::new());
        }
        let seen = self.accord.version.load(Ordering::SeqCst);
        let claimed = self.shared.store.claim_together(&self.name, now, until, width, seen).await;
        claimed.map_err(|error| self.failed("claiming deliveries", &error)).ok()
    }

    fn has_felt(&self) -> bool {
        !self.accord.felt.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn adopt(&self, health: &Health) {
        let breaker = health.state.as_deref().map(Breaker::read).unwrap_or_default();
        *self.breaker() = breaker;
        self.accord.version.store(health.version, Ordering::SeqCst);
    }

    /// Adds what was felt here to what all know.
    async fn agree(&self) -> Result<(), store::Error> {
        let Some(mut health) = self.shared.store.health(&self.name).await? else { return Ok(()) };
        let felt: Vec<Felt> = self.accord.felt.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for _ in 0..OFFERS_MAX {
            let known = health.state.as_deref().map(Breaker::read).unwrap_or_default();
            let ours = felt.iter().fold(known.clone(), |breaker, felt| {
                breaker.after(&felt.delivery, &felt.outcome, felt.at, felt.chance)
            });
            let ours = ours.settled(self.setup().concurrency);
            if ours == known {
                break;
            }
            let wish = ours.write();
            match self.shared.store.set_health(&self.name, health.version, wish.clone()).await {
                Ok(said) => health = said,
                Err(error) => {
                    self.feel_again(felt);
                    return Err(error);
                }
            }
            if health.state == wish {
                break;
            }
        }
        self.adopt(&health);
        Ok(())
    }

    /// What could not be told is told the next time.
    fn feel_again(&self, felt: Vec<Felt>) {
        let mut now = self.accord.felt.lock().unwrap_or_else(PoisonError::into_inner);
        felt.into_iter().rev().for_each(|felt| now.push_front(felt));
        now.truncate(FELT_MAX);
    }

    /// Says how the receiver fares, whatever others say.
    pub(super) async fn declare(&self, breaker: Breaker) {
        let said = async {
            let Some(health) = self.shared.store.health(&self.name).await? else { return Ok(()) };
            let health = self.shared.store.set_health(&self.name, health.version, breaker.write()).await?;
            self.adopt(&health);
            Ok(())
        };
        if let Err(error) = said.await {
            self.failed("saying how a receiver fares", &error);
        }
    }
}
