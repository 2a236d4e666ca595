//! Layers: what is done around every handler of a consumer.

use super::{HandlerContext, HandlerError};
use crate::runtime::{later, now};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Something that is done around every run of a consumer's handlers: checks, limits, measurements.
///
/// A layer runs inside the inbox's transaction. Its result counts as the handler's own.
///
/// ```
/// # use outbox_core::consumer::{HandlerContext, HandlerError, HandlerLayer, Next};
/// struct OnlyTenant(&'static str);
///
/// impl<Tx: Send + Sync + 'static> HandlerLayer<Tx> for OnlyTenant {
///     async fn handle(&self, cx: &HandlerContext<Tx>, next: Next<'_, Tx>) -> Result<(), HandlerError> {
///         if cx.message().headers.get("tenant") != Some(self.0) {
///             return Err(HandlerError::reject("another tenant's"));
///         }
///         next.run(cx).await
///     }
/// }
/// ```
///
/// # Cancel safety
/// The consumer may drop the future at a shutdown's deadline; the transaction is then rolled back.
pub trait HandlerLayer<Tx: Send + Sync + 'static>: Send + Sync + 'static {
    /// Does what the layer does, and runs what is inside it: once, or not at all.
    fn handle(
        &self,
        cx: &HandlerContext<Tx>,
        next: Next<'_, Tx>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Tells whether the layer may wait for other runs; `false` by default. Each delivery then has a transaction of its
    /// own: in a shared one the layer would wait while the transaction holds the locks of other handlers, for which
    /// the runs that it waits for may wait in turn.
    fn waits(&self) -> bool {
        false
    }
}

/// A layer of any type.
pub(in crate::consumer) trait AnyLayer<Tx>: Send + Sync {
    fn handle_any<'a>(
        &'a self,
        cx: &'a HandlerContext<Tx>,
        next: Next<'a, Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>>;

    fn waits_any(&self) -> bool;
}

impl<Tx: Send + Sync + 'static, L: HandlerLayer<Tx>> AnyLayer<Tx> for L {
    fn handle_any<'a>(
        &'a self,
        cx: &'a HandlerContext<Tx>,
        next: Next<'a, Tx>,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(self.handle(cx, next))
    }

    fn waits_any(&self) -> bool {
        self.waits()
    }
}

/// Layers, the outermost first.
pub(in crate::consumer) type Layers<Tx> = Vec<Arc<dyn AnyLayer<Tx>>>;

/// What a layer is around: the layers inside it, and the handler.
pub struct Next<'a, Tx> {
    pub(in crate::consumer) layers: &'a [Arc<dyn AnyLayer<Tx>>],
    pub(in crate::consumer) handler: BoxFuture<'a, Result<(), HandlerError>>,
}

impl<Tx> std::fmt::Debug for Next<'_, Tx> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl<Tx: Send + Sync + 'static> Next<'_, Tx> {
    /// Runs it.
    ///
    /// ```
    /// # use outbox_core::consumer::{HandlerContext, HandlerError, HandlerLayer, Next};
    /// struct LogFailures;
    ///
    /// impl<Tx: Send + Sync + 'static> HandlerLayer<Tx> for LogFailures {
    ///     async fn handle(&self, cx: &HandlerContext<Tx>, next: Next<'_, Tx>) -> Result<(), HandlerError> {
    ///         let result = next.run(cx).await;
    ///         if let Err(error) = &result {
    ///             println!("{} failed with {}: {error}", cx.handler(), cx.message().id);
    ///         }
    ///         result
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The error of a layer inside, or of the handler.
    ///
    /// # Cancel safety
    /// That of the handler.
    pub async fn run(self, cx: &HandlerContext<Tx>) -> Result<(), HandlerError> {
        match self.layers.split_first() {
            Some((layer, inside)) => {
                layer.handle_any(cx, Next { layers: inside, handler: self.handler }).await
            }
            None => self.handler.await,
        }
    }
}

/// A layer that fails a run that takes too long: the transaction rolls back, and the handler is tried again.
///
/// ```
/// # use outbox_core::{consumer::{ConsumerBuilder, Timeout}, outbox::ConsumerStore};
/// # use std::time::Duration;
/// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
/// consumer.layer(Timeout(Duration::from_secs(10)))
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timeout(pub Duration);

/// A handler that took too long.
#[derive(Debug, thiserror::Error)]
#[error("the handler took longer than {limit:?}")]
struct TooLong {
    limit: Duration,
}

impl<Tx: Send + Sync + 'static> HandlerLayer<Tx> for Timeout {
    async fn handle(
        &self,
        cx: &HandlerContext<Tx>,
        next: Next<'_, Tx>,
    ) -> Result<(), HandlerError> {
        let until = later(now(), self.0);
        match tokio::time::timeout_at(until.into(), next.run(cx)).await {
            Ok(result) => result,
            Err(_) => Err(HandlerError::retry(TooLong { limit: self.0 })),
        }
    }
}

/// A layer that lets only so many handlers run at once, of all consumers that share a clone of it.
///
/// The others wait inside their transactions: to hold back before these are opened, see
/// [`ConsumerBuilder::concurrency`](super::super::ConsumerBuilder::concurrency).
///
/// ```
/// # use outbox_core::{consumer::{ConcurrencyLimit, ConsumerBuilder}, outbox::ConsumerStore};
/// # fn example<S: ConsumerStore>(receipts: ConsumerBuilder<S>, invoices: ConsumerBuilder<S>) {
/// let printer = ConcurrencyLimit::new(2);
/// let receipts = receipts.layer(printer.clone());
/// let invoices = invoices.layer(printer); // two of both together
/// # let _ = (receipts, invoices);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ConcurrencyLimit(Arc<Semaphore>);

impl ConcurrencyLimit {
    /// Lets so many run at once; zero counts as one.
    #[must_use]
    pub fn new(handlers: usize) -> Self {
        Self(Arc::new(Semaphore::new(handlers.clamp(1, Semaphore::MAX_PERMITS))))
    }
}

impl<Tx: Send + Sync + 'static> HandlerLayer<Tx> for ConcurrencyLimit {
    async fn handle(
        &self,
        cx: &HandlerContext<Tx>,
        next: Next<'_, Tx>,
    ) -> Result<(), HandlerError> {
        // It is never closed.
        let _permit = self.0.acquire().await?;
        next.run(cx).await
    }

    fn waits(&self) -> bool {
        true
    }
}
