//! Many handlers in one type: the target of `#[event_handler]`.

use super::{EventHandler, HandlerContext, HandlerEntry, HandlerOptions};
use crate::{event::DecodeEvent, outbox::Store};

/// A type with several handlers. Implemented by `#[event_handler]` on an impl block.
#[diagnostic::on_unimplemented(
    message = "`{Self}` brings no handlers for this store",
    note = "write `#[event_handler]` on its impl block, and `#[on(\"name\")]` on each handler"
)]
pub trait EventHandlers<S: Store>: Send + Sync + 'static {
    /// Adds them, in their order.
    fn add_to(self, set: &mut HandlerSet<S>);
}

/// Handlers under their names.
pub struct HandlerSet<S: Store>(pub(in crate::consumer) Vec<HandlerEntry<S>>);

impl<S: Store> std::fmt::Debug for HandlerSet<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| &entry.name)).finish()
    }
}

impl<S: Store> HandlerSet<S> {
    /// Adds one for the event's types.
    pub fn on<E, H>(&mut self, name: impl AsRef<str>, handler: H)
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.on_with(name, HandlerOptions::new(), handler);
    }

    /// Adds one for the event's types, with options.
    pub fn on_with<E, H>(&mut self, name: impl AsRef<str>, options: HandlerOptions, handler: H)
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.0.push(HandlerEntry::new(name.as_ref(), options, handler));
    }

    /// Adds the handler of commands of sagas of the event's types.
    pub fn on_command<E, H>(&mut self, name: impl AsRef<str>, handler: H)
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.on_command_with(name, HandlerOptions::new(), handler);
    }

    /// Adds the handler of commands of sagas of the event's types, with options.
    pub fn on_command_with<E, H>(
        &mut self,
        name: impl AsRef<str>,
        options: HandlerOptions,
        handler: H,
    ) where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.0.push(HandlerEntry::new(name.as_ref(), options, handler).for_commands());
    }
}

/// The transaction of a context, for code that names the context alone.
pub trait ContextTx {
    /// The transaction.
    type Tx;
}

impl<Tx> ContextTx for HandlerContext<Tx> {
    type Tx = Tx;
}
