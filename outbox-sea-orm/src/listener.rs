//! Listeners of events by type, in this process, in a phase of the transaction that emits them.
//!
//! They are a convenience that dies with the process. What must happen goes through the outbox.

use crate::{
    error::BoxError,
    transaction::{Outcome, Phase},
};
use futures_util::{FutureExt, future::BoxFuture};
use outbox_core::{
    event::{OutboxEvent, jitter},
    failure::{Decision, RetryPolicy},
};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

/// How long a listener or hook may take unless set: far longer than any should, so that only what hangs is ended.
pub(crate) const TIME_LIMIT: Duration = Duration::from_mins(5);

type Call<E> = Arc<dyn Fn(E) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;
type Recover<E> = Arc<dyn Fn(E, BoxError) -> BoxFuture<'static, ()> + Send + Sync>;

/// What a listener may answer: nothing, or a result whose error is retried.
pub trait ListenerAnswer {
    /// Makes it a result.
    ///
    /// # Errors
    /// The listener's own.
    fn into_result(self) -> Result<(), BoxError>;
}

impl ListenerAnswer for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> ListenerAnswer for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A handler of one event type, with its retry policy.
///
/// An `async fn(Event)` alone is one too: three attempts, 100 ms apart at most after the first, then a log line.
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
    /// Makes one of an async function or closure that takes the event.
    pub fn new<F, Fut, R>(handler: F) -> Self
    where
        F: Fn(E) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
        R: ListenerAnswer,
    {
        Self {
            call: Arc::new(move |event| {
                let answer = handler(event);
                async move { answer.await.into_result() }.boxed()
            }),
            // Short: the caller of `commit` waits.
            policy: RetryPolicy::attempts(3, Duration::from_millis(100)),
            timeout: Some(TIME_LIMIT),
            recover: None,
        }
    }

    /// Sets after which time one call of it is dropped, 5 min unless set; it counts as failed then.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Lets a call take as long as it takes. The caller of `commit`, or the consumer around it, waits for it.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Sets how often it is tried. In the phase before commit the first failure counts.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what happens when the attempts have run out, in place of a log line.
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

/// Drops what takes longer than its limit, which counts as failed.
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

/// What can listen: an async function that takes the event, or a [`Listener`].
///
/// `Marker` lets the compiler tell the two apart; it is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot listen to an event",
    note = "give an `async fn(Event)` that returns nothing or a `Result<(), Error>`, or a `Listener`",
    note = "its event must be `OutboxEvent + Clone`"
)]
pub trait IntoListener<E, Marker>: Sized {
    /// Makes a listener of it.
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
    R: ListenerAnswer,
{
    fn into_listener(self) -> Listener<E> {
        Listener::new(self)
    }
}

/// A listener with its event's type forgotten.
trait Hears: Send + Sync {
    /// Tells it once, without retries.
    fn once(&self, event: &(dyn Any + Send + Sync)) -> BoxFuture<'static, Result<(), BoxError>>;
    /// Tells it as its policy says, and recovers.
    fn until_heard(self: Arc<Self>, event: Arc<dyn Any + Send + Sync>) -> BoxFuture<'static, ()>;
}

impl<E: Clone + Send + Sync + 'static> Hears for Listener<E> {
    fn once(&self, event: &(dyn Any + Send + Sync)) -> BoxFuture<'static, Result<(), BoxError>> {
        let Some(event) = event.downcast_ref::<E>().cloned() else {
            return async { Ok(()) }.boxed();
        };
        // The call itself is inside too: a handler may panic before its first await.
        let call = Arc::clone(&self.call);
        let caught = AssertUnwindSafe(async move { call(event).await }).catch_unwind();
        let ran = caught.map(|ran| ran.unwrap_or_else(|_| Err("the listener panicked".into())));
        limited("the listener", self.timeout, ran).boxed()
    }

    fn until_heard(self: Arc<Self>, event: Arc<dyn Any + Send + Sync>) -> BoxFuture<'static, ()> {
        async move {
            let (started, mut attempt) = (outbox_core::runtime::now(), 0);
            loop {
                let Err(error) = self.once(&*event).await else { return };
                attempt += 1;
                match self
                    .policy
                    .decide(attempt, outbox_core::runtime::now().duration_since(started))
                {
                    Decision::RetryWithin(wait) => tokio::time::sleep(jitter(wait)).await,
                    Decision::GiveUp => return self.gave_up(&*event, attempt, error).await,
                }
            }
        }
        .boxed()
    }
}

impl<E: Clone + Send + Sync + 'static> Listener<E> {
    async fn gave_up(&self, event: &(dyn Any + Send + Sync), attempts: u32, error: BoxError) {
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
struct Audience {
    keep: fn(&dyn Any) -> Option<Arc<dyn Any + Send + Sync>>,
    listeners: Vec<(Phase, Arc<dyn Hears>)>,
}

/// All listeners of an outbox, by event type.
#[derive(Default)]
pub(crate) struct Listeners(HashMap<TypeId, Arc<Audience>>);

impl Listeners {
    /// Adds one.
    pub(crate) fn add<E: OutboxEvent + Clone + 'static>(
        &mut self,
        phase: Phase,
        listener: Listener<E>,
    ) {
        let audience = self.0.entry(TypeId::of::<E>()).or_insert_with(|| {
            let keep = |event: &dyn Any| {
                event
                    .downcast_ref::<E>()
                    .cloned()
                    .map(|event| Arc::new(event) as Arc<dyn Any + Send + Sync>)
            };
            Arc::new(Audience { keep, listeners: Vec::new() })
        });
        if let Some(audience) = Arc::get_mut(audience) {
            audience.listeners.push((phase, Arc::new(listener)));
        }
    }

    /// Keeps the event for its listeners; `None` where there are none.
    pub(crate) fn hear(&self, event: &impl OutboxEvent) -> Option<Heard> {
        if self.0.is_empty() {
            return None;
        }
        let event = event.as_any()?;
        let audience = self.0.get(&event.type_id())?;
        Some(Heard { event: (audience.keep)(event)?, audience: Arc::clone(audience) })
    }
}

/// An event that listeners wait for.
#[derive(Clone)]
pub(crate) struct Heard {
    event: Arc<dyn Any + Send + Sync>,
    audience: Arc<Audience>,
}

impl Heard {
    /// Tells those of the phase before commit; the first error stops it.
    pub(crate) async fn before_commit(&self) -> Result<(), BoxError> {
        for (_, listener) in
            self.audience.listeners.iter().filter(|(phase, _)| *phase == Phase::BeforeCommit)
        {
            listener.once(&*self.event).await?;
        }
        Ok(())
    }

    /// Tells whether somebody listens after such an end.
    pub(crate) fn follows(&self, outcome: Outcome) -> bool {
        self.audience.listeners.iter().any(|(phase, _)| phase.follows(outcome))
    }

    /// Tells those of the phases that follow the end, one after the other.
    pub(crate) async fn after(&self, outcome: Outcome) {
        for (_, listener) in
            self.audience.listeners.iter().filter(|(phase, _)| phase.follows(outcome))
        {
            Arc::clone(listener).until_heard(Arc::clone(&self.event)).await;
        }
    }
}
