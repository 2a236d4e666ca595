//! The task that carries ack decisions out, several in one request, and extends the visibility of
//! messages that have none yet.

use super::{
    Held, MAX_ENTRIES, Store, Tag,
    poll::{change_visibility, make_visible},
};
use crate::{classify::Failure, topology::Directory};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use outbox_core::{failure::FailureClass, runtime::now};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
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
    /// All messages that were not handed out are returned.
    ReturnWaiting,
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

/// Messages that are to be visible again.
#[derive(Debug)]
enum Return {
    /// One message, with those behind it in its group.
    One(Tag, Duration, Option<Reply>),
    /// All that were not handed out.
    Waiting,
}

/// Messages that are no longer held, to be made visible after a delay.
#[derive(Debug)]
struct Returned {
    receipts: Vec<String>,
    delay: Duration,
    reply: Option<Reply>,
}

/// What is to be done and what is under way.
#[derive(Default)]
struct Work {
    deletes: Vec<(Tag, Reply)>,
    /// Returns of messages that are held as yet.
    returns: Vec<Return>,
    returned: VecDeque<Returned>,
    flushes: Vec<Reply>,
    running: Running,
    requests: usize,
    extensions: usize,
}

impl Work {
    fn add(&mut self, decision: AckDecision) {
        match decision {
            AckDecision::Delete(tag, reply) => self.deletes.push((tag, reply)),
            AckDecision::Return(tag, delay, reply) => {
                self.returns.push(Return::One(tag, delay, reply));
            }
            AckDecision::ReturnWaiting => self.returns.push(Return::Waiting),
            AckDecision::Flush(reply) => self.flushes.push(reply),
        }
    }

    /// Tells whether extensions may begin. While returns wait for those that are under way, none
    /// do: as long as one of them is always under way, no return would be carried out.
    fn may_extend(&self) -> bool {
        self.returns.is_empty()
    }

    /// Takes messages that are to be returned from those that are held. It waits for extensions
    /// that are under way, which could arrive behind the return and undo it; later ones leave out
    /// what is no longer held.
    fn take_back(&mut self, store: &Store) {
        if self.extensions > 0 || self.returns.is_empty() {
            return;
        }
        let returns = std::mem::take(&mut self.returns);
        let taken = returns.into_iter().map(|to_return| match to_return {
            Return::One(tag, delay, reply) => {
                let receipts = store.change(|held| held.take_back(tag));
                Returned { receipts, delay, reply }
            }
            Return::Waiting => {
                let receipts = store.change(Held::take_waiting);
                Returned { receipts, delay: Duration::ZERO, reply: None }
            }
        });
        self.returned.extend(taken);
    }

    fn is_idle(&self) -> bool {
        self.deletes.is_empty()
            && self.returns.is_empty()
            && self.returned.is_empty()
            && self.requests == 0
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
                _ = extend.tick(), if work.may_extend() => self.extend(&mut work),
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
        work.take_back(&self.store);
        while work.requests < MAX_REQUESTS {
            let Some(returned) = work.returned.pop_front() else { break };
            work.running.push(self.make_visible(returned));
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

    fn make_visible(&self, returned: Returned) -> BoxFuture<'static, Ended> {
        let (directory, queue) = (self.directory.clone(), self.queue.clone());
        let Returned { receipts, delay, reply } = returned;
        async move {
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
                if let Ok(refused) = &changed {
                    let tags: Vec<Tag> = chunk.iter().map(|(tag, _)| *tag).collect();
                    store.change(|held| note_extension(held, &tags, refused, until));
                }
                let failed = match &changed {
                    Ok(refused) => refused.first().map(|(_, failure)| failure),
                    Err(failure) => Some(failure),
                };
                if let Some(failure) = failed {
                    tracing::debug!(
                        error = failure.text,
                        "extending the visibility of messages failed"
                    );
                }
                Ended::Extension
            };
            work.running.push(extension.boxed());
            work.extensions += 1;
        }
    }
}

/// Notes how the extension of some messages ended. One that is refused for good is another's; one
/// that fails for now is tried again at the next tick, as long as its time is not up.
fn note_extension(held: &mut Held, tags: &[Tag], refused: &[(usize, Failure)], until: Instant) {
    for (number, tag) in tags.iter().enumerate() {
        match refused.iter().find(|(at, _)| *at == number) {
            None => held.extend(*tag, until),
            Some((_, failure)) if failure.class == FailureClass::Permanent => held.lose(*tag),
            Some(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Received;

    const VISIBILITY: Duration = Duration::from_secs(30);

    /// Holds messages without a group, and hands so many of them out.
    fn holding(messages: u32, handed_out: u32) -> (Store, Vec<Tag>) {
        let (store, until) = (Store::default(), now() + VISIBILITY);
        let received = |n: u32| Received {
            id: n.to_string(),
            group: None,
            deliveries: 1,
            body: String::new(),
            attributes: Vec::new(),
            message: Err("not read".to_owned()),
        };
        store.add((1..=messages).map(|n| (format!("r{n}"), received(n))).collect(), until);
        let next = |_| store.change(|held| held.next(now())).expect("one waits").0;
        let tags = (0..handed_out).map(next).collect();
        (store, tags)
    }

    fn undecided(store: &Store) -> Vec<String> {
        store.change(|held| held.undecided()).into_iter().map(|(_, receipt)| receipt).collect()
    }

    #[test]
    fn what_is_to_be_returned_is_in_no_later_extension_and_waits_for_those_under_way() {
        let (store, tags) = holding(4, 2);
        let mut work = Work { extensions: 1, ..Work::default() };
        work.add(AckDecision::Return(tags[0], VISIBILITY, None));
        work.add(AckDecision::ReturnWaiting);
        work.take_back(&store);
        assert!(work.returned.is_empty(), "the extension could arrive behind it");
        assert!(!work.may_extend(), "a next one would keep it from ever being returned");
        assert!(!work.is_idle());
        work.extensions = 0;
        work.take_back(&store);
        assert!(work.may_extend());
        assert_eq!(undecided(&store), ["r2"], "before a request for the others has begun");
        assert!(!work.is_idle(), "the requests are still to come");
        let of_each = |returned: &Returned| (returned.receipts.join(","), returned.delay);
        let returned: Vec<_> = work.returned.iter().map(of_each).collect();
        let expected = [("r1".to_owned(), VISIBILITY), ("r3,r4".to_owned(), Duration::ZERO)];
        assert_eq!(returned, expected);
    }

    #[test]
    fn an_extension_that_is_refused_for_now_is_tried_again_and_one_that_is_refused_for_good_not() {
        let (store, tags) = holding(4, 4);
        let refused = [
            (0, Failure::from_entry("InternalError", "", false)),
            (1, Failure::from_entry("RequestThrottled", "", true)),
            (2, Failure::from_entry("ReceiptHandleIsInvalid", "", true)),
        ];
        let until = now() + 2 * VISIBILITY;
        store.change(|held| note_extension(held, &tags, &refused, until));
        assert_eq!(undecided(&store), ["r1", "r2", "r4"]);
    }
}
