//! The task that carries ack decisions out, several in one request, and extends the visibility of
//! messages that have none yet.

use super::{
    MAX_ENTRIES, Store, Tag,
    poll::{change_visibility, make_visible},
};
use crate::{classify::Failure, topology::Directory};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use outbox_core::runtime::now;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

/// Extensions in the time for which a message is invisible: two may fail.
const EXTENSIONS: u32 = 3;
/// Requests about decisions that are in flight at once. Decisions that come meanwhile gather, and
/// share the next request.
const MAX_REQUESTS: usize = 4;
/// Decisions that are taken from the mailbox at once: enough for all requests.
const MAX_TAKEN: usize = MAX_REQUESTS * MAX_ENTRIES;

/// Where the outcome of a decision goes.
pub(crate) type Reply = oneshot::Sender<Result<(), Failure>>;

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum AckDecision {
    /// It was handled: it is deleted.
    Delete(Tag, Reply),
    /// It is delivered again, after a delay. Nobody waits where the delivery was dropped.
    Return(Tag, Duration, Option<Reply>),
    /// Answered when everything before it is carried out.
    Flush(Reply),
}

/// The task of one subscriber. It ends when all deliveries are gone.
pub(crate) struct Acks {
    pub(crate) store: Arc<Store>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) queue: String,
    pub(crate) visibility: Duration,
    pub(crate) decisions: mpsc::UnboundedReceiver<AckDecision>,
}

/// What has ended.
enum Ended {
    Decisions,
    Extension,
}

type Running = FuturesUnordered<BoxFuture<'static, Ended>>;

/// What is to be done and what is under way.
#[derive(Default)]
struct Work {
    deletes: Vec<(Tag, Reply)>,
    returns: Vec<(Tag, Duration, Option<Reply>)>,
    flushes: Vec<Reply>,
    running: Running,
    requests: usize,
    extensions: usize,
}

impl Work {
    fn add(&mut self, decision: AckDecision) {
        match decision {
            AckDecision::Delete(tag, reply) => self.deletes.push((tag, reply)),
            AckDecision::Return(tag, delay, reply) => self.returns.push((tag, delay, reply)),
            AckDecision::Flush(reply) => self.flushes.push(reply),
        }
    }

    fn is_idle(&self) -> bool {
        self.deletes.is_empty() && self.returns.is_empty() && self.requests == 0
    }
}

impl Acks {
    pub(crate) async fn run(mut self) {
        let mut extend = interval(self.visibility / EXTENSIONS);
        extend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut work, mut taken, mut is_open) = (Work::default(), Vec::new(), true);
        while is_open || !work.is_idle() {
            tokio::select! {
                count = self.decisions.recv_many(&mut taken, MAX_TAKEN), if is_open => {
                    is_open = count > 0;
                    taken.drain(..).for_each(|decision| work.add(decision));
                }
                Some(ended) = work.running.next() => match ended {
                    Ended::Decisions => work.requests -= 1,
                    Ended::Extension => work.extensions -= 1,
                },
                _ = extend.tick() => self.extend(&mut work),
            }
            self.start(&mut work);
            if work.is_idle() {
                // The caller may wait no longer.
                work.flushes.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
            }
        }
    }

    /// Starts requests for what is to be done, as far as there may be more.
    fn start(&self, work: &mut Work) {
        while work.requests < MAX_REQUESTS && !work.deletes.is_empty() {
            let some = work.deletes.len().min(MAX_ENTRIES);
            let deletes = work.deletes.drain(..some).collect();
            work.running.push(self.delete(deletes));
            work.requests += 1;
        }
        // An extension that is under way could arrive after the return, and undo it.
        while work.requests < MAX_REQUESTS && work.extensions == 0 {
            let Some((tag, delay, reply)) = work.returns.pop() else { break };
            work.running.push(self.take_back(tag, delay, reply));
            work.requests += 1;
        }
    }

    fn delete(&self, deletes: Vec<(Tag, Reply)>) -> BoxFuture<'static, Ended> {
        let (store, directory, queue) =
            (self.store.clone(), self.directory.clone(), self.queue.clone());
        async move {
            let decide = |(tag, reply): (Tag, Reply)| {
                let receipt = store.change(|held| held.decide(tag));
                match receipt {
                    Some(receipt) => Some((tag, receipt, reply)),
                    None => {
                        let text = "the message is no longer this subscriber's";
                        let _ = reply.send(Err(Failure::transient(text)));
                        None
                    }
                }
            };
            let deletes: Vec<(Tag, String, Reply)> =
                deletes.into_iter().filter_map(decide).collect();
            let receipts: Vec<&str> = deletes.iter().map(|(_, receipt, _)| &**receipt).collect();
            let outcome = delete_messages(&directory, &queue, &receipts).await;
            for (number, (tag, _, reply)) in deletes.into_iter().enumerate() {
                let failure = match &outcome {
                    Ok(refused) => refused.iter().find(|(at, _)| *at == number).map(|(_, f)| f),
                    Err(failure) => Some(failure),
                };
                match failure {
                    None => store.change(|held| held.done(tag)),
                    // It comes again when its time is up, and those behind it in its group after it:
                    // at once, it would be handled and fail as fast as that goes.
                    Some(_) => _ = store.change(|held| held.take_back(tag)),
                }
                let _ = reply.send(failure.map_or(Ok(()), |failure| Err(failure.clone())));
            }
            Ended::Decisions
        }
        .boxed()
    }

    fn take_back(
        &self,
        tag: Tag,
        delay: Duration,
        reply: Option<Reply>,
    ) -> BoxFuture<'static, Ended> {
        let (store, directory, queue) =
            (self.store.clone(), self.directory.clone(), self.queue.clone());
        async move {
            let receipts = store.change(|held| held.take_back(tag));
            let returned = make_visible(&directory, &queue, &receipts, delay).await;
            match reply {
                Some(reply) => drop(reply.send(returned)),
                None => {
                    if let Err(failure) = returned {
                        tracing::debug!(error = failure.text, "returning messages failed");
                    }
                }
            }
            Ended::Decisions
        }
        .boxed()
    }

    /// Extends the visibility of all messages without an ack decision.
    fn extend(&self, work: &mut Work) {
        let undecided = self.store.change(|held| held.undecided());
        for chunk in undecided.chunks(MAX_ENTRIES) {
            let (store, directory, queue) =
                (self.store.clone(), self.directory.clone(), self.queue.clone());
            let (chunk, visibility) = (chunk.to_vec(), self.visibility);
            let extension = async move {
                let receipts: Vec<String> =
                    chunk.iter().map(|(_, receipt)| receipt.clone()).collect();
                let until = now() + visibility;
                let changed = change_visibility(&directory, &queue, &receipts, visibility).await;
                match changed {
                    Ok(refused) => store.change(|held| {
                        for (number, (tag, _)) in chunk.iter().enumerate() {
                            if refused.iter().any(|(at, _)| *at == number) {
                                held.lose(*tag);
                            } else {
                                held.extend(*tag, until);
                            }
                        }
                    }),
                    Err(failure) => tracing::debug!(
                        error = failure.text,
                        "extending the visibility of messages failed"
                    ),
                }
                Ended::Extension
            };
            work.running.push(extension.boxed());
            work.extensions += 1;
        }
    }
}

/// Deletes messages, at most ten; gives those that the service refuses.
async fn delete_messages(
    directory: &Directory,
    queue: &str,
    receipts: &[&str],
) -> Result<Vec<(usize, Failure)>, Failure> {
    if receipts.is_empty() {
        return Ok(Vec::new());
    }
    let url = directory.queue(queue).await?;
    let mut request = directory.clients.sqs.delete_message_batch().queue_url(url);
    for (number, receipt) in receipts.iter().enumerate() {
        let entry = DeleteMessageBatchRequestEntry::builder()
            .id(number.to_string())
            .receipt_handle(*receipt)
            .build()
            .map_err(|error| Failure::transient(error.to_string()))?;
        request = request.entries(entry);
    }
    let reply = directory.clients.request("took no ack decision", request.send()).await;
    let reply = reply.map_err(|failure| failure.at("queue", queue))?;
    let refused = reply.failed().iter().filter_map(|entry| {
        let text = entry.message().unwrap_or_default();
        let failure = Failure::from_entry(entry.code(), text, entry.sender_fault());
        Some((entry.id().parse().ok()?, failure.at("queue", queue)))
    });
    Ok(refused.collect())
}
