//! Deliveries that this instance does not know: handed over to an instance that knows them.

use super::{AckDecision, HandlerOutcome, Worker, decoding::proves_unknown, permanent};
use crate::{
    consumer::{
        handler::{HandlerEntry, UnhandledPolicy},
        instance::{Peers, Unknown, after_unknown, knows},
        settings::AckMode,
    },
    event::Message,
    failure::DeadReason,
    outbox::{
        Awaited, ConsumerStore, Deferral, DeferredDelivery, History, StoreError, StoredDelivery,
        roll_back,
    },
    runtime::now,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long the rows of the other instances count as fresh for a message of a type that no handler takes
/// here.
const PEERS_ARE_FRESH: Duration = Duration::from_secs(1);
/// Types that the consumer warns of at most: a sender that names types by order numbers fills no memory.
const MOST_TYPES: usize = 1_000;

/// The declarations of the other instances as read last, and the types that no handler takes.
#[derive(Default)]
pub(in crate::consumer) struct PeerCache {
    peers: Mutex<(Arc<Peers>, Option<Instant>)>,
    /// Held while the rows are read: one read serves all that wait for it.
    reading: tokio::sync::Mutex<()>,
    unhandled_types: Mutex<BTreeSet<String>>,
    /// The types that were warned of, by what their messages are to a saga.
    warned: Mutex<BTreeSet<(SagaRole, String)>>,
}

/// What a message is to a saga.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SagaRole {
    Command,
    Reply,
    None,
}

impl SagaRole {
    fn of(message: &Message) -> Self {
        if crate::saga::is_reply(&message.headers) {
            Self::Reply
        } else if crate::saga::is_command(&message.headers) {
            Self::Command
        } else {
            Self::None
        }
    }
}

/// Adds to a bounded set; tells whether the item is new there.
fn insert_bounded<T: Ord>(set: &mut BTreeSet<T>, new: T) -> bool {
    set.len() < MOST_TYPES && set.insert(new)
}

impl PeerCache {
    /// Stores the declarations of the other instances.
    pub(in crate::consumer) fn note(&self, peers: Peers) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::new(peers), Some(now()));
    }

    /// Gives the declarations that were read last.
    pub(in crate::consumer) fn peers(&self) -> Arc<Peers> {
        self.read().0
    }

    fn read(&self) -> (Arc<Peers>, Option<Instant>) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unhandled_types(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.unhandled_types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Gives the ack decision for a message that no handler takes here.
    pub(super) async fn unhandled(&self, message: &Message) -> Result<AckDecision, StoreError> {
        if message.is_tombstone() {
            tracing::debug!("no handler takes the tombstone");
            return Ok(AckDecision::Ack);
        }
        let peers = self.peers_for(message).await?;
        let takers = peers.takers(message);
        // Handlers that acknowledge by themselves run no stored deliveries.
        let manual = self.settings.ack == AckMode::Manual;
        if !takers.is_empty() && manual {
            self.pause_before_nack().await;
            return Ok(AckDecision::Nack);
        }
        if !takers.is_empty() {
            let awaited = Awaited::type_of(message);
            for handler in takers {
                // A reply to a saga is for an instance that has the saga, which is not known here.
                let awaited = (!crate::saga::is_reply(&message.headers)).then_some(&awaited);
                self.hand_over(handler, message, &History::default(), awaited).await?;
            }
            return Ok(AckDecision::Ack);
        }
        self.count(|s| s.unknown += 1);
        let reason = format!("no handler takes the type `{}`", message.event_type);
        insert_bounded(&mut self.peer_cache.unhandled_types(), message.event_type.clone());
        match self.settings.unhandled {
            UnhandledPolicy::Ack => {
                self.warn_once(message);
                Ok(AckDecision::Ack)
            }
            UnhandledPolicy::Defer if !manual => {
                self.warn_once(message);
                self.hand_over("", message, &History::default(), Some(&Awaited::type_of(message)))
                    .await
            }
            UnhandledPolicy::Nack | UnhandledPolicy::Defer => {
                self.warn_once(message);
                self.pause_before_nack().await;
                Ok(AckDecision::Nack)
            }
            UnhandledPolicy::Reject => Ok(AckDecision::Reject(reason)),
            UnhandledPolicy::DeadLetter => {
                let history = History { errors: vec![permanent(&reason)], ..History::default() };
                let letter = self.letter("", Ok(message), DeadReason::UnknownType, &history);
                self.give_up(&letter, None, reason).await
            }
        }
    }

    /// Gives the declarations of the other instances: read again at the first message of a type, and once a
    /// second at most after that.
    async fn peers_for(&self, message: &Message) -> Result<Arc<Peers>, StoreError> {
        let arrived_at = now();
        let is_known = {
            let unhandled = self.peer_cache.unhandled_types();
            // A sender that goes on inventing types causes no read for each of its messages.
            unhandled.len() >= MOST_TYPES || unhandled.contains(&message.event_type)
        };
        let is_fresh = |read_at: Option<Instant>| {
            read_at.is_some_and(|at| {
                at >= arrived_at || (is_known && arrived_at.duration_since(at) < PEERS_ARE_FRESH)
            })
        };
        let (peers, read_at) = self.peer_cache.read();
        if is_fresh(read_at) {
            return Ok(peers);
        }
        let _single_read = self.peer_cache.reading.lock().await;
        let (peers, read_at) = self.peer_cache.read();
        if is_fresh(read_at) {
            return Ok(peers);
        }
        self.read_peers().await?;
        Ok(self.peer_cache.peers())
    }

    /// Reads the declarations of the other instances.
    async fn read_peers(&self) -> Result<(), StoreError> {
        let mut rows = self.store.instances(&self.consumer).await?;
        rows.retain(|row| *row.id != *self.by);
        self.peer_cache.note(Peers::of(&rows, &self.declared));
        Ok(())
    }

    /// Warns of a type that no handler takes, once for events, for commands and for replies.
    fn warn_once(&self, message: &Message) {
        let role = SagaRole::of(message);
        let mut warned = self.peer_cache.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !insert_bounded(&mut warned, (role, message.event_type.clone())) {
            return;
        }
        drop(warned);
        if role == SagaRole::Reply {
            tracing::warn!(
                consumer = &*self.consumer,
                event_type = message.event_type,
                policy = ?self.settings.unhandled,
                "this consumer receives replies to commands of sagas and handles none, so the sagas wait until their steps time \
                 out: add `.replies(&sagas)` to it, or receive the replies elsewhere; not logged again for this type"
            );
            return;
        }
        if role == SagaRole::Command {
            tracing::warn!(
                consumer = &*self.consumer,
                event_type = message.event_type,
                policy = ?self.settings.unhandled,
                "no handler of this consumer takes this command of a saga, which waits for the reply: until its step times out, \
                 or for ever where the command undoes or is the pivot's; add `on_command` for the type, also where it undoes another, if this consumer is to reply; not logged again \
                 for this type"
            );
            return;
        }
        tracing::warn!(
            consumer = &*self.consumer,
            event_type = message.event_type,
            policy = ?self.settings.unhandled,
            "no handler of this consumer takes messages of this type; they are counted as `unknown` and not logged again. To keep \
             them for an instance that takes them later, set `unhandled(UnhandledPolicy::Defer)`"
        );
    }

    /// Stores a delivery, to wait for an instance that knows it.
    pub(super) async fn hand_over(
        &self,
        handler: &str,
        message: &Message,
        history: &History,
        awaited: Option<&Awaited>,
    ) -> Result<AckDecision, StoreError> {
        let peers = self.peer_cache.peers();
        let unknown = match awaited {
            Some(awaited) if self.knows_in_vain(handler, awaited, history) => Unknown::GiveUp,
            _ => after_unknown(None, self.settings.keep_unknown, peers.know(handler, awaited)),
        };
        let refusal = match unknown {
            Unknown::Wait(longest) => {
                let history = history.clone();
                let due_in = Some(longest);
                let delivery = DeferredDelivery {
                    consumer: &self.consumer,
                    handler,
                    message,
                    due_in,
                    history,
                };
                match self.retry_while_busy(|| self.hand_over_once(&delivery, awaited)).await {
                    Ok(()) => {
                        tracing::debug!(handler, awaited = ?awaited, ?longest, "a delivery is handed over to another instance");
                        self.count(|s| s.handed_over += 1);
                        return Ok(AckDecision::Ack);
                    }
                    Err(StoreError::Refused(cause)) => {
                        format!(
                            ": the database refused to store it: {}",
                            crate::failure::full_text(&*cause)
                        )
                    }
                    Err(error) => return Err(error),
                }
            }
            Unknown::GiveUp => String::new(),
        };
        let text = format!("{}{refusal}", unknown_reason(awaited));
        let mut history = history.clone();
        history.errors.push(permanent(&text));
        let letter = self.letter(handler, Ok(message), DeadReason::UnknownType, &history);
        self.give_up(&letter, None, text).await
    }

    /// Tells whether this instance declares what it did not know all the same: so would the others.
    fn knows_in_vain(&self, handler: &str, awaited: &Awaited, history: &History) -> bool {
        proves_unknown(awaited, history.attempts)
            && knows(&self.declared, self.decoding.codecs(), handler, Some(awaited))
    }

    async fn hand_over_once(
        &self,
        delivery: &DeferredDelivery<'_>,
        awaited: Option<&Awaited>,
    ) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        match self.store.hand_over(&tx, delivery, awaited).await {
            Ok(()) => self.store.commit(tx).await,
            Err(error) => {
                roll_back(&self.store, tx).await;
                Err(error)
            }
        }
    }

    /// Lets a stored delivery wait for an instance that knows it, or gives it up when its wait is over.
    pub(super) async fn hand_over_stored(
        &self,
        stored: &StoredDelivery,
        message: &Message,
        history: History,
        (awaited, longest): (Option<&Awaited>, Duration),
    ) -> Result<(), StoreError> {
        let (peers, handler) = (self.peer_cache.peers(), &*stored.handler);
        let unknown = match awaited {
            Some(awaited) if self.knows_in_vain(handler, awaited, &history) => Unknown::GiveUp,
            _ => after_unknown(stored.awaited_for, longest, peers.know(handler, awaited)),
        };
        if let Unknown::Wait(due_in) = unknown {
            let deferral = Deferral { due_in, history: &history };
            if self.store.hand_over_claimed(&stored.claim, deferral, awaited).await? {
                tracing::debug!(handler, awaited = ?awaited, ?due_in, "a stored delivery is handed over to another instance");
                self.count(|s| s.handed_over += 1);
            }
            return Ok(());
        }
        let text = unknown_reason(awaited);
        tracing::warn!(handler, message_id = %message.id, reason = text, "a stored delivery is given up");
        let mut history = history;
        history.errors.push(permanent(&text));
        self.dead_letter_stored(stored, Some(message), DeadReason::UnknownType, &history, text)
            .await
    }
}

/// Says why the consumer gives up a delivery that no instance knows.
fn unknown_reason(awaited: Option<&Awaited>) -> String {
    match awaited {
        Some(awaited) => format!("no instance of this consumer knows {awaited}: start one that does, then redrive"),
        None => "no instance of this consumer has the handler any more: say `renamed_from` where it has another name, \
                 then redrive"
            .to_owned(),
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Finds a handler by its name or its former name.
    pub(super) fn entry(&self, handler: &str) -> Option<&HandlerEntry<S>> {
        self.handlers.iter().find(|entry| entry.names().any(|name| name == handler))
    }

    /// Gives the names under which the inbox has a handler's messages.
    pub(super) fn names_of<'a>(&'a self, handler: &'a str) -> impl Iterator<Item = &'a str> {
        let entry = self.entry(handler);
        entry
            .is_none()
            .then_some(handler)
            .into_iter()
            .chain(entry.into_iter().flat_map(HandlerEntry::names))
    }

    /// Gives the name under which a delivery is stored for a handler: its former name, while another instance
    /// has that and as long as the release may be rolled back, so that both versions keep the order of a key.
    pub(super) fn stored_name<'a>(&self, entry: &'a HandlerEntry<S>) -> &'a str {
        self.name_in_use(entry).unwrap_or(&entry.name)
    }

    fn name_in_use(&self, entry: &HandlerEntry<S>) -> Option<&'static str> {
        let is_new = now().duration_since(self.started_at) < self.settings.keep_unknown;
        entry.options.renamed_from.filter(|before| is_new || self.peer_cache.peers().have(before))
    }

    /// Gives a handler's former name, where nothing is stored under it any more.
    pub(in crate::consumer) fn renamed_from(
        &self,
        entry: &HandlerEntry<S>,
    ) -> Option<&'static str> {
        entry.options.renamed_from.filter(|_| self.name_in_use(entry).is_none())
    }
}

impl HandlerOutcome {
    /// Gives what another instance must know to run the message; `None` where this one can.
    pub(super) const fn awaited(&self) -> Option<&Awaited> {
        match self {
            Self::Unknown(awaited) => Some(awaited),
            _ => None,
        }
    }
}
