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
//! A message may be a command of a saga, which names the call and where the answer is expected ([`Call`](crate::saga::Call)).
//! It has one handler, whose [answer](HandlerContext::reply) goes out with its effects. Behind the inbox row stands a
//! barrier: a command that is repeated under another id is answered again and not done again; one that undoes what was
//! never done does nothing, and keeps it from being done later. Handlers need no code for it. What the barrier knows is
//! kept for a time that must be longer than any saga lasts.

mod config;
mod flow;
mod barrier;
mod handle;
mod handler;
mod retrier;
mod work;

#[cfg(feature = "testing")]
pub(crate) use barrier::{Course, course, noted, refused, usual};
pub use config::{AckMode, Consumer, ConsumerFault, DeadLetters};
pub use flow::KillSwitch;
pub use handle::{ConsumerError, ConsumerHandle, ConsumerStats};
pub use handler::{
    ConcurrencyLimit, ContextTx, EventHandler, EventHandlers, HandlerContext, HandlerError, HandlerFn, HandlerLayer,
    HandlerSet, Next, ReplyError, Timeout, UnknownPolicy,
};
pub use work::{Runs, Step, Verdict, Wait, next_step};
