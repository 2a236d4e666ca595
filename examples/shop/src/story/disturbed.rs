//! A publisher that suffers the fault that is on: Kafka's clients connect to the addresses that the brokers themselves tell, so
//! that nothing can stand between the two on the network.

use super::faults::{Fault, Faults};
use async_trait::async_trait;
use outbox_sea_orm::{
    event::Message,
    transport::{Limits, PublishError, Publisher, Receipt},
};
use std::time::Duration;
use tokio::time::sleep;

/// A publisher that suffers.
pub struct Disturbed<P> {
    to: P,
    faults: Faults,
    timeout: Duration,
}

impl<P> Disturbed<P> {
    /// Puts faults before a publisher that waits so long for a confirmation.
    pub fn new(to: P, faults: Faults, timeout: Duration) -> Self {
        Self { to, faults, timeout }
    }
}

#[async_trait]
impl<P: Publisher> Publisher for Disturbed<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let mut verdicts = self.publish_batch(std::slice::from_ref(message)).await;
        verdicts.pop().unwrap_or_else(|| Err(PublishError::transient("no verdict")))
    }

    async fn publish_batch(&self, messages: &[Message]) -> Vec<Result<Receipt, PublishError>> {
        let all = |error: fn(&'static str) -> PublishError, text| messages.iter().map(|_| Err(error(text))).collect();
        let late = |text| all(PublishError::transient, text);
        match self.faults.now() {
            None => self.to.publish_batch(messages).await,
            Some(Fault::Refuses) => late("refused"),
            Some(Fault::Vanished) => all(PublishError::unavailable, "no broker answers"),
            Some(Fault::Silent) => {
                sleep(self.timeout).await;
                late("not confirmed in time")
            }
            Some(Fault::AnswerLost) => {
                let verdicts = self.to.publish_batch(messages).await;
                self.faults.count_untold(verdicts.iter().filter(|verdict| verdict.is_ok()).count() as u64);
                sleep(self.timeout).await;
                late("not confirmed in time")
            }
        }
    }

    fn limits(&self) -> Limits {
        self.to.limits()
    }

    fn check(&self) -> Result<(), PublishError> {
        self.to.check()
    }
}
