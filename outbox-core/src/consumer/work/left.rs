//! What this instance does not know: left to an instance that does.

use super::{Answer, Verdict, Worker, permanent};
use crate::{
    consumer::{
        handler::{Route, UnhandledPolicy},
        instance::{Peers, Unknown, after_unknown, knows},
        settings::AckMode,
    },
    event::Message,
    failure::DeadReason,
    outbox::{Awaited, ConsumerStore, History, Postponed, PutBy, StoreError, StoredDelivery},
    runtime::now,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long what was read of the other instances counts where a message of a type comes that no handler takes here.
const PEERS_ARE_FRESH: Duration = Duration::from_secs(1);
/// Types that are warned of: whoever names types by order numbers fills no memory.
const MOST_TYPES: usize = 1_000;

/// What is known of the other instances, and of the types that no handler takes.
#[derive(Default)]
pub(in crate::consumer) struct Others {
    peers: Mutex<(Arc<Peers>, Option<Instant>)>,
    /// One read for all that wait for it.
    reading: tokio::sync::Mutex<()>,
    /// Types that no handler takes.
    passed: Mutex<BTreeSet<String>>,
    /// Those that were warned of, with what their messages are to a saga.
    warned: Mutex<BTreeSet<(Role, String)>>,
}

/// What a message is to a saga.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Command,
    Answer,
    Event,
}

impl Role {
    fn of(message: &Message) -> Self {
        if crate::saga::is_answer(&message.headers) {
            Self::Answer
        } else if crate::saga::is_command(&message.headers) {
            Self::Command
        } else {
            Self::Event
        }
    }
}

/// Adds to a set that is bounded; tells whether it is new there.
fn add<T: Ord>(set: &mut BTreeSet<T>, new: T) -> bool {
    set.len() < MOST_TYPES && set.insert(new)
}

impl Others {
    /// Notes what was read of the other instances.
    pub(in crate::consumer) fn note(&self, peers: Peers) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::new(peers), Some(now()));
    }

    /// Gives what was read last.
    pub(in crate::consumer) fn peers(&self) -> Arc<Peers> {
        self.read().0
    }

    fn read(&self) -> (Arc<Peers>, Option<Instant>) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn passed(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Answers for a message that no handler takes here.
    pub(super) async fn unhandled(&self, message: &Message) -> Result<Answer, StoreError> {
        if message.is_tombstone() {
            tracing::debug!("no handler takes the tombstone");
            return Ok(Answer::Ack);
        }
        let peers = self.peers_for(message).await?;
        let takers = peers.takers(message);
        // A handler that answers for its deliveries by hand has none of what is stored.
        let by_hand = self.settings.ack == AckMode::Manual;
        if !takers.is_empty() && by_hand {
            self.before_a_return().await;
            return Ok(Answer::Nack);
        }
        if !takers.is_empty() {
            let awaited = Awaited::type_of(message);
            for handler in takers {
                // An answer to a saga is for whoever has the saga, of which nothing is known here.
                let awaited = (!crate::saga::is_answer(&message.headers)).then_some(&awaited);
                self.leave(handler, message, &History::default(), awaited).await?;
            }
            return Ok(Answer::Ack);
        }
        self.count(|s| s.unknown += 1);
        add(&mut self.others.passed(), message.event_type.clone());
        let reason = format!("no handler takes the type `{}`", message.event_type);
        match self.settings.unhandled {
            UnhandledPolicy::Ack => {
                self.warn_once(message);
                Ok(Answer::Ack)
            }
            UnhandledPolicy::Defer if !by_hand => {
                self.warn_once(message);
                self.leave("", message, &History::default(), Some(&Awaited::type_of(message))).await
            }
            UnhandledPolicy::Nack | UnhandledPolicy::Defer => {
                self.warn_once(message);
                self.before_a_return().await;
                Ok(Answer::Nack)
            }
            UnhandledPolicy::Reject => Ok(Answer::Reject(reason)),
            UnhandledPolicy::DeadLetter => {
                let history = History { errors: vec![permanent(&reason)], ..History::default() };
                let letter = self.letter("", Ok(message), DeadReason::UnknownType, &history);
                self.give_up(&letter, None, reason).await
            }
        }
    }

    /// Gives what the other instances declare: read anew at the first message of a type, and once a second at most after that.
    async fn peers_for(&self, message: &Message) -> Result<Arc<Peers>, StoreError> {
        let came = now();
        let is_known = {
            let passed = self.others.passed();
            // Whoever goes on naming types anew has no read for each of his messages.
            passed.len() >= MOST_TYPES || passed.contains(&message.event_type)
        };
        let is_fresh = |read_at: Option<Instant>| {
            read_at.is_some_and(|at| at >= came || (is_known && came.duration_since(at) < PEERS_ARE_FRESH))
        };
        let (peers, read_at) = self.others.read();
        if is_fresh(read_at) {
            return Ok(peers);
        }
        let _alone = self.others.reading.lock().await;
        let (peers, read_at) = self.others.read();
        if is_fresh(read_at) {
            return Ok(peers);
        }
        self.read_peers().await?;
        Ok(self.others.peers())
    }

    /// Reads what the other instances declare.
    async fn read_peers(&self) -> Result<(), StoreError> {
        let mut rows = self.store.instances(&self.consumer).await?;
        rows.retain(|row| *row.id != *self.by);
        self.others.note(Peers::of(&rows, &self.declared));
        Ok(())
    }

    /// Warns of a type that no handler takes, once for events, for commands and for answers.
    fn warn_once(&self, message: &Message) {
        let role = Role::of(message);
        let mut warned = self.others.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !add(&mut warned, (role, message.event_type.clone())) {
            return;
        }
        drop(warned);
        if role == Role::Answer {
            tracing::warn!(
                consumer = &*self.consumer,
                event_type = message.event_type,
                policy = ?self.settings.unhandled,
                "this consumer gets answers to commands of sagas and takes none, so the sagas wait until their steps time out: add \
                 `.replies(&sagas)` to it, or take the answers elsewhere; not told again for this type"
            );
            return;
        }
        if role == Role::Command {
            tracing::warn!(
                consumer = &*self.consumer,
                event_type = message.event_type,
                policy = ?self.settings.unhandled,
                "no handler of this consumer takes this command of a saga, which waits for its answer: until its step times \
                 out, or for ever where the command undoes or is the pivot's; add `on_command` for the type, also where it undoes another, if this consumer is the one that answers; not told again \
                 for this type"
            );
            return;
        }
        tracing::warn!(
            consumer = &*self.consumer,
            event_type = message.event_type,
            policy = ?self.settings.unhandled,
            "no handler of this consumer takes messages of this type; they are counted as `unknown` and not told again. Where an \
             instance to come should have them, `others(UnhandledPolicy::Defer)` keeps them"
        );
    }

    /// Leaves a delivery to an instance that knows it: stores it, to wait for that.
    pub(super) async fn leave(
        &self,
        handler: &str,
        message: &Message,
        history: &History,
        awaited: Option<&Awaited>,
    ) -> Result<Answer, StoreError> {
        let peers = self.others.peers();
        let unknown = match awaited {
            // It does not know what it says that it knows: nobody does.
            Some(awaited) if knows(&self.declared, handler, Some(awaited)) => Unknown::GiveUp,
            _ => after_unknown(None, self.settings.keep_unknown, peers.know(handler, awaited)),
        };
        let refused = match unknown {
            Unknown::Wait(longest) => {
                let history = history.clone();
                let due_in = Some(longest);
                let delivery = PutBy { consumer: &self.consumer, handler, message, due_in, history };
                match self.with_patience(|| self.leave_once(&delivery, awaited)).await {
                    Ok(()) => {
                        tracing::debug!(handler, awaited = ?awaited, ?longest, "a delivery is left to another instance");
                        self.count(|s| s.left += 1);
                        return Ok(Answer::Ack);
                    }
                    Err(StoreError::Refused(cause)) => {
                        format!(": the database refused to store it: {}", crate::failure::full_text(&*cause))
                    }
                    Err(error) => return Err(error),
                }
            }
            Unknown::GiveUp => String::new(),
        };
        let text = format!("{}{refused}", nobody_knows(awaited));
        let mut history = history.clone();
        history.errors.push(permanent(&text));
        let letter = self.letter(handler, Ok(message), DeadReason::UnknownType, &history);
        self.give_up(&letter, None, text).await
    }

    async fn leave_once(&self, delivery: &PutBy<'_>, awaited: Option<&Awaited>) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        match self.store.leave(&tx, delivery, awaited).await {
            Ok(()) => self.store.commit(tx).await,
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        }
    }

    /// Leaves a stored delivery to an instance that knows it, or gives it up when it has waited for one long enough.
    pub(super) async fn leave_stored(
        &self,
        stored: &StoredDelivery,
        message: &Message,
        history: History,
        (awaited, longest): (Option<&Awaited>, Duration),
    ) -> Result<(), StoreError> {
        let (peers, handler) = (self.others.peers(), &*stored.handler);
        let unknown = match awaited {
            Some(awaited) if knows(&self.declared, handler, Some(awaited)) => Unknown::GiveUp,
            _ => after_unknown(stored.awaited_for, longest, peers.know(handler, awaited)),
        };
        if let Unknown::Wait(due_in) = unknown {
            let postponed = Postponed { due_in, history: &history };
            if self.store.leave_claimed(&stored.claim, postponed, awaited).await? {
                tracing::debug!(handler, awaited = ?awaited, ?due_in, "a stored delivery is left to another instance");
                self.count(|s| s.left += 1);
            }
            return Ok(());
        }
        let text = nobody_knows(awaited);
        tracing::warn!(handler, message_id = %message.id, reason = text, "a stored delivery is given up");
        let mut history = history;
        history.errors.push(permanent(&text));
        self.bury_stored(stored, Some(message), DeadReason::UnknownType, &history, text).await
    }
}

/// Says why a delivery is given up that nobody knows.
fn nobody_knows(awaited: Option<&Awaited>) -> String {
    match awaited {
        Some(awaited) => format!("no instance of this consumer knows {awaited}: start one that does, then redrive"),
        None => "no instance of this consumer has the handler any more: say `renamed_from` where it has another name, \
                 then redrive"
            .to_owned(),
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Finds a handler by its name, or by the one that it had before.
    pub(super) fn route(&self, handler: &str) -> Option<&Route<S>> {
        self.routes.iter().find(|route| route.names().any(|name| name == handler))
    }

    /// Gives the names under which the inbox knows what a handler has received.
    pub(super) fn names_of<'a>(&'a self, handler: &'a str) -> impl Iterator<Item = &'a str> {
        let route = self.route(handler);
        route.is_none().then_some(handler).into_iter().chain(route.into_iter().flat_map(Route::names))
    }

    /// Gives the name under which a delivery is stored for a handler: the one that it had before, while another instance has that
    /// and as long as the release may be taken back; then both keep the order of a key.
    pub(super) fn stored_name<'a>(&self, route: &'a Route<S>) -> &'a str {
        self.name_in_use(route).unwrap_or(&route.name)
    }

    fn name_in_use(&self, route: &Route<S>) -> Option<&'static str> {
        let is_new = now().duration_since(self.started_at) < self.settings.keep_unknown;
        route.options.renamed_from.filter(|before| is_new || self.others.peers().have(before))
    }

    /// Gives the name that a handler had before, where nothing is stored under it any more.
    pub(in crate::consumer) fn renamed_from(&self, route: &Route<S>) -> Option<&'static str> {
        route.options.renamed_from.filter(|_| self.name_in_use(route).is_none())
    }
}

impl Verdict {
    /// Gives what an instance has to know that can run the message, where this one cannot.
    pub(super) const fn awaited(&self) -> Option<&Awaited> {
        match self {
            Self::Unknown(awaited) => Some(awaited),
            _ => None,
        }
    }
}
