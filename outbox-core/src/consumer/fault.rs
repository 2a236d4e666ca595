//! Faults of a consumer's configuration.

use super::{commands::CommandSources, handler::HandlerEntry, settings::Settings};
use crate::{
    event::TextRule,
    failure::full_text,
    outbox::{ConsumerStore, Store},
    transport::Subscriber,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The rule for the name of a consumer and of a handler: two of them, the source and the id fit a
/// key of every database.
const NAME: TextRule = TextRule::up_to(100);

/// A fault of a consumer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerFault {
    /// The consumer's or a handler's name does not fit the inbox.
    #[error("the name `{0}` does not have {NAME}")]
    Name(String),
    /// The consumer's name has a slash, which parts it from a handler's in dead letters.
    #[error("the consumer's name `{0}` has a slash")]
    Slash(String),
    /// Two handlers have one name.
    #[error("two handlers are called `{0}`")]
    DuplicateHandler(String),
    /// A handler's former name is the name of another handler.
    #[error(
        "the handler `{handler}` has `renamed_from = \"{before}\"`, which is the name of a handler: leave it out, or give \
         the other one another name"
    )]
    RenamedFrom {
        /// The handler's name.
        handler: String,
        /// The former name.
        before: String,
    },
    /// Two handlers handle commands of one type, which has one reply.
    #[error(
        "`{first}` and `{second}` both handle commands of the type `{event_type}`: add one of them with `on`, to which it is an \
         event"
    )]
    DuplicateCommandHandler {
        /// The type.
        event_type: &'static str,
        /// A handler.
        first: String,
        /// Another one.
        second: String,
    },
    /// A handler handles commands of sagas, and the consumer takes none.
    #[error(
        "the handler `{0}` handles commands of sagas, and the consumer takes none: write `commands_from(\"/orders\", \
         \"orders.replies\")` with the source of the service that sends them and the topic of its `reply_to`"
    )]
    NoCommandsFrom(String),
    /// The consumer takes commands of sagas, and no handler handles them.
    #[error(
        "the consumer takes commands of sagas, and no handler handles them: add the handler with `on_command`, not with `on`"
    )]
    NoCommandHandler,
    /// A source or a topic that no message has.
    #[error(
        "`commands_from(\"{source_name}\", \"{topic}\")` does not name a source and a topic of {}",
        TextRule::ATTRIBUTE
    )]
    CommandsFrom {
        /// The source.
        source_name: String,
        /// The topic.
        topic: String,
    },
    /// The consumer has no handler.
    #[error("there is no handler; add one with `on`")]
    NoHandler,
    /// The consumer has no subscriber.
    #[error("there is no subscriber; add one with `subscribe`")]
    NoSubscriber,
    /// A subscriber cannot work as it is configured.
    #[error("a subscriber is configured wrongly: {0}")]
    Subscriber(String),
    /// A message may be delivered again after the inbox has deleted its row.
    #[error(
        "a message may be delivered again for {redelivery_window:?} (by its sender) + {retried_for:?} (retries of this consumer) \
         = {:?}, longer than the inbox retention of {retention:?}",
        .redelivery_window.saturating_add(*.retried_for)
    )]
    InboxRetentionTooShort {
        /// For how long senders and brokers may deliver it again.
        redelivery_window: Duration,
        /// The sum of the consumer's own waits.
        retried_for: Duration,
        /// How long the inbox keeps its rows.
        retention: Duration,
    },
}

/// Gives all faults of a consumer's configuration.
pub(super) fn of_consumer<S: ConsumerStore>(
    consumer: &str,
    (handlers, commands): (&[HandlerEntry<S>], &CommandSources),
    subscribers: &[Box<dyn Subscriber>],
    settings: &Settings,
    retention: Duration,
) -> Vec<ConsumerFault> {
    let mut faults = Vec::new();
    for name in std::iter::once(consumer).chain(handlers.iter().flat_map(HandlerEntry::names)) {
        if !NAME.allows(name) {
            faults.push(ConsumerFault::Name(name.to_owned()));
        }
    }
    if consumer.contains('/') {
        faults.push(ConsumerFault::Slash(consumer.to_owned()));
    }
    let mut seen = BTreeSet::new();
    let duplicates: BTreeSet<_> =
        handlers.iter().map(|entry| &entry.name).filter(|name| !seen.insert(*name)).collect();
    faults.extend(
        duplicates.into_iter().map(|name| ConsumerFault::DuplicateHandler(name.to_string())),
    );
    for entry in handlers {
        let Some(before) = entry.options.renamed_from else { continue };
        let is_taken = |other: &HandlerEntry<S>| {
            &*other.name == before || has_same_former_name(entry, other, before)
        };
        if handlers.iter().any(is_taken) {
            let (handler, before) = (entry.name.to_string(), before.to_owned());
            faults.push(ConsumerFault::RenamedFrom { handler, before });
        }
    }
    faults.extend(of_commands(handlers, commands));
    if handlers.is_empty() {
        faults.push(ConsumerFault::NoHandler);
    }
    if subscribers.is_empty() {
        faults.push(ConsumerFault::NoSubscriber);
    }
    let invalid = subscribers.iter().filter_map(|subscriber| subscriber.check().err());
    faults.extend(invalid.map(|error| ConsumerFault::Subscriber(full_text(&*error.0))));
    let redelivery_window = settings.redelivery_window;
    // A delivery that is retried for ever is stored, and needs an inbox row only for the waits before that.
    let retried_for = settings.retry.longest().unwrap_or(settings.max_unacked_time);
    if redelivery_window.saturating_add(retried_for) > retention {
        faults.push(ConsumerFault::InboxRetentionTooShort {
            redelivery_window,
            retried_for,
            retention,
        });
    }
    faults
}

/// Tells whether another handler has the same former name.
fn has_same_former_name<S: Store>(
    one: &HandlerEntry<S>,
    other: &HandlerEntry<S>,
    before: &str,
) -> bool {
    one.name != other.name && other.options.renamed_from == Some(before)
}

/// Gives the faults of command handlers and of the services whose commands the consumer takes.
fn of_commands<S: Store>(
    handlers: &[HandlerEntry<S>],
    commands: &CommandSources,
) -> Vec<ConsumerFault> {
    let wrong = |(source, topic): &(String, String)| ConsumerFault::CommandsFrom {
        source_name: source.clone(),
        topic: topic.clone(),
    };
    let mut faults: Vec<_> = commands.faults().map(wrong).collect();
    let command_handlers = || handlers.iter().filter(|entry| entry.handles_commands);
    match command_handlers().next() {
        Some(first) if commands.is_empty() => {
            faults.push(ConsumerFault::NoCommandsFrom(first.name.to_string()))
        }
        None if !commands.is_empty() => faults.push(ConsumerFault::NoCommandHandler),
        _ => {}
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in command_handlers() {
        for event_type in entry.command_types() {
            if let Some(first) = seen.insert(event_type, &entry.name) {
                let (first, second) = (first.to_owned(), entry.name.to_string());
                faults.push(ConsumerFault::DuplicateCommandHandler { event_type, first, second });
            }
        }
    }
    faults
}
