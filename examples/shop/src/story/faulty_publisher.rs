//! A publisher that injects the fault that is on. Clients of Kafka and NATS connect to the addresses
//! that the servers advertise, so a proxy on the network would be passed by.

use super::faults::{Fault, Faults};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    transport::{Batch, Limits, PublishError, Publisher, Receipt, publish_all},
};
use std::time::Duration;
use tokio::time::sleep;

/// A publisher with the fault that is on.
pub struct FaultyPublisher<P> {
    to: P,
    faults: Faults,
    timeout: Duration,
}

impl<P> FaultyPublisher<P> {
    /// Injects faults into a publisher that waits so long for a confirmation.
    pub fn new(to: P, faults: Faults, timeout: Duration) -> Self {
        Self { to, faults, timeout }
    }
}

#[async_trait]
impl<P: Publisher> Publisher for FaultyPublisher<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let mut outcomes = publish_all(self, std::slice::from_ref(message)).await;
        outcomes.pop().unwrap_or_else(|| Err(PublishError::transient("no outcome")))
    }

    async fn publish_batch(&self, batch: &mut Batch) {
        match self.faults.now() {
            None => self.to.publish_batch(batch).await,
            Some(Fault::Refuses) => batch.rest(|| Err(PublishError::transient("refused"))),
            Some(Fault::Vanished) => {
                batch.rest(|| Err(PublishError::unavailable("no broker answers")))
            }
            Some(Fault::Silent) => {
                sleep(self.timeout).await;
                batch.rest(|| Err(PublishError::transient("not confirmed in time")));
            }
            Some(Fault::AnswerLost) => {
                let outcomes = publish_all(&self.to, &batch.messages()).await;
                self.faults.count_unconfirmed(
                    outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64,
                );
                sleep(self.timeout).await;
                batch.rest(|| Err(PublishError::transient("not confirmed in time")));
            }
        }
    }

    fn limits(&self) -> Limits {
        self.to.limits()
    }

    fn timeout(&self) -> Option<Duration> {
        self.to.timeout()
    }

    fn check(&self) -> Result<(), PublishError> {
        self.to.check()
    }

    fn destination(&self) -> Option<String> {
        self.to.destination()
    }
}
