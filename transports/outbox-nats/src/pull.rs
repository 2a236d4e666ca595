//! A pull subscription: a task that requests messages as there is room for them, keeps those that
//! have no ack decision yet from being delivered again, and notices when the server or the consumer
//! is gone.
//!
//! # Source
//! NATS architecture decision record 13, pull subscribe internals: the request and the statuses with
//! which the server ends it.

use crate::{classify::Failure, connection::NatsConnection};
use async_nats::{
    Message, StatusCode, Subject,
    jetstream::{self, AckKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::join_all};
use outbox_core::{
    runtime::now,
    transport::{Acknowledge, SubscribeError, one_line},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::unconstrained,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

/// How long the server keeps one request for messages; the task then sends the next one.
const REQUEST_EXPIRES: Duration = Duration::from_secs(30);
/// Time between two idle heartbeats of a request that has no messages.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);
/// How long the server may be silent during a request: two heartbeats, and what a busy machine
/// needs.
const SILENT_FOR: Duration = Duration::from_secs(11);
/// Signs of life in the time after which the server delivers a message again: two may be lost.
const SIGNS_OF_LIFE: u32 = 3;
/// Least time between two of them, whatever the consumer's settings are.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// How long a subscription that ends waits for a message that the server may have sent already.
const ON_THE_WAY: Duration = Duration::from_millis(20);

/// Which delivery: its position in the stream, and how often the server has delivered it.
type DeliveryId = (u64, u32);

/// The deliveries without an ack decision, each with the subject that takes it.
#[derive(Default)]
pub(crate) struct Unacked {
    book: Mutex<Book>,
    /// Signalled when one is removed or dropped.
    changed: Notify,
}

#[derive(Default)]
struct Book {
    replies: BTreeMap<DeliveryId, Subject>,
    /// Deliveries that were dropped, for the subscription's task to return.
    dropped: Vec<DeliveryId>,
    /// Whether that task has ended.
    is_over: bool,
}

impl Unacked {
    fn locked(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: DeliveryId, reply: Subject) {
        self.locked().replies.insert(id, reply);
    }

    fn remove(&self, id: DeliveryId) {
        self.locked().replies.remove(&id);
        self.changed.notify_one();
    }

    /// Notes that a delivery was dropped. Gives its subject where the task has ended, and the caller
    /// returns it.
    fn drop_delivery(&self, id: DeliveryId) -> Option<Subject> {
        let mut book = self.locked();
        if book.is_over {
            return book.replies.remove(&id);
        }
        book.dropped.push(id);
        self.changed.notify_one();
        None
    }

    /// Notes that the task ends: later drops return their deliveries themselves.
    fn end(&self) {
        self.locked().is_over = true;
    }

    /// Takes the subjects of dropped deliveries, in the order of the stream.
    fn take_dropped(&self) -> Vec<Subject> {
        let mut book = self.locked();
        let mut dropped = std::mem::take(&mut book.dropped);
        dropped.sort_unstable();
        dropped.iter().filter_map(|id| book.replies.remove(id)).collect()
    }

    fn len(&self) -> usize {
        self.locked().replies.len()
    }

    /// Gives all subjects, in the order of the stream.
    fn replies(&self) -> Vec<Subject> {
        self.locked().replies.values().cloned().collect()
    }

    /// Takes all subjects, in the order of the stream: after the end of their connection.
    pub(crate) fn take(&self) -> Vec<Subject> {
        std::mem::take(&mut self.locked().replies).into_values().collect()
    }
}

/// A delivery as it came, with the handle that takes its ack decision.
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) attempt: u32,
    pub(crate) handle: AckHandle,
}

/// Makes deliveries of the messages that come.
pub(crate) struct Intake {
    pub(crate) connection: Arc<NatsConnection>,
    pub(crate) unacked: Arc<Unacked>,
    pub(crate) nack_delay: Option<Duration>,
}

impl Intake {
    /// Makes a delivery; `None` for a message that another client has sent to the inbox.
    fn received(&self, message: Message) -> Option<Received> {
        let reply = message.reply.clone()?;
        let context = self.connection.context.clone();
        let delivered = jetstream::Message { message, context };
        let (sequence, attempt) = {
            let info = delivered.info().ok()?;
            (info.stream_sequence, u32::try_from(info.delivered).ok()?)
        };
        let id = (sequence, attempt);
        self.unacked.add(id, reply.clone());
        let handle = AckHandle {
            id,
            reply,
            connection: self.connection.clone(),
            unacked: self.unacked.clone(),
            nack_delay: self.nack_delay,
            is_decided: false,
        };
        Some(Received { message: delivered.message, attempt, handle })
    }
}

/// A subscription's task. It ends when the other end of `stopped` is dropped, or with a failure,
/// which is its last item.
pub(crate) struct Pull {
    pub(crate) intake: Intake,
    /// The subject of requests for messages.
    pub(crate) requests: String,
    /// The subject to which the server delivers.
    pub(crate) inbox: String,
    pub(crate) subscription: async_nats::Subscriber,
    pub(crate) deliveries: mpsc::UnboundedSender<Result<Received, Failure>>,
    /// Gives the deliveries that were not given out when the subscriber is gone.
    pub(crate) stopped: oneshot::Receiver<Vec<Received>>,
    /// Most messages without an ack decision.
    pub(crate) prefetch: usize,
    pub(crate) ack_wait: Duration,
    /// How many messages the server may still send for the last request.
    pub(crate) requested: usize,
}

impl Pull {
    pub(crate) async fn run(mut self) {
        let ended = self.receive().await;
        let connection = self.intake.connection.clone();
        match ended {
            Ok(rest) => {
                // Where the connection is lost or silent, the server delivers them again.
                let _ = connection.request("ended no subscription", self.end(rest)).await;
            }
            // The subscriber may be gone too.
            Err(failure) => drop(self.deliveries.send(Err(failure))),
        }
        self.intake.unacked.end();
        // The next subscription returns what is left of a lost connection.
        if !connection.is_lost() {
            let _ = return_all(&connection, &self.intake.unacked.take_dropped()).await;
        }
    }

    /// Ends the subscription. What was not given out, and what the server has sent already, is
    /// returned then: at once instead of after the ack wait.
    async fn end(&mut self, mut rest: Vec<Received>) -> Result<(), async_nats::SubscribeError> {
        while self.requested > 0 {
            let Ok(Some(message)) = timeout(ON_THE_WAY, self.subscription.next()).await else {
                break;
            };
            self.requested = self.requested.saturating_sub(1);
            rest.extend(self.intake.received(message));
        }
        // It fails where the connection is lost.
        let _ = self.subscription.drain().await;
        while let Some(message) = self.subscription.next().await {
            rest.extend(self.intake.received(message));
        }
        // The server still has the request, and nobody to answer it. nats-server 2.9 looks for a
        // request with a receiver only after it has taken a message to deliver again, and forgets
        // that message until its ack wait is over where it finds none. One more request, which ends
        // soon, makes it clear the former one away before anything is returned.
        let client = self.intake.connection.client.clone();
        self.inbox = client.new_inbox();
        self.subscription = client.subscribe(self.inbox.clone()).await?;
        if self.request(1, ON_THE_WAY, None).await.is_ok()
            && let Some(message) = self.subscription.next().await
        {
            rest.extend(self.intake.received(message));
        }
        Ok(())
    }

    /// Receives until the subscriber is gone, and gives what it has left, or until something fails.
    async fn receive(&mut self) -> Result<Vec<Received>, Failure> {
        let mut signs = interval((self.ack_wait / SIGNS_OF_LIFE).max(SHORTEST_INTERVAL));
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = deadline();
        loop {
            let room = self.prefetch.saturating_sub(self.intake.unacked.len());
            if self.requested == 0 && room > 0 {
                self.request(room, REQUEST_EXPIRES, Some(IDLE_HEARTBEAT)).await?;
                (self.requested, silent_until) = (room, deadline());
            }
            tokio::select! {
                rest = &mut self.stopped => return Ok(rest.unwrap_or_default()),
                failure = self.intake.connection.lost() => return Err(failure),
                message = self.subscription.next() => {
                    let message = message.ok_or_else(|| Failure::lost(None))?;
                    silent_until = deadline();
                    match Status::of(&message) {
                        Status::Message => {
                            self.requested = self.requested.saturating_sub(1);
                            self.deliver(message);
                        }
                        Status::Heartbeat => {}
                        Status::Ended => self.requested = 0,
                        Status::Lost(text) => return Err(Failure::unavailable(text)),
                    }
                }
                () = self.intake.unacked.changed.notified() => {
                    let dropped = self.intake.unacked.take_dropped();
                    send(&self.intake.connection, &dropped, || AckKind::Nak(None)).await?;
                }
                _ = signs.tick() => self.sign_of_life().await?,
                () = sleep_until(silent_until), if self.requested > 0 => {
                    return Err(Failure::timed_out("sent no idle heartbeat", SILENT_FOR));
                }
            }
        }
    }

    /// Requests messages.
    async fn request(
        &self,
        batch: usize,
        expires: Duration,
        idle_heartbeat: Option<Duration>,
    ) -> Result<(), Failure> {
        let request = serde_json::json!({
            "batch": batch,
            "expires": nanoseconds(expires),
            "idle_heartbeat": idle_heartbeat.map_or(0, nanoseconds),
        });
        let (to, request) = (self.requests.clone(), Bytes::from(request.to_string()));
        let connection = &self.intake.connection;
        let sent = connection.client.publish_with_reply(to, self.inbox.clone(), request);
        let sent = connection.request("took no request for messages", sent).await?;
        sent.map_err(|error| Failure::unavailable(one_line(&error.to_string())))
    }

    /// Tells the server that all deliveries are still at work, so that it delivers none of them
    /// again.
    async fn sign_of_life(&self) -> Result<(), Failure> {
        let replies = self.intake.unacked.replies();
        send(&self.intake.connection, &replies, || AckKind::Progress).await
    }

    fn deliver(&self, message: Message) {
        match self.intake.received(message) {
            // Where the subscriber is gone, the dropped handle returns the message.
            Some(received) => drop(self.deliveries.send(Ok(received))),
            None => tracing::warn!("a message that JetStream has not delivered was ignored"),
        }
    }
}

/// Sends something about several deliveries, and does not wait for the server.
async fn send(
    connection: &NatsConnection,
    replies: &[Subject],
    what: impl Fn() -> AckKind,
) -> Result<(), Failure> {
    let send = async {
        for reply in replies {
            connection.client.publish(reply.clone(), what().into()).await?;
        }
        Ok::<(), async_nats::PublishError>(())
    };
    let sent = connection.request("took no ack decision", send).await?;
    sent.map_err(|error| Failure::unavailable(one_line(&error.to_string())))
}

/// Returns messages, in the order of the stream, and waits until the server has taken them: it
/// reads decisions and requests side by side, and delivers what was returned before all later ones.
pub(crate) async fn return_all(
    connection: &NatsConnection,
    replies: &[Subject],
) -> Result<(), Failure> {
    let requests = replies
        .iter()
        .map(|reply| connection.client.request(reply.clone(), AckKind::Nak(None).into()));
    // It fails for a message of a consumer that is no longer there.
    connection.request("took no returned message", join_all(requests)).await.map(drop)
}

/// Gives the instant until which the server may be silent from now on.
fn deadline() -> Instant {
    Instant::from(now()) + SILENT_FOR
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What a message in the inbox of a subscription is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Status {
    /// A message of the stream.
    Message,
    /// The consumer is there and has nothing.
    Heartbeat,
    /// The request is over; the next one may be sent.
    Ended,
    /// The consumer is gone or refuses all requests, for this reason.
    Lost(String),
}

impl Status {
    fn of(message: &Message) -> Self {
        let description = message.description.as_deref().unwrap_or_default();
        message.status.map_or(Self::Message, |status| Self::read(status, description))
    }

    fn read(status: StatusCode, description: &str) -> Self {
        let description = one_line(description);
        let is = |part: &str| description.to_ascii_lowercase().contains(part);
        match status.as_u16() {
            200 => Self::Message,
            100 => Self::Heartbeat,
            404 | 408 => Self::Ended,
            409 if is("consumer deleted") => {
                Self::Lost("the consumer was deleted on the server".to_owned())
            }
            409 if is("push based") => Self::Lost(
                "the consumer is a push consumer; name a durable pull consumer".to_owned(),
            ),
            409 if is("exceeded maxrequest") => Self::Lost(format!(
                "the consumer refuses the request ({description}); set a smaller prefetch"
            )),
            409 if is("exceeded maxwaiting") => Self::Lost(format!(
                "too many subscribers wait at the consumer ({description}); raise its max_waiting"
            )),
            409 => Self::Ended,
            503 => Self::Lost("the consumer is missing (503 no responders)".to_owned()),
            code => Self::Lost(format!("the server ended the request with {code} {description}")),
        }
    }
}

/// Passes the ack decision of one delivery to the server.
pub(crate) struct AckHandle {
    id: DeliveryId,
    reply: Subject,
    connection: Arc<NatsConnection>,
    unacked: Arc<Unacked>,
    nack_delay: Option<Duration>,
    is_decided: bool,
}

impl AckHandle {
    /// Sends a decision and waits until the server has taken it.
    async fn decide(mut self: Box<Self>, decision: AckKind) -> Result<(), SubscribeError> {
        self.is_decided = true;
        let reply = self.connection.client.request(self.reply.clone(), decision.into());
        let taken = self.connection.request("took no ack decision", reply).await;
        let failure = match taken {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(one_line(&error.to_string())),
            Err(failure) => Some(failure.text),
        };
        // The next connection returns what is left of a lost one.
        if !self.connection.is_lost() {
            self.unacked.remove(self.id);
        }
        failure.map_or(Ok(()), |text| {
            Err(SubscribeError(format!("{text}; the server delivers the message again").into()))
        })
    }
}

#[async_trait]
impl Acknowledge for AckHandle {
    async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
        self.decide(AckKind::Ack).await
    }

    async fn nack(self: Box<Self>, requeue: bool) -> Result<(), SubscribeError> {
        let decision = if requeue { AckKind::Nak(self.nack_delay) } else { AckKind::Term };
        self.decide(decision).await
    }

    /// The protocol has no field for a reason; the log line has it.
    async fn reject(self: Box<Self>, reason: &str) -> Result<(), SubscribeError> {
        tracing::info!(reason, "a message was rejected");
        self.decide(AckKind::Term).await
    }
}

impl Drop for AckHandle {
    /// Returns the message, unless it has its ack decision.
    fn drop(&mut self) {
        if self.is_decided || self.connection.is_lost() {
            return;
        }
        if let Some(reply) = self.unacked.drop_delivery(self.id) {
            // The first poll hands it to the library; the drop does not wait until it is written.
            // It takes part in no fair scheduling, in which it might not be polled at all.
            let client = &self.connection.client;
            let returned = client.publish(reply, AckKind::Nak(None).into());
            let _ = unconstrained(returned).now_or_never();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_heartbeat_the_end_of_a_request_or_of_the_consumer() {
        let lost = |part: &'static str| Some(part);
        for (code, description, expected, part) in [
            (100, "Idle Heartbeat", Status::Heartbeat, None),
            (404, "No Messages", Status::Ended, None),
            (408, "Request Timeout", Status::Ended, None),
            (409, "Leadership Change", Status::Ended, None),
            (409, "Server Shutdown", Status::Ended, None),
            (409, "Consumer Deleted", Status::Lost(String::new()), lost("deleted")),
            (409, "Consumer is push based", Status::Lost(String::new()), lost("durable pull")),
            (
                409,
                "Exceeded MaxRequestBatch of 5",
                Status::Lost(String::new()),
                lost("of 5); set a smaller"),
            ),
            (
                409,
                "Exceeded MaxWaiting",
                Status::Lost(String::new()),
                lost("raise its max_waiting"),
            ),
            (503, "", Status::Lost(String::new()), lost("missing")),
            (400, "Bad Request", Status::Lost(String::new()), lost("400 Bad Request")),
        ] {
            let code = StatusCode::from_u16(code).expect("a code");
            match (Status::read(code, description), part) {
                (Status::Lost(text), Some(part)) => assert!(text.contains(part), "{text}"),
                (status, _) => assert_eq!(status, expected, "{description}"),
            }
        }
    }

    #[test]
    fn what_is_left_of_a_lost_connection_comes_in_the_order_of_the_stream() {
        let unacked = Unacked::default();
        for (sequence, attempt) in [(3, 1), (1, 2), (2, 1), (10, 1)] {
            unacked.add((sequence, attempt), Subject::from(format!("reply.{sequence}")));
        }
        unacked.remove((2, 1));
        assert_eq!(unacked.len(), 3);
        assert_eq!((unacked.drop_delivery((3, 1)), unacked.drop_delivery((1, 2))), (None, None));
        let texts = |subjects: Vec<Subject>| -> Vec<String> {
            subjects.iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(unacked.take_dropped()), ["reply.1", "reply.3"]);
        unacked.end();
        let late = unacked.drop_delivery((10, 1)).map(|reply| reply.to_string());
        assert_eq!(late.as_deref(), Some("reply.10"), "the task has ended");
        for (sequence, attempt) in [(3, 1), (1, 2), (10, 1)] {
            unacked.add((sequence, attempt), Subject::from(format!("reply.{sequence}")));
        }
        assert_eq!(texts(unacked.take()), ["reply.1", "reply.3", "reply.10"]);
        assert_eq!(unacked.len(), 0);
    }
}
