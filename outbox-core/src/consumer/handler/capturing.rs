//! Closures that capture, as handlers.

use super::{HandlerContext, HandlerError};
use futures_util::future::BoxFuture;

/// Makes a handler of a closure that captures what its work needs, such as a client. The closure gives a boxed future, which may
/// borrow the context; what it captures is cloned into the future or borrowed before it.
///
/// Functions are handlers without this, and so are types that implement [`EventHandler`](super::EventHandler).
///
/// ```
/// # use outbox_core::{consumer::{Consumer, HandlerError, capturing}, outbox::ConsumerStore};
/// # use std::sync::Arc;
/// # struct Client;
/// # impl Client { async fn charge(&self, _: u64) -> Result<(), std::io::Error> { Ok(()) } }
/// # fn example<S: ConsumerStore>(outbox: S, client: Arc<Client>) {
/// use outbox_core::consumer::Tombstone;
///
/// let handler = capturing(move |event: Tombstone, cx| {
///     let client = client.clone();
///     Box::pin(async move {
///         // .. write through `cx.tx` ..
///         client.charge(u64::from(cx.attempt())).await?;
/// #       let _ = event;
///         Ok(())
///     })
/// });
/// let consumer = Consumer::builder("billing", &outbox).on_tombstone("bill", handler);
/// # }
/// ```
// It gives the closure back as it is: by the bound the compiler knows that its future may borrow the context, of any lifetime.
pub fn capturing<E, Tx, F>(closure: F) -> F
where
    F: for<'a> Fn(E, &'a HandlerContext<Tx>) -> BoxFuture<'a, Result<(), HandlerError>>
        + Send
        + Sync
        + 'static,
{
    closure
}
