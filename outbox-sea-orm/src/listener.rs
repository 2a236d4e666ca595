//! Listeners of events by type, in this process, in a phase of the transaction that emits them.
//!
//! They are a convenience that ends with the process. What must happen goes through the outbox.

pub(crate) mod phase;

use crate::error::BoxError;
use futures_util::{FutureExt, future::BoxFuture};
use outbox_core::{
    event::{OutboxEvent, jitter},
    failure::{Decision, RetryPolicy},
};
use phase::{Outcome, Phase};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

/// Time limit of a listener or hook unless set: far longer than any should take, so that it ends
/// only those that hang.
pub(crate) const TIME_LIMIT: Duration = Duration::from_mins(5);

type Call<E> = Arc<dyn Fn(E) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;
type Recover<E> = Arc<dyn Fn(E, BoxError) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a listener returns: nothing, or a result whose error is retried.
#[doc(hidden)] // closures fulfil it
pub trait ListenerOutput {
    /// Turns it into a result.
    ///
    /// # Errors
    /// The error of the listener.
    fn into_result(self) -> Result<(), BoxError>;
}

impl ListenerOutput for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> ListenerOutput for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A handler of one event type, with its retry policy.
///
/// An `async fn(Event)` alone is one too: three attempts, 100 ms apart at most after the first,
/// then a log line.
///
/// ```
/// # use outbox_sea_orm::{listener::Listener, prelude::*};
/// # use std::time::Duration;
/// # #[derive(Clone)] struct OrderPlaced;
/// # async fn notify_screen(_: OrderPlaced) -> Result<(), std::io::Error> { Ok(()) }
/// let patient = Listener::new(notify_screen)
///     .retry(RetryPolicy::attempts(10, Duration::from_secs(1)))
///     .recover(|_event, error| async move { eprintln!("gave up: {error}") });
/// ```
pub struct Listener<E> {
    call: Call<E>,
    policy: RetryPolicy,
    timeout: Option<Duration>,
    recover: Option<Recover<E>>,
}

impl<E: Send + 'static> Listener<E> {
    /// Wraps an async function or closure that takes the event.
    pub fn new<F, Fut, R>(handler: F) -> Self
    where
        F: Fn(E) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: ListenerOutput,
    {
        Self {
            call: Arc::new(move |event| {
                let output = handler(event);
                async move { output.await.into_result() }.boxed()
            }),
            // Short: the caller of `commit` waits.
            policy: RetryPolicy::attempts(3, Duration::from_millis(100)),
            timeout: Some(TIME_LIMIT),
            recover: None,
        }
    }

    /// Sets the time after which a call is dropped and counts as failed; 5 min unless set.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Removes the time limit. The caller of `commit`, or the consumer around it, waits for the
    /// call.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Sets the retry policy. In the phase before commit the first failure counts.
    ///
    /// ```
    /// # use outbox_sea_orm::{listener::Listener, prelude::*};
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # async fn refresh_screen(_: OrderPlaced) -> Result<(), std::io::Error> { Ok(()) }
    /// let once = Listener::new(refresh_screen)
    ///     .retry(RetryPolicy::attempts(1, Duration::ZERO)) // the caller of `commit` waits
    ///     .timeout(Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what runs when the attempts are exhausted, in place of a log line.
    ///
    /// ```
    /// # use outbox_sea_orm::{listener::Listener, prelude::*};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # async fn refresh_screen(_: OrderPlaced) -> Result<(), std::io::Error> { Ok(()) }
    /// let listener = Listener::new(refresh_screen).recover(|order: OrderPlaced, error| async move {
    ///     eprintln!("the screen does not show order {}: {error}", order.order_id);
    /// });
    /// ```
    #[must_use]
    pub fn recover<F, Fut>(mut self, recover: F) -> Self
    where
        F: Fn(E, BoxError) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.recover = Some(Arc::new(move |event, error| recover(event, error).boxed()));
        self
    }
}

/// Drops work that exceeds its limit, which counts as failed.
pub(crate) async fn limited(
    what: &'static str,
    limit: Option<Duration>,
    work: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    let Some(limit) = limit else { return work.await };
    let ended = tokio::time::timeout(limit, work).await;
    ended.unwrap_or_else(|_| {
        Err(format!("{what} did not end within its time limit of {limit:?}, and was dropped")
            .into())
    })
}

/// An async function that takes the event, or a [`Listener`].
///
/// `Marker` lets the compiler tell the two apart; it is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot listen to an event",
    note = "give an `async fn(Event)` that returns nothing or a `Result<(), Error>`, or a `Listener`",
    note = "its event must be `OutboxEvent + Clone`"
)]
#[doc(hidden)] // closures fulfil it
pub trait IntoListener<E, Marker>: Sized {
    /// Turns it into a listener.
    fn into_listener(self) -> Listener<E>;
}

impl<E: Send + 'static> IntoListener<E, ()> for Listener<E> {
    fn into_listener(self) -> Self {
        self
    }
}

impl<E, F, Fut, R> IntoListener<E, (Fut, R)> for F
where
    E: Send + 'static,
    F: Fn(E) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send + 'static,
    R: ListenerOutput,
{
    fn into_listener(self) -> Listener<E> {
        Listener::new(self)
    }
}

/// A listener with its event's type erased.
trait ErasedListener: Send + Sync {
    /// Calls it once, without retries.
    fn notify_once(
        &self,
        event: &(dyn Any + Send + Sync),
    ) -> BoxFuture<'static, Result<(), BoxError>>;
    /// Calls it with the retries of its policy, then the recovery.
    fn notify_with_retries(
        self: Arc<Self>,
        event: Arc<dyn Any + Send + Sync>,
    ) -> BoxFuture<'static, ()>;
}

impl<E: Clone + Send + Sync + 'static> ErasedListener for Listener<E> {
    fn notify_once(
        &self,
        event: &(dyn Any + Send + Sync),
    ) -> BoxFuture<'static, Result<(), BoxError>> {
        let Some(event) = event.downcast_ref::<E>().cloned() else {
            return async { Ok(()) }.boxed();
        };
        // The call itself is inside too: a handler may panic before its first await.
        let call = Arc::clone(&self.call);
        let caught = AssertUnwindSafe(async move { call(event).await }).catch_unwind();
        let ran = caught.map(|ran| ran.unwrap_or_else(|_| Err("the listener panicked".into())));
        limited("the listener", self.timeout, ran).boxed()
    }

    fn notify_with_retries(
        self: Arc<Self>,
        event: Arc<dyn Any + Send + Sync>,
    ) -> BoxFuture<'static, ()> {
        async move {
            let (started, mut attempt) = (outbox_core::runtime::now(), 0);
            loop {
                let Err(error) = self.notify_once(&*event).await else { return };
                attempt += 1;
                match self
                    .policy
                    .decide(attempt, outbox_core::runtime::now().duration_since(started))
                {
                    Decision::RetryWithin(wait) => tokio::time::sleep(jitter(wait)).await,
                    Decision::GiveUp => return self.recover_or_log(&*event, attempt, error).await,
                }
            }
        }
        .boxed()
    }
}

impl<E: Clone + Send + Sync + 'static> Listener<E> {
    async fn recover_or_log(
        &self,
        event: &(dyn Any + Send + Sync),
        attempts: u32,
        error: BoxError,
    ) {
        let name = std::any::type_name::<E>();
        let (Some(recover), Some(event)) = (&self.recover, event.downcast_ref::<E>().cloned())
        else {
            tracing::error!(
                event = name,
                attempts,
                error = &*error as &dyn std::error::Error,
                "a listener gave up"
            );
            return;
        };
        let recover = Arc::clone(recover);
        if AssertUnwindSafe(async move { recover(event, error).await })
            .catch_unwind()
            .await
            .is_err()
        {
            tracing::error!(event = name, attempts, "the recovery of a listener has panicked");
        }
    }
}

/// The listeners of one event type.
struct ListenerSet {
    clone_event: fn(&dyn Any) -> Option<Arc<dyn Any + Send + Sync>>,
    listeners: Vec<(Phase, Arc<dyn ErasedListener>)>,
}

/// All listeners of an outbox, by event type.
#[derive(Default)]
pub(crate) struct Listeners(HashMap<TypeId, Arc<ListenerSet>>);

impl Listeners {
    /// Adds one.
    pub(crate) fn add<E: OutboxEvent + Clone + 'static>(
        &mut self,
        phase: Phase,
        listener: Listener<E>,
    ) {
        let listener_set = self.0.entry(TypeId::of::<E>()).or_insert_with(|| {
            let clone_event = |event: &dyn Any| {
                event
                    .downcast_ref::<E>()
                    .cloned()
                    .map(|event| Arc::new(event) as Arc<dyn Any + Send + Sync>)
            };
            Arc::new(ListenerSet { clone_event, listeners: Vec::new() })
        });
        if let Some(listener_set) = Arc::get_mut(listener_set) {
            listener_set.listeners.push((phase, Arc::new(listener)));
        }
    }

    /// Clones the event for its listeners; `None` where there are none.
    pub(crate) fn match_event(&self, event: &impl OutboxEvent) -> Option<QueuedNotification> {
        if self.0.is_empty() {
            return None;
        }
        let event = event.as_any()?;
        let listener_set = self.0.get(&event.type_id())?;
        Some(QueuedNotification {
            event: (listener_set.clone_event)(event)?,
            listener_set: Arc::clone(listener_set),
        })
    }
}

/// An event with the listeners to notify of it.
#[derive(Clone)]
pub(crate) struct QueuedNotification {
    event: Arc<dyn Any + Send + Sync>,
    listener_set: Arc<ListenerSet>,
}

impl QueuedNotification {
    /// Calls the listeners of the phase before commit; the first error stops it.
    pub(crate) async fn before_commit(&self) -> Result<(), BoxError> {
        for (_, listener) in
            self.listener_set.listeners.iter().filter(|(phase, _)| *phase == Phase::BeforeCommit)
        {
            listener.notify_once(&*self.event).await?;
        }
        Ok(())
    }

    /// Tells whether a listener runs after an outcome.
    pub(crate) fn has_listener_after(&self, outcome: Outcome) -> bool {
        self.listener_set.listeners.iter().any(|(phase, _)| phase.runs_after(outcome))
    }

    /// Calls the listeners of the phases after an outcome, one after the other.
    pub(crate) async fn after(&self, outcome: Outcome) {
        for (_, listener) in
            self.listener_set.listeners.iter().filter(|(phase, _)| phase.runs_after(outcome))
        {
            Arc::clone(listener).notify_with_retries(Arc::clone(&self.event)).await;
        }
    }
}
