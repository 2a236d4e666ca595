//! The caller's transaction: SeaORM's, with events that are saved with it and phases after its end.

mod open;
mod statement_queue;
mod bounded;
mod savepoint;
mod phases;
mod completion;
mod scope;
mod session;
mod state;
mod lexer;
mod statement;
mod stream;
mod trial;

pub use crate::listener::phase::{Outcome, Phase};
pub(crate) use open::{TransactionTasks, is_in_work, within};
pub use scope::{Entry, Propagation, Transactional, TxSource};
pub(crate) use scope::{Scope, ScopeResult};
pub(crate) use session::run_callback;
pub use stream::TransactionRows;
pub(crate) use trial::{note_events, refuse_in_trial};

use crate::{
    EnqueueOptions, Outbox,
    error::{BoxError, OutboxError},
    outbox::Pending,
    pool::{Begun, RunToCompletion, TransactionLimits, response_timeout},
};
use futures_util::future::BoxFuture;
use open::TaskRegistration;
use outbox_core::event::{CorrelationContext, MessageId, NewEvent, OutboxEvent};
use phases::Hooks;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, IsolationLevel, TransactionOptions,
    TransactionTrait,
};
use state::{FrameId, State};
use statement_queue::{NoTurn, StatementQueue, Turn};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::runtime::Handle;

/// An open transaction of an [`Outbox`], or a savepoint inside one.
///
/// It takes SeaORM's place: every SeaORM call that takes a connection or a transaction takes
/// `&OutboxTransaction`. Events given to [`emit`](Self::emit) are written in one INSERT just before
/// COMMIT; then the relay is woken. Dropped without [`commit`](Self::commit), it rolls back, and
/// its events are gone with its data.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # async fn example(outbox: &Outbox, order: impl OutboxEvent) -> Result<(), OutboxError> {
/// let tx = outbox.begin().await?;
/// // .. any SeaORM call with `&tx` ..
/// tx.emit(order)?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// A statement whose future is dropped is still driven to its end before the next one begins, so
/// that its outcome is known to the transaction. BEGIN, COMMIT and ROLLBACK come to their end on a
/// task when their caller is dropped: no connection stays inside a transaction, and after COMMIT
/// was sent the phases after it run in any case.
#[must_use = "a transaction that is dropped without `commit()` rolls back"]
pub struct OutboxTransaction {
    shared: Arc<Shared>,
    frame: FrameHandle,
}

/// What all handles of one transaction share. Dropping the last one ends it.
struct Shared {
    queue: StatementQueue,
    txn: Arc<DatabaseTransaction>,
    state: SharedState,
    outbox: Outbox,
    /// Whether it is the framework's own, for a handler, a step or an operator.
    is_work: bool,
    /// Counts it for its task, where the application opened it itself.
    registration: Option<TaskRegistration>,
}

/// The bookkeeping, reachable from statements whose callers were dropped.
#[derive(Clone)]
struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frame of one handle.
struct FrameHandle {
    id: FrameId,
    state: SharedState,
    runtime: Handle,
    /// Whether dropping it abandons the frame.
    owned: bool,
}

impl Drop for FrameHandle {
    fn drop(&mut self) {
        if self.owned {
            completion::abandon(self.id, &self.state, &self.runtime);
        }
    }
}

impl OutboxTransaction {
    /// Opens a transaction. BEGIN runs to its end even when the caller is dropped: the driver
    /// forgets a transaction whose BEGIN was dropped half-way, and a whole transaction, dropped,
    /// rolls back.
    pub(crate) async fn open(
        outbox: Outbox,
        options: TransactionOptions,
        read_only: bool,
    ) -> Result<Self, OutboxError> {
        let isolation = options.isolation_level;
        let (db, work) = (outbox.connection().clone(), outbox.work().clone());
        let begin = async move {
            let within = work.begins_within();
            let mut beginning = Box::pin(async move { db.begin_with_options(options).await });
            match tokio::time::timeout(within, &mut beginning).await {
                Ok(begun) => begun.map(|txn| Begun {
                    txn,
                    deadline: work.deadline_of_application(),
                    reset: None,
                }),
                Err(_) => {
                    // The response may still come, and would leave a connection of the application
                    // inside a transaction.
                    tokio::spawn(async move { drop(beginning.await) });
                    Err(response_timeout("BEGIN", within))
                }
            }
        };
        Self::opened(outbox, false, (isolation, read_only), begin).await
    }

    /// Counts it for the current task.
    pub(crate) fn registered(mut self) -> Self {
        let registration = self.shared.outbox.transaction_tasks().register_current();
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.registration = Some(registration);
        }
        self
    }

    /// Opens a transaction for a handler, a step or an operator, over the framework's own
    /// connections, as [`open`](Self::open) does; with limits of its own, where it needs some.
    pub(crate) async fn open_for_work(
        outbox: Outbox,
        options: TransactionOptions,
        limits: Option<TransactionLimits>,
    ) -> Result<Self, OutboxError> {
        let (isolation, work) = (options.isolation_level, outbox.work().clone());
        let begin = async move { work.begin(options, limits).await };
        Self::opened(outbox, true, (isolation, false), begin).await
    }

    async fn opened(
        outbox: Outbox,
        is_work: bool,
        (isolation, read_only): (Option<IsolationLevel>, bool),
        begin: impl Future<Output = Result<Begun, DbErr>> + Send + 'static,
    ) -> Result<Self, OutboxError> {
        // Made where BEGIN ends: where the caller is gone by then, a transaction is dropped that
        // puts its session's limits back.
        let opening = async move {
            let begun = begin.await?;
            let state = State::new(isolation, read_only);
            Ok::<_, DbErr>(Self::of(begun, outbox, is_work, state))
        };
        RunToCompletion::on_current(opening).await.map_err(OutboxError::Begin)
    }

    /// Makes the handle of a transaction that was begun.
    fn of(
        Begun { txn, deadline, reset }: Begun,
        outbox: Outbox,
        is_work: bool,
        state: State,
    ) -> Self {
        let (txn, state) = (Arc::new(txn), SharedState(Arc::new(Mutex::new(state))));
        let mut queue = StatementQueue::new(deadline);
        if let Some(reset) = reset {
            let txn = Arc::clone(&txn);
            queue.end_with(async move { txn.execute_unprepared(&reset).await.map(drop) });
        }
        let frame = FrameHandle {
            id: 0,
            state: state.clone(),
            runtime: queue.runtime().clone(),
            owned: true,
        };
        let shared = Shared { queue, txn, state, outbox, is_work, registration: None };
        Self { shared: Arc::new(shared), frame }
    }

    /// Saves an event with the transaction: encoded now, written in one INSERT with all others just
    /// before COMMIT.
    ///
    /// Gives the message's id. In a nested transaction the event goes when that is rolled back.
    ///
    /// ```
    /// # use outbox_sea_orm::{admin::AdminStore, prelude::*};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// let tx = outbox.begin().await?;
    /// tx.emit(OrderPlaced { order_id: 7 })?;
    /// tx.rollback().await?;
    /// assert_eq!(outbox.stats().await?.pending, 0, "the event is gone with its data");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Encode`] or [`OutboxError::Limit`] when the event could not travel, and
    /// [`OutboxError::TooManyWaiting`]; the transaction goes on. [`OutboxError::Ended`] and [`OutboxError::Aborted`] when it has ended.
    pub fn emit<E: OutboxEvent>(&self, event: E) -> Result<MessageId, OutboxError> {
        self.emit_with(event, EnqueueOptions::new())
    }

    /// Saves an event with the transaction as [`emit`](Self::emit) does, with options.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use std::time::Duration;
    /// # fn example(tx: &OutboxTransaction, reminder: impl OutboxEvent) -> Result<(), OutboxError> {
    /// tx.emit_with(reminder, EnqueueOptions::new().deliver_in(Duration::from_hours(24)))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit). A dedup key that was used before fails the commit.
    pub fn emit_with<E: OutboxEvent>(
        &self,
        event: E,
        options: EnqueueOptions,
    ) -> Result<MessageId, OutboxError> {
        self.check_write().map_err(OutboxError::Database)?;
        self.shared.outbox.check_waiting(self.shared.is_work)?;
        let mut encoded = NewEvent::encode(&event)?;
        self.apply_correlation(&mut encoded);
        let pending = Pending::checked(encoded, options, &self.shared.outbox)?;
        let id = pending.message_id();
        let notification = self.shared.outbox.listeners().match_event(&event);
        self.shared.state.lock().push(self.frame.id, pending, notification)?;
        Ok(id)
    }

    /// Saves events that are encoded already.
    pub(crate) fn append(&self, events: &[NewEvent]) -> Result<(), OutboxError> {
        for event in events {
            let mut event = event.clone();
            self.apply_correlation(&mut event);
            let pending = Pending::checked(event, EnqueueOptions::new(), &self.shared.outbox)?;
            self.shared.state.lock().push(self.frame.id, pending, None)?;
        }
        Ok(())
    }

    /// Lets the events that are emitted from now on, here and in nested transactions that are
    /// opened later, follow a correlation context: they carry its ids in the headers
    /// `correlationid` and `causationid`, unless they set these themselves.
    ///
    /// Consumers and coordinators of sagas do so for their handlers and steps. What is written by
    /// [`Outbox::enqueue`](crate::Outbox::enqueue) follows nothing.
    ///
    /// ```
    /// # use outbox_sea_orm::{event::CorrelationContext, prelude::*};
    /// # fn example(tx: &OutboxTransaction, request_id: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// tx.correlate(CorrelationContext::new(request_id)?);
    /// # Ok(()) }
    /// ```
    pub fn correlate(&self, correlation: CorrelationContext) {
        self.shared.state.lock().correlate(self.frame.id, correlation);
    }

    /// Writes what an event follows from.
    fn apply_correlation(&self, event: &mut NewEvent) {
        let correlation = self.shared.state.lock().correlation(self.frame.id);
        if let Some(correlation) = correlation {
            correlation.apply_to(&mut event.headers);
        }
    }

    /// Runs an async hook inside the transaction, before its events are written and COMMIT is sent.
    ///
    /// The hook may write and emit; an error rolls everything back, and so does one that has not
    /// ended after 5 min. Hooks that it registers run too. In a transaction that deliveries of a
    /// [consumer](outbox_core::consumer::Consumer#transactions-of-several-deliveries) share, a hook that
    /// waits ends the sharing after 3 s, and runs by itself then.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # fn example(tx: &OutboxTransaction) {
    /// tx.before_commit(|tx| {
    ///     Box::pin(async move {
    ///         // .. checks or writes with `tx` ..
    ///         Ok(())
    ///     })
    /// });
    /// # }
    /// ```
    pub fn before_commit<F>(&self, hook: F)
    where
        F: for<'t> FnOnce(&'t Self) -> BoxFuture<'t, Result<(), BoxError>> + Send + 'static,
    {
        self.register(|hooks| hooks.before_commit.push((None, Box::new(hook))));
    }

    /// Runs a hook after data and events are in the database, also when the caller of `commit` is
    /// gone by then.
    ///
    /// It dies with the process: what must happen goes through the outbox.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// let (sender, receiver) = tokio::sync::oneshot::channel();
    /// let tx = outbox.begin().await?;
    /// tx.after_commit(move || drop(sender.send("refresh the screen")));
    /// tx.commit().await?;
    /// assert_eq!(receiver.await?, "refresh the screen");
    /// # Ok(()) }
    /// ```
    pub fn after_commit(&self, hook: impl FnOnce() + Send + 'static) {
        self.register(|hooks| hooks.after_commit(hook));
    }

    /// Runs a hook after a rollback, whatever caused it: an error, a panic, a dropped future. One
    /// registered in a nested transaction runs when that is rolled back.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # fn example(tx: &OutboxTransaction, upload: std::path::PathBuf) {
    /// tx.after_rollback(move || drop(std::fs::remove_file(upload))); // nothing refers to the file
    /// # }
    /// ```
    pub fn after_rollback(&self, hook: impl FnOnce() + Send + 'static) {
        self.register(|hooks| hooks.after_rollback(hook));
    }

    /// Runs a hook after the end, with the outcome.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # fn example(tx: &OutboxTransaction) {
    /// tx.after_completion(|outcome| match outcome {
    ///     Outcome::Committed => println!("the order is placed"),
    ///     Outcome::RolledBack => println!("nothing was saved"),
    ///     _ => println!("the response to COMMIT was lost: ask the database"),
    /// });
    /// # }
    /// ```
    pub fn after_completion(&self, hook: impl FnOnce(Outcome) + Send + 'static) {
        self.register(|hooks| hooks.after_completion(hook));
    }

    /// Registers a hook, or runs it as rolled back where the transaction around this one has ended
    /// already.
    fn register(&self, add: impl FnOnce(&mut Hooks)) {
        let mut state = self.shared.state.lock();
        if let Some(hooks) = state.hooks(self.frame.id) {
            return add(hooks);
        }
        let state_is_trial = state.is_trial();
        drop(state);
        if state_is_trial {
            return;
        }
        let mut late = Hooks::default();
        add(&mut late);
        late.run(Outcome::RolledBack);
    }

    /// Waits for the response to the framework's own statements as long as for that to a COMMIT.
    /// Without one, the transaction is lost and its connection closed.
    pub(crate) async fn bounded<T, E: From<OutboxError>>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.shared.queue.deadline().within(), work).await {
            Ok(result) => result,
            Err(_) => Err(OutboxError::Database(self.shared.lose(what)).into()),
        }
    }

    /// As [`bounded`](Self::bounded), for one statement.
    async fn bounded_statement<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        match tokio::time::timeout(self.shared.queue.deadline().within(), work).await {
            Ok(result) => result,
            Err(_) => Err(self.shared.lose(what)),
        }
    }

    /// Keeps an idle transaction from being ended by the server. Does nothing while a statement is
    /// under way.
    pub(crate) async fn keep_alive(&self) {
        let Some(mut turn) = self.shared.queue.idle_turn() else { return };
        let ping = self.shared.run_bounded(&mut turn, "a keep-alive statement", |txn| async move {
            txn.execute_unprepared("SELECT 1").await
        });
        if let Err(error) = ping.await {
            tracing::debug!(%error, "an idle transaction could not be kept awake");
        }
    }

    /// Checks that all its work is still in it, and that the next handler starts as in a transaction
    /// of its own. Drives a statement whose caller was dropped to its end.
    pub(crate) async fn check_intact(&self) -> Result<(), OutboxError> {
        drop(self.shared.turn(self.frame.id).await?);
        let exposed = {
            let mut state = self.shared.state.lock();
            state.seal(self.frame.id)?;
            *state.frame(self.frame.id)?.driver_exposed()
        };
        // Code that had the driver's own transaction may have ended it.
        if exposed { self.verify().await } else { Ok(()) }
    }

    /// Gives the failure by which the database rolled the transaction back in favour of another
    /// one, or lost it: the transaction's own statements are not to blame.
    pub(crate) fn disturbance(&self) -> Option<DbErr> {
        self.shared.state.lock().disturbance().cloned()
    }

    /// Counts its writes so far: statements that may write, and emitted events.
    pub(crate) fn writes(&self) -> u64 {
        self.shared.state.lock().writes()
    }

    /// The outbox that the transaction belongs to.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// struct Orders { outbox: Outbox }
    ///
    /// fn orders_of(tx: &OutboxTransaction) -> Orders {
    ///     Orders { outbox: tx.outbox().clone() } // its methods join the transaction
    /// }
    /// ```
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    /// Tells whether this handle is a savepoint inside another transaction.
    #[must_use]
    pub const fn is_nested(&self) -> bool {
        self.frame.id != 0
    }
}

impl Shared {
    /// Waits for the handle's turn and undoes dropped savepoints.
    async fn turn(&self, id: FrameId) -> Result<Turn<'_>, OutboxError> {
        let mut turn = self.take_turn().await?;
        self.undo_abandoned(&mut turn).await?;
        self.state.lock().frame(id)?;
        Ok(turn)
    }

    /// Waits for a turn.
    async fn take_turn(&self) -> Result<Turn<'_>, OutboxError> {
        self.queue.turn().await.map_err(|refusal| match refusal {
            NoTurn::Streaming => OutboxError::Streaming,
            NoTurn::Lost(error) => {
                self.state.lock().abort(&error);
                OutboxError::Aborted(error)
            }
        })
    }

    /// Runs work on the driver's transaction and notes its result, even when the caller was dropped
    /// by then.
    async fn run<T, F>(
        &self,
        turn: &mut Turn<'_>,
        work: impl FnOnce(Arc<DatabaseTransaction>) -> F,
    ) -> Result<T, DbErr>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        let (work, state) = (work(Arc::clone(&self.txn)), self.state.clone());
        state.lock().note_started();
        turn.run(async move {
            let result = work.await;
            state.lock().note(result.as_ref().map(|_| ()));
            result
        })
        .await
    }

    /// Runs a statement of the framework's own, and waits for the response as long as for that to a
    /// COMMIT.
    async fn run_bounded<T, F>(
        &self,
        turn: &mut Turn<'_>,
        what: &'static str,
        work: impl FnOnce(Arc<DatabaseTransaction>) -> F,
    ) -> Result<T, DbErr>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        match tokio::time::timeout(self.queue.deadline().within(), self.run(turn, work)).await {
            Ok(result) => result,
            Err(_) => Err(self.lose(what)),
        }
    }

    /// Marks the transaction as lost and closes its connection, since a response is overdue.
    fn lose(&self, what: &'static str) -> DbErr {
        let error = self.queue.sever(what);
        self.state.lock().abort(&error);
        error
    }

    /// Runs one statement of a handle.
    async fn statement<T, F>(
        &self,
        id: FrameId,
        work: impl FnOnce(Arc<DatabaseTransaction>) -> F + Send,
    ) -> Result<T, DbErr>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DbErr>> + Send + 'static,
    {
        let mut turn = self.turn(id).await?;
        self.run(&mut turn, work).await
    }
}

impl fmt::Debug for OutboxTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxTransaction")
            .field("nested", &self.is_nested())
            .finish_non_exhaustive()
    }
}
