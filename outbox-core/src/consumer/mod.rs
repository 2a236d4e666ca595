//! The receiving side: handlers, whose effects commit together with the inbox row, once for each message.
//!
//! ```text
//! subscriber -> reader (actor) -> dispatcher (actor): key queues, one of a key at a time -> worker (a task a delivery)
//!    worker: for each handler: begin -> inbox row -> layers -> handler -> commit; after the last one the ack
//!       fails: run again while unacknowledged, or stored and acknowledged -> retrier (actor) -> worker
//!       given up: a dead letter -> redrive -> stored, due now
//! ```
//!
//! Source and id identify a message. Each handler has an inbox row of its own, so that the retry of one handler does
//! not repeat the effects of another.
//!
//! Deliveries of one key are handled one at a time in the order in which they arrive. Behind one that is stored for a
//! handler, later ones of its key are stored too, in order, for that handler alone; and those that wait behind a returned
//! one are returned with it. A delivery that the broker had sent already may still overtake a returned one; a relay that
//! publishes straight to a consumer never has two of a key in flight.
//!
//! Each instance of a consumer has a row, which it renews, and removes at a regular end. A delivery may have ended an
//! instance that leaves its row: until its deliveries in flight have settled, the others store each delivery before they
//! run it, since the runs of stored deliveries are counted (`instance/isolation.rs`).
//!
//! Instances of several versions may run beside each other. A delivery that one of them does not know is handed over to one
//! that knows it: a newer version of a type, a type that another instance declares in its row, a reply to a version of a
//! saga. It is stored under its handler's name, and claimed by instances that declare what it needs, whenever they start;
//! a delivery that no instance knows for an hour becomes a dead letter (`instance/peers.rs`, pure).
//!
//! A message may be a command of a saga, which carries its id and the topic of the reply ([`CommandId`](crate::saga::CommandId)).
//! It is a command to the handler that was added with [`on_command`](ConsumerBuilder::on_command), where it comes from a service that
//! [`commands_from`](ConsumerBuilder::commands_from) names; to every other handler it is an event. The command
//! handler's [reply](HandlerContext::reply) goes out with its effects. Behind the inbox row stands a barrier: a command that
//! its saga repeats under another id gets its reply again and does not run again; a command that undoes a step which was
//! never done does nothing, and blocks the command that does the step. Handlers need no code for it. The rows of the
//! barrier are kept for a time that must be longer than any saga lasts.

mod builder;
mod settings;
mod fault;
mod intake;
mod barrier;
mod commands;
mod handle;
mod handler;
mod instance;
mod metrics;
mod retrier;
mod trial;
mod work;

#[cfg(feature = "testing")]
pub(crate) use barrier::{CommandAction, decide, default_reply, provisional_outcome, rejection};
pub use builder::ConsumerBuilder;
pub use fault::ConsumerFault;
pub use handle::{Consumer, ConsumerError, ConsumerStats};
pub use handler::{
    ConcurrencyLimit, ContextTx, EventHandler, EventHandlers, HandlerContext, HandlerError,
    HandlerFn, HandlerLayer, HandlerOptions, HandlerSet, Next, ReplyError, Timeout, Tombstone,
    UnhandledPolicy, capturing,
};
pub use intake::KillSwitch;
pub use settings::{AckMode, DeadLetters};
pub use trial::{HandlerTrials, Trial, TrialEvent, TrialRefusal, TrialResult};
pub use work::{HandlerOutcome, NextAction, RetryState, Wait, next_action};
