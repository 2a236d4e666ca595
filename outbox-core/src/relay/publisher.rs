//! The publisher of one route: some batches in flight, a deadline each, none past the lease.

use super::{
    board::{Attempt, RouteBatch, RouteNo},
    messages::{Gone, Lease, Note},
    observers::Observers,
};
use crate::{
    event::{EventId, Message},
    runtime::{
        Shutdown, caught,
        fault::{FaultPoint, reach},
        now,
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

/// Part of the time until the shutdown's deadline that is kept for settling and handing back.
const KEPT_FOR_SETTLING: u32 = 4;
/// How often what is reported of a batch is told while the rest of it is under way. Most batches end before the first time.
const TELL_EVERY: Duration = Duration::from_millis(50);

type Answers = Vec<(EventId, Attempt)>;

/// What the publisher of a route works with.
pub(crate) struct RoutePublisher {
    pub(crate) number: RouteNo,
    pub(crate) route: Route,
    /// Each with the term of the lease that it was made under.
    pub(crate) batches: mpsc::Receiver<(u64, RouteBatch)>,
    pub(crate) dispatcher: mpsc::Sender<Note>,
    pub(crate) lease: watch::Receiver<Lease>,
    pub(crate) shutdown: Shutdown,
    pub(crate) observers: Arc<Observers>,
    /// When a shutdown ends what is in flight; set when it is asked for.
    pub(crate) stop_at: Option<Instant>,
}

impl RoutePublisher {
    /// Publishes until the dispatcher is gone.
    pub(crate) async fn run(mut self) -> Result<(), Gone> {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Told>> = FuturesUnordered::new();
        let mut handed: HashMap<u64, Handed> = HashMap::new();
        let (mut number, mut term) = (0, 0);
        let (mut open, mut keeper) = (true, true);
        while open || !in_flight.is_empty() {
            let (until, lease_term) = self.until();
            if lease_term != term {
                term = lease_term;
                in_flight.clear();
                self.cancel(&mut handed).await?;
            }
            // The instant is checked before anything in flight is touched: a process that was stopped and goes on must
            // not publish under a lease that has ended.
            let busy = !in_flight.is_empty();
            let finished = poll_fn(|cx| match until {
                Some(until) if now() < until => in_flight.poll_next_unpin(cx).map(Some),
                _ => Poll::Ready(None),
            });
            tokio::select! {
                biased;
                told = finished, if busy => match told {
                    Some(Some(Told { number, answers, rest })) => {
                        let over = rest.is_none();
                        match rest {
                            Some(rest) => in_flight.push(rest.go_on().boxed()),
                            None => _ = handed.remove(&number),
                        }
                        self.tell(answers, over).await?;
                    }
                    Some(None) => {}
                    None => {
                        in_flight.clear();
                        self.cancel(&mut handed).await?;
                    }
                },
                // Before the batches: the lease that one was made under is known here before it comes.
                changed = self.lease.changed(), if keeper => keeper = changed.is_ok(),
                batch = self.batches.recv(), if open => match batch {
                    Some((made, batch)) if made == term && until.is_some_and(|until| now() < until) => {
                        reach(FaultPoint::BeforePublish);
                        number += 1;
                        let publishing = self.publish(number, batch);
                        handed.insert(number, publishing.handed.clone());
                        in_flight.push(publishing.go_on().boxed());
                    }
                    Some((_, batch)) => {
                        let ids = batch.events.into_iter().map(|(id, _)| (id, Attempt::Cancelled));
                        self.tell(ids.collect(), true).await?;
                    }
                    None => open = false,
                },
                () = sleep_until(until.unwrap_or_else(now).into()), if busy => {}
                () = self.shutdown.requested(), if !self.shutdown.is_requested() => {}
            }
        }
        Ok(())
    }

    fn publish(&self, number: u64, batch: RouteBatch) -> Publishing {
        let RouteBatch { events, messages, .. } = batch;
        let mut batch =
            Batch::new(messages).at_most_once(self.route.guarantee == Guarantee::AtMostOnce);
        let (messages, outcomes) = (batch.messages(), batch.outcomes());
        let publisher = self.route.publisher.clone();
        let (route, observers) = (self.route.name.clone(), self.observers.clone());
        let handed =
            Handed { route, events: events.into(), messages, outcomes, observers, begun: now() };
        Publishing {
            number,
            work: async move { caught(publisher.publish_batch(&mut batch)).await }.boxed(),
            deadline: handed.begun + self.route.deadline,
            handed,
        }
    }

    async fn tell(&self, answers: Answers, over: bool) -> Result<(), Gone> {
        self.dispatcher
            .send(Note::Published { route: self.number, answers, over })
            .await
            .map_err(|_| Gone)
    }

    /// Tells what was reported of what was in flight, and that the rest was given up.
    async fn cancel(&self, handed: &mut HashMap<u64, Handed>) -> Result<(), Gone> {
        for (_, batch) in handed.drain() {
            let mut answers = batch.reported();
            answers.extend(batch.missing().map(|(id, _)| (id, Attempt::Cancelled)));
            self.tell(answers, true).await?;
        }
        Ok(())
    }

    /// Until when something may be in flight: to the end of the lease, and not into the last quarter of a shutdown. And the
    /// lease's term: nothing of an earlier one may.
    fn until(&mut self) -> (Option<Instant>, u64) {
        let Lease { valid_until: lease, term, .. } = *self.lease.borrow_and_update();
        if self.stop_at.is_none()
            && let Some((end, left)) = self.shutdown.deadline().zip(self.shutdown.time_left())
        {
            self.stop_at = Some(end.checked_sub(left / KEPT_FOR_SETTLING).unwrap_or(end));
        }
        match (lease, self.stop_at) {
            (Some(lease), Some(stop)) => (Some(lease.min(stop)), term),
            (lease, _) => (lease, term),
        }
    }
}

/// A batch in the hands of a publisher.
#[derive(Clone)]
struct Handed {
    route: Arc<str>,
    /// Each with which attempt it is.
    events: Arc<[(EventId, u32)]>,
    messages: Arc<[Message]>,
    outcomes: Outcomes,
    observers: Arc<Observers>,
    begun: Instant,
}

/// A batch that is being published.
struct Publishing {
    number: u64,
    handed: Handed,
    work: BoxFuture<'static, Result<(), String>>,
    deadline: Instant,
}

/// What is told of a batch, and what of it is still under way.
struct Told {
    number: u64,
    answers: Answers,
    rest: Option<Publishing>,
}

impl Publishing {
    /// Publishes until something of it can be told.
    async fn go_on(mut self) -> Told {
        loop {
            let until = (now() + TELL_EVERY).min(self.deadline);
            let ended = timeout_at(until.into(), &mut self.work).await;
            let mut answers = self.handed.reported();
            let failure = match ended {
                Ok(Ok(())) => {
                    reach(FaultPoint::AfterPublish);
                    "the publisher reported no outcome of this message".to_owned()
                }
                Ok(Err(panic)) => format!("the publisher panicked: {panic}"),
                Err(_) if now() < self.deadline => {
                    if answers.is_empty() {
                        continue;
                    }
                    return Told { number: self.number, answers, rest: Some(self) };
                }
                Err(_) => {
                    let after = now().saturating_duration_since(self.handed.begun);
                    let text =
                        format!("no answer by the deadline of the route, within {after:.1?}");
                    answers.extend(
                        self.handed.failed(&text, |text| Attempt::Unanswered { text, after }),
                    );
                    return Told { number: self.number, answers, rest: None };
                }
            };
            let is_alone = self.handed.events.len() == 1;
            answers.extend(self.handed.failed(&failure, |text| match is_alone {
                true => failed(&PublishError::transient(text)),
                false => Attempt::Unclear { text },
            }));
            return Told { number: self.number, answers, rest: None };
        }
    }
}

impl Handed {
    /// Takes what was reported since, and tells those who watch.
    fn reported(&self) -> Answers {
        let take =
            |(index, outcome): (usize, _)| (self.events[index].0, self.observed(index, outcome));
        self.outcomes.take().into_iter().map(take).collect()
    }

    /// Gives the events of which nothing was reported, each with its place.
    fn missing(&self) -> impl Iterator<Item = (EventId, usize)> {
        self.outcomes.missing().into_iter().map(|index| (self.events[index].0, index))
    }

    /// Lets everything fail of which nothing was reported, and tells those who watch.
    fn failed(&self, text: &str, attempt: impl Fn(String) -> Attempt) -> Answers {
        let error = PublishError::transient(text);
        let fail = |(id, index): (EventId, usize)| {
            self.tell_failed(index, &error);
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
                self.tell_failed(index, &error);
                failed(&error)
            }
        }
    }

    fn tell_failed(&self, index: usize, error: &PublishError) {
        let ((event, attempt), message) = (self.events[index], &self.messages[index]);
        tracing::debug!(
            route = &*self.route,
            %event,
            message_id = %message.id,
            event_type = message.event_type,
            attempt,
            class = %error.class(),
            error = error.full_text(),
            "an attempt to publish has failed"
        );
        self.observers.failed(message, error, attempt);
    }
}

fn failed(error: &PublishError) -> Attempt {
    Attempt::Failed {
        class: error.class(),
        text: error.full_text(),
        retry_after: error.asked_to_wait(),
        answered: error.is_answer(),
    }
}
