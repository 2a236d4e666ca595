//! What can be wrong with a consumer's configuration.

use super::{commands::CommandSources, handler::Route};
use crate::outbox::Store;
use std::{collections::BTreeMap, time::Duration};

/// Longest name of a consumer and of a handler in bytes: two of them, the source and the id fit a key of every database.
pub(super) const MAX_NAME: usize = 100;

/// What is wrong with a consumer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerFault {
    /// The consumer's or a handler's name does not fit the inbox.
    #[error("the name `{0}` does not have 1 to {MAX_NAME} bytes without control characters")]
    Name(String),
    /// The consumer's name has a slash, which parts it from a handler's in dead letters.
    #[error("the consumer's name `{0}` has a slash")]
    Slash(String),
    /// Two handlers have one name.
    #[error("two handlers are called `{0}`")]
    DoubledHandler(String),
    /// The name that a handler had before is a handler's name now.
    #[error(
        "the handler `{handler}` says `renamed_from = \"{before}\"`, which is the name of a handler: leave it out, or give \
         the other one another name"
    )]
    RenamedFrom {
        /// The handler's name.
        handler: String,
        /// The name that it is said to have had.
        before: String,
    },
    /// A command of a saga has one answer.
    #[error(
        "`{first}` and `{second}` both answer commands of the type `{event_type}`: add one of them with `on`, to which it is an \
         event"
    )]
    TwoAnswer {
        /// The type.
        event_type: &'static str,
        /// A handler.
        first: String,
        /// Another one.
        second: String,
    },
    /// A handler answers commands of sagas, and none are taken.
    #[error(
        "the handler `{0}` answers commands of sagas, and it is not said whose: write `commands_from(\"/orders\", \
         \"orders.replies\")` with the source of the service that asks and the topic of its `reply_to`"
    )]
    NoCommandsFrom(String),
    /// Commands of sagas are taken, and no handler answers them.
    #[error(
        "commands of sagas are taken, and no handler answers them: add the one that does with `on_command`, not with `on`"
    )]
    NobodyAnswers,
    /// A source or a topic that no message has.
    #[error(
        "`commands_from(\"{source_name}\", \"{topic}\")` does not name a source and a topic of 1 to 255 bytes without control characters"
    )]
    CommandsFrom {
        /// The source.
        source_name: String,
        /// The topic.
        topic: String,
    },
    /// There is nobody to handle anything.
    #[error("there is no handler; add one with `on`")]
    NoHandler,
    /// There is nothing to receive from.
    #[error("there is no subscriber; add one with `subscribe`")]
    NoSubscriber,
    /// A subscriber cannot work as it is configured.
    #[error("a subscriber is configured wrongly: {0}")]
    Subscriber(String),
    /// A message may come again after the inbox has forgotten it.
    #[error(
        "a message may come again for {redelivered_for:?} (what the sender repeats) + {retried_for:?} (what is retried \
         here) = {:?}, longer than the {retention:?} that the inbox remembers",
        .redelivered_for.saturating_add(*.retried_for)
    )]
    InboxForgets {
        /// For how long senders and brokers deliver it again.
        redelivered_for: Duration,
        /// The sum of the consumer's own waits.
        retried_for: Duration,
        /// For how long the inbox remembers.
        retention: Duration,
    },
}

/// Says what is wrong with who answers commands, and whose.
pub(super) fn of_commands<S: Store>(
    routes: &[Route<S>],
    commands: &CommandSources,
) -> Vec<ConsumerFault> {
    let wrong = |(source, topic): &(String, String)| ConsumerFault::CommandsFrom {
        source_name: source.clone(),
        topic: topic.clone(),
    };
    let mut faults: Vec<_> = commands.faults().map(wrong).collect();
    let answering = || routes.iter().filter(|route| route.answers);
    match answering().next() {
        Some(first) if commands.is_empty() => {
            faults.push(ConsumerFault::NoCommandsFrom(first.name.to_string()))
        }
        None if !commands.is_empty() => faults.push(ConsumerFault::NobodyAnswers),
        _ => {}
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for route in answering() {
        for event_type in route.answered_types() {
            if let Some(first) = seen.insert(event_type, &route.name) {
                let (first, second) = (first.to_owned(), route.name.to_string());
                faults.push(ConsumerFault::TwoAnswer { event_type, first, second });
            }
        }
    }
    faults
}
