//! The publisher of one route: a few batches in flight, each with a deadline, none of them past the
//! end of the lease.

use super::{
    board::{Attempt, RouteBatch, RouteNo},
    messages::{DispatcherMsg, DispatcherStopped, Lease},
    metrics::{BatchMetrics, CANCELLED, RouteMetrics, TIMEOUT},
    observers::Observers,
};
use crate::{
    event::{EventId, Message},
    failure::{FailureClass, HIDDEN_TEXT, loggable_text},
    runtime::{
        Shutdown, catch_unwind,
        fault::{FaultPoint, fault_point},
        later, now,
    },
    transport::{Batch, Guarantee, Outcomes, PublishError, Receipt, Route},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::HashMap,
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep_until, timeout_at},
};
use tracing::Instrument;

/// The last part of a shutdown's time, one in so many, is kept for settling and releasing.
const SETTLE_SHARE: u32 = 4;
/// How often outcomes of a batch are sent to the dispatcher while the batch is in flight. Most
/// batches end before.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);

type PublishResults = Vec<(EventId, Attempt)>;

/// The publisher of a route with its channels.
pub(crate) struct RoutePublisher {
    pub(crate) number: RouteNo,
    pub(crate) route: Route,
    /// Batches, each with the term of the lease under which it was made.
    pub(crate) batches: mpsc::Receiver<(u64, RouteBatch)>,
    pub(crate) dispatcher: mpsc::Sender<DispatcherMsg>,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) shutdown: Shutdown,
    pub(crate) observers: Arc<Observers>,
    pub(crate) metrics: Arc<RouteMetrics>,
    /// The instant at which a shutdown ends batches in flight; set by its request.
    pub(crate) stop_at: Option<Instant>,
}

impl RoutePublisher {
    /// Publishes until the dispatcher has stopped.
    pub(crate) async fn run(mut self) -> Result<(), DispatcherStopped> {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, BatchProgress>> =
            FuturesUnordered::new();
        let mut sent: HashMap<u64, SentBatch> = HashMap::new();
        let (mut number, mut term) = (0, 0);
        let (mut open, mut keeper) = (true, true);
        while open || !in_flight.is_empty() {
            let (until, lease_term) = self.publish_until();
            if lease_term != term {
                term = lease_term;
                in_flight.clear();
                self.cancel(&mut sent).await?;
            }
            // The time is checked before a batch in flight is polled: a process that was suspended
            // and goes on must not publish under a lease that has ended.
            let busy = !in_flight.is_empty();
            let finished = poll_fn(|cx| match until {
                Some(until) if now() < until => in_flight.poll_next_unpin(cx).map(Some),
                _ => Poll::Ready(None),
            });
            tokio::select! {
                biased;
                progress = finished, if busy => match progress {
                    Some(Some(BatchProgress { number, results, rest })) => {
                        let is_last = rest.is_none();
                        match rest {
                            Some(rest) => in_flight.push(rest.next_progress().boxed()),
                            None => _ = sent.remove(&number),
                        }
                        self.send_results(results, is_last).await?;
                    }
                    Some(None) => {}
                    None => {
                        in_flight.clear();
                        self.cancel(&mut sent).await?;
                    }
                },
                // Before the batches, so that the lease under which a batch was made is known
                // before the batch comes.
                changed = self.lease.changed(), if keeper => keeper = changed.is_ok(),
                batch = self.batches.recv(), if open => match batch {
                    Some((made, batch)) if made == term && until.is_some_and(|until| now() < until) => {
                        fault_point(FaultPoint::BeforePublish);
                        number += 1;
                        let running = self.publish(number, batch);
                        sent.insert(number, running.sent.clone());
                        in_flight.push(running.next_progress().boxed());
                    }
                    Some((_, batch)) => {
                        let ids = batch.events.into_iter().map(|(id, _)| (id, Attempt::Cancelled));
                        self.send_results(ids.collect(), true).await?;
                    }
                    None => open = false,
                },
                () = sleep_until(until.unwrap_or_else(now).into()), if busy => {}
                () = self.shutdown.requested(), if !self.shutdown.is_requested() => {}
            }
        }
        Ok(())
    }

    fn publish(&self, number: u64, batch: RouteBatch) -> RunningBatch {
        let RouteBatch { events, messages, .. } = batch;
        let mut batch =
            Batch::new(messages).at_most_once(self.route.guarantee == Guarantee::AtMostOnce);
        let (messages, outcomes) = (batch.messages(), batch.outcomes());
        let publisher = self.route.publisher.clone();
        let (route, observers) = (self.route.name.clone(), self.observers.clone());
        let (events, metrics) =
            (events.into(), BatchMetrics::start(&self.metrics, messages.clone()));
        let sent =
            SentBatch { route, events, messages, outcomes, observers, metrics, begun: now() };
        let work = async move { catch_unwind(publisher.publish_batch(&mut batch)).await };
        RunningBatch {
            number,
            work: work.instrument(sent.metrics.span()).boxed(),
            deadline: later(sent.begun, self.route.deadline),
            sent,
        }
    }

    async fn send_results(
        &self,
        results: PublishResults,
        is_last: bool,
    ) -> Result<(), DispatcherStopped> {
        self.dispatcher
            .send(DispatcherMsg::Published { route: self.number, results, is_last })
            .await
            .map_err(|_| DispatcherStopped)
    }

    /// Sends the outcomes that the batches in flight have reported, and cancels the rest of them.
    async fn cancel(&self, sent: &mut HashMap<u64, SentBatch>) -> Result<(), DispatcherStopped> {
        for (_, batch) in sent.drain() {
            let mut results = batch.reported();
            batch.metrics.failed(batch.missing().map(|(_, index)| index), CANCELLED);
            results.extend(batch.missing().map(|(id, _)| (id, Attempt::Cancelled)));
            self.send_results(results, true).await?;
        }
        Ok(())
    }

    /// Gives the instant until which batches may be in flight: the end of the lease, or the last
    /// quarter of a shutdown. And the lease's term: batches of an earlier one are cancelled.
    fn publish_until(&mut self) -> (Option<Instant>, u64) {
        let Lease { valid_until: lease, term, .. } = *self.lease.borrow_and_update();
        if self.stop_at.is_none()
            && let Some((end, left)) = self.shutdown.deadline().zip(self.shutdown.time_left())
        {
            self.stop_at = Some(end.checked_sub(left / SETTLE_SHARE).unwrap_or(end));
        }
        match (lease, self.stop_at) {
            (Some(lease), Some(stop)) => (Some(lease.min(stop)), term),
            (lease, _) => (lease, term),
        }
    }
}

/// A batch that was handed to the publisher.
#[derive(Clone)]
struct SentBatch {
    route: Arc<str>,
    /// The events, each with the number of its attempt.
    events: Arc<[(EventId, u32)]>,
    messages: Arc<[Message]>,
    outcomes: Outcomes,
    observers: Arc<Observers>,
    metrics: Arc<BatchMetrics>,
    begun: Instant,
}

/// A batch that is being published.
struct RunningBatch {
    number: u64,
    sent: SentBatch,
    work: BoxFuture<'static, Result<(), String>>,
    deadline: Instant,
}

/// The outcomes of a batch since the last progress, and the batch if it is still in flight.
struct BatchProgress {
    number: u64,
    results: PublishResults,
    rest: Option<RunningBatch>,
}

impl RunningBatch {
    /// Publishes until there are outcomes to send.
    async fn next_progress(mut self) -> BatchProgress {
        loop {
            let until = (now() + REPORT_INTERVAL).min(self.deadline);
            let ended = timeout_at(until.into(), &mut self.work).await;
            let mut results = self.sent.reported();
            let failure = match ended {
                Ok(Ok(())) => {
                    fault_point(FaultPoint::AfterPublish);
                    "the publisher reported no outcome of this message".to_owned()
                }
                Ok(Err(panic)) => self.sent.panic_text(&panic),
                Err(_) if now() < self.deadline => {
                    if results.is_empty() {
                        continue;
                    }
                    return BatchProgress { number: self.number, results, rest: Some(self) };
                }
                Err(_) => {
                    let after = now().saturating_duration_since(self.sent.begun);
                    let text =
                        format!("no answer by the deadline of the route, within {after:.1?}");
                    results.extend(
                        self.sent
                            .failed(&text, TIMEOUT, |text| Attempt::Unanswered { text, after }),
                    );
                    return BatchProgress { number: self.number, results, rest: None };
                }
            };
            let is_alone = self.sent.events.len() == 1;
            let class = FailureClass::Transient.as_str();
            results.extend(self.sent.failed(&failure, class, |text| match is_alone {
                true => failed(&PublishError::transient(text)),
                false => Attempt::Unclear { text },
            }));
            return BatchProgress { number: self.number, results, rest: None };
        }
    }
}

impl SentBatch {
    /// Takes the outcomes that were reported since, and notifies the observers.
    fn reported(&self) -> PublishResults {
        let outcomes = self.outcomes.take();
        self.metrics.reported(&outcomes);
        let take =
            |(index, outcome): (usize, _)| (self.events[index].0, self.observed(index, outcome));
        outcomes.into_iter().map(take).collect()
    }

    /// Describes a panic of the publisher. It may quote any event of the batch, and is kept with each
    /// of them: so it is hidden where one is sensitive, until that one is published by itself.
    fn panic_text(&self, panic: &str) -> String {
        let is_hidden =
            self.messages.len() > 1 && self.messages.iter().any(|message| message.is_sensitive());
        format!("the publisher panicked: {}", if is_hidden { HIDDEN_TEXT } else { panic })
    }

    /// Gives the events without an outcome, each with its index.
    fn missing(&self) -> impl Iterator<Item = (EventId, usize)> {
        self.outcomes.missing().into_iter().map(|index| (self.events[index].0, index))
    }

    /// Fails the events without an outcome, and notifies the observers.
    fn failed(
        &self,
        text: &str,
        outcome: &'static str,
        attempt: impl Fn(String) -> Attempt,
    ) -> PublishResults {
        self.metrics.failed(self.missing().map(|(_, index)| index), outcome);
        let error = PublishError::transient(text);
        let fail = |(id, index): (EventId, usize)| {
            self.notify_failed(index, &error);
            (id, attempt(text.to_owned()))
        };
        self.missing().map(fail).collect()
    }

    fn observed(&self, index: usize, outcome: Result<Receipt, PublishError>) -> Attempt {
        match outcome {
            Ok(receipt) => {
                self.observers.delivered(&self.messages[index], &receipt);
                Attempt::Confirmed
            }
            Err(error) => {
                self.notify_failed(index, &error);
                failed(&error)
            }
        }
    }

    fn notify_failed(&self, index: usize, error: &PublishError) {
        let ((event, attempt), message) = (self.events[index], &self.messages[index]);
        tracing::debug!(
            route = &*self.route,
            %event,
            message_id = %message.id,
            event_type = message.event_type,
            attempt,
            class = %error.class(),
            error = loggable_text(&error.full_text(), error.class(), Some(message)),
            "an attempt to publish has failed"
        );
        self.observers.failed(message, error, attempt);
    }
}

fn failed(error: &PublishError) -> Attempt {
    if let (true, Some(wait)) = (error.is_busy(), error.asked_to_wait()) {
        return Attempt::Busy { wait };
    }
    Attempt::Failed {
        class: error.class(),
        text: error.full_text(),
        retry_after: error.asked_to_wait(),
        responded: error.has_responded(),
    }
}
