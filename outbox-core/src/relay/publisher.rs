//! The publisher of one route: some batches in flight, a deadline each, none past the lease.

use super::{
    board::{Attempt, Batch, RouteNo},
    messages::{Gone, Lease, Note},
    observers::Observers,
};
use crate::{
    event::EventId,
    failure::FailureClass,
    runtime::{
        Shutdown, caught,
        fault::{FaultPoint, reach},
        now,
    },
    transport::{PublishError, Receipt, Route},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::HashMap, future::poll_fn, sync::Arc, task::Poll, time::Instant};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep_until, timeout},
};

/// Part of the time until the shutdown's deadline that is kept for settling and handing back.
const KEPT_FOR_SETTLING: u32 = 4;

type Answers = Vec<(EventId, Attempt)>;

/// What the publisher of a route works with.
pub(crate) struct RoutePublisher {
    pub(crate) number: RouteNo,
    pub(crate) route: Route,
    /// Each with the term of the lease that it was made under.
    pub(crate) batches: mpsc::Receiver<(u64, Batch)>,
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
        let mut in_flight: FuturesUnordered<BoxFuture<'static, (u64, Answers)>> = FuturesUnordered::new();
        let mut ids: HashMap<u64, Vec<EventId>> = HashMap::new();
        let (mut number, mut term) = (0, 0);
        let (mut open, mut keeper) = (true, true);
        while open || !in_flight.is_empty() {
            let (until, lease_term) = self.until();
            if lease_term != term {
                term = lease_term;
                in_flight.clear();
                self.cancel(&mut ids).await?;
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
                done = finished, if busy => match done {
                    Some(Some((batch, answers))) => {
                        ids.remove(&batch);
                        self.tell(answers).await?;
                    }
                    Some(None) => {}
                    None => {
                        in_flight.clear();
                        self.cancel(&mut ids).await?;
                    }
                },
                // Before the batches: the lease that one was made under is known here before it comes.
                changed = self.lease.changed(), if keeper => keeper = changed.is_ok(),
                batch = self.batches.recv(), if open => match batch {
                    Some((made, batch)) if made == term && until.is_some_and(|until| now() < until) => {
                        reach(FaultPoint::BeforePublish);
                        number += 1;
                        ids.insert(number, batch.ids.clone());
                        in_flight.push(publish(number, self.route.clone(), self.observers.clone(), batch).boxed());
                    }
                    Some((_, batch)) => self.tell(cancelled(batch.ids)).await?,
                    None => open = false,
                },
                () = sleep_until(until.unwrap_or_else(now).into()), if busy => {}
                () = self.shutdown.requested(), if !self.shutdown.is_requested() => {}
            }
        }
        Ok(())
    }

    async fn tell(&self, answers: Answers) -> Result<(), Gone> {
        self.dispatcher.send(Note::Published { route: self.number, answers }).await.map_err(|_| Gone)
    }

    /// Tells that what was in flight was given up.
    async fn cancel(&self, in_flight: &mut HashMap<u64, Vec<EventId>>) -> Result<(), Gone> {
        for (_, ids) in in_flight.drain() {
            self.tell(cancelled(ids)).await?;
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

fn cancelled(ids: Vec<EventId>) -> Answers {
    ids.into_iter().map(|id| (id, Attempt::Cancelled)).collect()
}

async fn publish(number: u64, route: Route, observers: Arc<Observers>, batch: Batch) -> (u64, Answers) {
    let publishing = caught(route.publisher.publish_batch(&batch.messages));
    let failure = match timeout(route.deadline, publishing).await {
        Ok(Ok(results)) if results.len() == batch.ids.len() => {
            reach(FaultPoint::AfterPublish);
            let answers = batch.ids.iter().zip(&batch.messages).zip(&batch.attempts).zip(results);
            return (number, answers.map(|(((id, m), n), r)| (*id, observed(&observers, m, *n, r))).collect());
        }
        Ok(Ok(results)) => format!("the publisher gave {} answers to {} messages", results.len(), batch.ids.len()),
        Ok(Err(panic)) => format!("the publisher panicked: {panic}"),
        Err(_) => format!("no answer within {:?}", route.deadline),
    };
    let answers = batch.ids.iter().zip(&batch.messages).zip(&batch.attempts).map(|((id, message), attempt)| {
        (*id, observed(&observers, message, *attempt, Err(PublishError::transient(failure.clone()))))
    });
    (number, answers.collect())
}

fn observed(
    observers: &Observers,
    message: &crate::event::Message,
    attempt: u32,
    result: Result<Receipt, PublishError>,
) -> Attempt {
    match result {
        Ok(receipt) => {
            observers.delivered(message, &receipt);
            Attempt::Confirmed
        }
        Err(error) => {
            observers.failed(message, &error, attempt);
            let class: FailureClass = error.class();
            Attempt::Failed { class, text: error.full_text(), retry_after: error.asked_to_wait() }
        }
    }
}
