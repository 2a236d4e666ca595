//! Messages that are published at once, and their outcomes.

use super::{PublishError, Publisher, Receipt};
use crate::event::Message;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a publish of one message ended.
type Outcome = Result<Receipt, PublishError>;

/// Messages that a [`Publisher`] publishes at once. It reports the outcome of each at once with [`done`](Self::done).
///
/// The relay takes reported outcomes while the other messages are in flight, and keeps them when the deadline of the route
/// ends the call: one message that hangs delays no other.
///
/// ```
/// # use outbox_core::transport::{Batch, PublishError, Receipt};
/// # async fn send(_: &outbox_core::event::Message) -> bool { true }
/// async fn publish_batch(batch: &mut Batch) {
///     for (index, message) in batch.messages().iter().enumerate() {
///         if send(message).await {
///             batch.done(index, Ok(Receipt::new())); // counts at once
///         }
///     }
///     batch.rest(|| Err(PublishError::unavailable("the connection was lost")));
/// }
/// ```
#[derive(Debug)]
pub struct Batch {
    messages: Arc<[Message]>,
    outcomes: Outcomes,
    once: bool,
}

impl Batch {
    /// Makes a batch of messages without outcomes.
    #[must_use]
    pub fn new(messages: impl Into<Arc<[Message]>>) -> Self {
        let messages = messages.into();
        let outcomes = Outcomes::of(messages.len());
        Self { messages, outcomes, once: false }
    }

    /// Says that no message may reach its destination twice, as on an at-most-once route.
    #[must_use]
    pub fn at_most_once(mut self, once: bool) -> Self {
        self.once = once;
        self
    }

    /// Tells whether no message may reach its destination twice: a publisher then sends none of them again by itself,
    /// whatever the failure was.
    #[must_use]
    pub fn is_at_most_once(&self) -> bool {
        self.once
    }

    /// Gives the messages. An outcome is reported by a message's index among them.
    #[must_use]
    pub fn messages(&self) -> Arc<[Message]> {
        self.messages.clone()
    }

    /// Tells how many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Tells whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Reports the outcome of the message at an index, from 0. The first report of a message stands; a later one, and
    /// one beyond the last message, changes nothing.
    pub fn done(&mut self, index: usize, outcome: Result<Receipt, PublishError>) {
        self.outcomes.report(index, outcome);
    }

    /// Reports one outcome for all messages without one.
    pub fn rest(&mut self, outcome: impl Fn() -> Result<Receipt, PublishError>) {
        for index in 0..self.len() {
            if !self.outcomes.is_reported(index) {
                self.done(index, outcome());
            }
        }
    }

    /// Gives the outcomes, in the order of the messages; `None` for a message without one.
    #[must_use]
    pub fn into_outcomes(self) -> Vec<Option<Result<Receipt, PublishError>>> {
        let mut outcomes: Vec<_> = self.messages.iter().map(|_| None).collect();
        for (index, outcome) in self.outcomes.take() {
            outcomes[index] = Some(outcome);
        }
        outcomes
    }

    /// Makes a batch of other forms of its messages, in their order, whose outcomes are reported to this one at once.
    pub(super) fn in_another_form(&self, messages: Vec<Message>) -> Self {
        Self { messages: messages.into(), outcomes: self.outcomes.clone(), once: self.once }
    }

    /// Gives a second handle on the outcomes, which outlives a cancelled call.
    pub(crate) fn outcomes(&self) -> Outcomes {
        self.outcomes.clone()
    }
}

/// The outcomes of a batch that were reported and not taken yet.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes(Arc<Mutex<Reported>>);

#[derive(Debug)]
struct Reported {
    /// Which messages were reported, those whose outcome was taken included.
    seen: Vec<bool>,
    untaken: Vec<(usize, Outcome)>,
}

impl Outcomes {
    fn of(messages: usize) -> Self {
        Self(Arc::new(Mutex::new(Reported {
            seen: vec![false; messages],
            untaken: Vec::with_capacity(messages),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, index: usize, outcome: Outcome) {
        let mut reported = self.lock();
        let Some(seen) = reported.seen.get_mut(index) else { return };
        if !std::mem::replace(seen, true) {
            reported.untaken.push((index, outcome));
        }
    }

    fn is_reported(&self, index: usize) -> bool {
        self.lock().seen.get(index).copied().unwrap_or(true)
    }

    /// Takes the outcomes that were reported since the last call.
    pub(crate) fn take(&self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut self.lock().untaken)
    }

    /// Gives the indices of messages without an outcome.
    pub(crate) fn missing(&self) -> Vec<usize> {
        self.lock()
            .seen
            .iter()
            .enumerate()
            .filter(|(_, seen)| !**seen)
            .map(|(index, _)| index)
            .collect()
    }
}

/// Publishes messages at once, as the relay does, and waits for all of them: one outcome each, in their order. A message
/// of which the publisher reports nothing counts as a transient failure.
///
/// ```
/// # use outbox_core::{event::Message, transport::{Publisher, publish_all}};
/// # async fn example(publisher: &dyn Publisher, messages: &[Message]) {
/// let outcomes = publish_all(publisher, messages).await;
/// assert_eq!(outcomes.len(), messages.len());
/// # }
/// ```
pub async fn publish_all<P: Publisher + ?Sized>(
    publisher: &P,
    messages: &[Message],
) -> Vec<Result<Receipt, PublishError>> {
    let mut batch = Batch::new(messages);
    publisher.publish_batch(&mut batch).await;
    let missing =
        || Err(PublishError::transient("the publisher reported no outcome of this message"));
    batch.into_outcomes().into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{runtime::catch_unwind, testing::transport::numbered};
    use async_trait::async_trait;
    use std::future::pending;

    struct OnePanicsOneHangs;

    #[async_trait]
    impl Publisher for OnePanicsOneHangs {
        async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
            match message.key.as_deref() {
                Some("panics") => panic!("on purpose"),
                Some("hangs") => pending().await,
                _ => Ok(Receipt::new()),
            }
        }
    }

    #[test]
    fn the_first_report_of_a_message_stands() {
        let mut batch = Batch::new(vec![numbered(1, "a"), numbered(2, "b")]);
        batch.done(0, Ok(Receipt::new().at(7)));
        batch.done(0, Err(PublishError::permanent("too late")));
        batch.done(9, Ok(Receipt::new()));
        assert_eq!(batch.outcomes().missing(), [1]);
        batch.rest(|| Err(PublishError::unavailable("gone")));
        let told: Vec<_> = batch
            .into_outcomes()
            .into_iter()
            .map(|o| o.expect("all").map(|r| r.position))
            .collect();
        assert!(
            matches!(told.as_slice(), [Ok(Some(7)), Err(error)] if error.class() == crate::failure::FailureClass::Unavailable)
        );
    }

    #[tokio::test]
    async fn one_of_many_that_panics_or_hangs_takes_no_other_with_it() {
        let mut batch =
            Batch::new(["a", "panics", "hangs", "b"].map(|key| numbered(1, key)).to_vec());
        let outcomes = batch.outcomes();
        let publishing = catch_unwind(OnePanicsOneHangs.publish_batch(&mut batch));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(50), publishing).await.is_err(),
            "one hangs"
        );
        let mut told: Vec<_> =
            outcomes.take().into_iter().map(|(index, outcome)| (index, outcome.is_ok())).collect();
        told.sort_unstable();
        assert_eq!(told, [(0, true), (1, false), (3, true)]);
        assert_eq!(outcomes.missing(), [2]);
    }
}
