//! Received once: handlers, whose effects commit together with the inbox row.
//!
//! ```text
//! subscriber -> reader (actor) -> core (actor): lanes, one of a key at a time -> worker (a task a delivery)
//!    worker: for each handler: begin -> inbox row -> layers -> handler -> commit; after the last one the ack
//!       fails: held and run again, or stored for later and acknowledged -> retrier (actor) -> worker
//!       given up: a dead letter -> redrive -> stored, due now
//! ```
//!
//! A message counts as the same by its source and id. Each handler has an inbox row of its own, so that one that fails
//! and is run again does not repeat what another has done.
//!
//! Deliveries of one key are handled one at a time in the order in which they arrive. Behind one that is stored for a
//! handler, later ones of its key are stored too, in order, for that handler alone; and those that wait behind a returned
//! one are returned with it. A returned delivery may still be overtaken by what the broker had sent already; a relay that
//! publishes straight to a consumer never has two of a key on the way.
//!
//! Each instance of a consumer has a row, which it renews and removes when it ends well. One that ends otherwise may have been
//! ended by a delivery: until what it had in flight has settled, the others store each delivery before they run it, since the runs
//! of stored deliveries are counted (`instance/isolation.rs`).
//!
//! Instances of several versions may run beside each other. What one of them does not know is left to one that does: a newer
//! version of a type, a type that another instance declares in its row, an answer to a version of a saga. It is stored under the
//! handler that it is for, and claimed by instances that declare what it needs, whenever they come; what nobody knows for an hour
//! becomes a letter (`instance/peers.rs`, pure).
//!
//! A message may be a command of a saga, which names the call and where the answer is expected ([`Call`](crate::saga::Call)).
//! It is one to the handler that was added with [`on_command`](Consumer::on_command), where it comes from a service that
//! [`commands_from`](Consumer::commands_from) names; to every other handler it is an event. The one handler's
//! [answer](HandlerContext::reply) goes out with its effects. Behind the inbox row stands a barrier: a command that is repeated under another id is answered again and not done again; one that undoes what was
//! never done does nothing, and keeps it from being done later. Handlers need no code for it. What the barrier knows is
//! kept for a time that must be longer than any saga lasts.

mod config;
mod settings;
mod fault;
mod flow;
mod barrier;
mod commands;
mod handle;
mod handler;
mod instance;
mod retrier;
mod work;

#[cfg(feature = "testing")]
pub(crate) use barrier::{Course, course, noted, refused, usual};
pub use config::Consumer;
pub use fault::ConsumerFault;
pub use flow::KillSwitch;
pub use handle::{ConsumerError, ConsumerHandle, ConsumerStats};
pub use handler::{
    ConcurrencyLimit, ContextTx, EventHandler, EventHandlers, HandlerContext, HandlerError,
    HandlerFn, HandlerLayer, HandlerOptions, HandlerSet, Next, ReplyError, Timeout, Tombstone,
    UnhandledPolicy, capturing,
};
pub use settings::{AckMode, DeadLetters};
pub use work::{Runs, Step, Verdict, Wait, next_step};
