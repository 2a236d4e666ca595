//! Bounded mailboxes of actors. A mailbox outlives its actor: a restarted actor goes on with the
//! messages that wait.

use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

/// The actor at the other end is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actor has stopped")]
pub struct Closed;

/// Why a message could not be sent at once; it is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<M> {
    /// The mailbox is full.
    #[error("the mailbox is full")]
    Full(M),
    /// The actor is gone for good.
    #[error("the actor has stopped")]
    Closed(M),
}

/// The sending end of an actor's mailbox. Cloning is cheap; a part of the actor's handle.
#[derive(Debug)]
pub struct MailboxSender<M>(mpsc::Sender<M>);

impl<M> Clone for MailboxSender<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The actor's end. Whoever starts the actor keeps a clone and gives one to each run of the actor,
/// which opens it.
#[derive(Debug)]
pub struct Mailbox<M>(Arc<Mutex<mpsc::Receiver<M>>>);

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A mailbox that one run of an actor reads.
#[derive(Debug)]
pub struct MailboxReceiver<M>(OwnedMutexGuard<mpsc::Receiver<M>>);

/// Makes a mailbox for at most so many waiting messages; zero counts as one.
#[must_use]
pub fn mailbox<M>(capacity: usize) -> (MailboxSender<M>, Mailbox<M>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    (MailboxSender(sender), Mailbox(Arc::new(Mutex::new(receiver))))
}

impl<M> MailboxSender<M> {
    /// Sends a message, waiting for room. Not for use inside another actor's loop: two actors that
    /// wait for each other stand still; use [`try_send`](Self::try_send) or
    /// [`reserve`](Self::reserve) there.
    ///
    /// # Errors
    /// [`Closed`] when the actor is gone for good.
    ///
    /// # Cancel safety
    /// A call that is dropped sends nothing.
    pub async fn send(&self, message: M) -> Result<(), Closed> {
        self.0.send(message).await.map_err(|_| Closed)
    }

    /// Sends a message if there is room.
    ///
    /// # Errors
    /// [`TrySendError`] with the message.
    pub fn try_send(&self, message: M) -> Result<(), TrySendError<M>> {
        self.0.try_send(message).map_err(|e| match e {
            mpsc::error::TrySendError::Full(m) => TrySendError::Full(m),
            mpsc::error::TrySendError::Closed(m) => TrySendError::Closed(m),
        })
    }

    /// Waits for room and reserves it: a branch for `select!`, followed by `permit.send(..)`.
    ///
    /// # Errors
    /// [`Closed`] when the actor is gone for good.
    ///
    /// # Cancel safety
    /// A call that is dropped gives its place in the queue back.
    pub async fn reserve(&self) -> Result<mpsc::Permit<'_, M>, Closed> {
        self.0.reserve().await.map_err(|_| Closed)
    }

    /// Waits until the actor is gone for good.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<M> Mailbox<M> {
    /// Opens the mailbox for one run of the actor; waits until the former run has dropped it.
    ///
    /// # Cancel safety
    /// Dropping the call changes nothing.
    pub async fn open(&self) -> MailboxReceiver<M> {
        MailboxReceiver(self.0.clone().lock_owned().await)
    }
}

impl<M> MailboxReceiver<M> {
    /// Gives the next message; `None` when no sender is left and no message waits.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no message.
    pub async fn recv(&mut self) -> Option<M> {
        self.0.recv().await
    }

    /// Adds the messages that wait, at most `limit`, waiting for the first; gives their number, 0
    /// when no sender is left.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no message.
    pub async fn recv_many(&mut self, buffer: &mut Vec<M>, limit: usize) -> usize {
        self.0.recv_many(buffer, limit).await
    }

    /// Takes a message that waits already.
    pub fn try_recv(&mut self) -> Option<M> {
        self.0.try_recv().ok()
    }

    /// Refuses further messages; those that wait are still received.
    pub fn close(&mut self) {
        self.0.close();
    }

    /// Tells how many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_mailbox_gives_the_message_back() {
        let (sender, mailbox) = mailbox(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(mailbox.open().await.recv().await, Some(1));
        assert_eq!(sender.try_send(2), Ok(()));
    }

    #[tokio::test]
    async fn the_next_run_of_an_actor_goes_on_with_the_messages_that_wait() {
        let (sender, mailbox) = mailbox(4);
        for n in 0..3 {
            sender.send(n).await.expect("open");
        }
        let first = crate::runtime::spawn({
            let mailbox = mailbox.clone();
            async move {
                let mut open = mailbox.open().await;
                assert_eq!(open.recv().await, Some(0));
                panic!("the first run ends");
            }
        });
        assert_eq!(first.await, crate::runtime::Exit::<()>::Panicked("the first run ends".into()));
        let mut open = mailbox.open().await;
        let mut rest = Vec::new();
        assert_eq!(open.recv_many(&mut rest, 10).await, 2);
        assert_eq!(rest, [1, 2]);
    }

    #[tokio::test]
    async fn senders_learn_that_the_last_receiver_is_gone() {
        let (sender, mailbox) = mailbox(1);
        drop(mailbox.clone());
        assert_eq!(sender.send(1).await, Ok(()));
        drop(mailbox);
        sender.closed().await;
        assert_eq!(sender.send(2).await, Err(Closed));
        assert_eq!(sender.try_send(2), Err(TrySendError::Closed(2)));
    }
}
