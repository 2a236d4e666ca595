//! The faulty network between the services.

use async_trait::async_trait;
use outbox_amqp::AmqpPublisher;
use outbox_sea_orm::{
    event::Message,
    transport::{Limits, PublishError, Publisher, Receipt},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A publisher that loses, delays and repeats messages, by a seed; later messages overtake delayed
/// ones.
pub(crate) struct Disturbed {
    to: Arc<AmqpPublisher>,
    chance: Mutex<fastrand::Rng>,
}

impl Disturbed {
    pub(crate) fn new(to: AmqpPublisher, seed: u64) -> Self {
        Self { to: Arc::new(to), chance: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }
}

#[async_trait]
impl Publisher for Disturbed {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let (fate, delay) = {
            let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
            (chance.u8(..100), Duration::from_millis(chance.u64(..1_500)))
        };
        match fate {
            0..6 => Ok(Receipt::new()),
            6..16 => {
                let (to, message) = (Arc::clone(&self.to), message.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    drop(to.publish(&message).await);
                });
                Ok(Receipt::new())
            }
            16..26 => {
                self.to.publish(message).await?;
                self.to.publish(message).await
            }
            _ => self.to.publish(message).await,
        }
    }

    fn limits(&self) -> Limits {
        self.to.limits()
    }
}
