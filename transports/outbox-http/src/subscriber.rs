//! The receiving half: requests that wait for an ack decision, as deliveries.

use async_trait::async_trait;
use outbox_core::{
    event::Message,
    transport::{AckHandle, Acknowledge, Delivery, SubscribeError, Subscriber},
};
use std::time::Instant;
use tokio::sync::mpsc;

/// A message whose sender waits for the response.
pub(crate) struct PendingRequest {
    pub(crate) message: Message,
    pub(crate) ack: AckHandle,
    pub(crate) received_at: Instant,
    pub(crate) deadline: Instant,
}

/// Gives the messages that a [`HttpReceiver`](crate::HttpReceiver)'s router accepted.
///
/// The sender of each waits for the response: `ack` becomes 204, `nack` 503, `reject` 422, a
/// delivery that is dropped 503. When the subscriber is dropped, the receiver responds with 503 to
/// every pending and every later request.
///
/// ```
/// # use outbox_core::transport::{SubscribeError, Subscriber};
/// # use outbox_http::HttpSubscriber;
/// # async fn example(mut subscriber: HttpSubscriber) -> Result<(), SubscribeError> {
/// while let Some(delivery) = subscriber.next().await? {
///     delivery.ack().await?; // the sender gets 204; a consumer does this after its commit
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct HttpSubscriber(pub(crate) mpsc::Receiver<PendingRequest>);

impl HttpSubscriber {
    /// Stops receiving: the receiver responds with 503 to every later request. `next` still gives
    /// the pending ones and then `None`.
    pub fn stop(&mut self) {
        self.0.close();
    }
}

#[async_trait]
impl Subscriber for HttpSubscriber {
    async fn next(&mut self) -> Result<Option<Delivery>, SubscribeError> {
        while let Some(request) = self.0.recv().await {
            let PendingRequest { message, ack, received_at, deadline } = request;
            // A sender that stopped waiting sends the message again; handling it now would handle
            // it twice.
            if !ack.is_given_up() {
                let delivery = Delivery::new(Ok(message), None, Box::new(ack));
                return Ok(Some(
                    delivery.that_comes_back_in_order().awaited(received_at, deadline),
                ));
            }
        }
        Ok(None)
    }

    fn system(&self) -> &'static str {
        "http"
    }
}
