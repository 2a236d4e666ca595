//! A store in memory with real transactions, for tests of consumers and handlers that need no database.

mod barrier;
mod deliveries;
mod handover;
mod instances;
mod operator;
mod trial;

use crate::{
    event::{CorrelationContext, MessageId, NewEvent},
    failure::DeadLetter,
    outbox::{InboxKey, Live, OperatorRows, RecordedCommand, Store, StoreError, TrialStore},
    runtime::Wake,
};
use async_trait::async_trait;
use barrier::OwnedCommandKey;
use deliveries::Row;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// A store in memory. No other transaction sees a transaction's writes before its commit; two transactions that write the
/// same inbox row exclude each other, as a unique index does: the second waits until the first has ended.
///
/// Clones share the content.
///
/// ```
/// # use outbox_core::{consumer::{Consumer, HandlerContext, HandlerError}, event::Message, testing::{MemoryStore, MemoryTx}};
/// # use outbox_core::transport::{Memory, Publisher};
/// # struct OrderPlaced { order_id: i64 }
/// # impl outbox_core::event::OutboxEvent for OrderPlaced {
/// #     fn meta(&self) -> outbox_core::event::EventMeta<'_> {
/// #         outbox_core::event::EventMeta::new("order.placed").topic("orders").key(Some(self.order_id.to_string()))
/// #     }
/// #     fn payload(&self) -> Result<bytes::Bytes, outbox_core::event::EncodeError> {
/// #         Ok(format!(r#"{{"order_id":{}}}"#, self.order_id).into())
/// #     }
/// # }
/// # impl outbox_core::event::EventContract for OrderPlaced { const TYPES: &'static [outbox_core::event::EventType] = &[outbox_core::event::EventType { name: "order.placed", version: 1, topic: "orders" }]; }
/// # impl outbox_core::event::DecodeEvent for OrderPlaced {
/// #     fn decode(_: &Message) -> Result<Self, outbox_core::event::DecodeError> { Ok(Self { order_id: 7 }) }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// async fn bill(order: OrderPlaced, cx: &HandlerContext<MemoryTx>) -> Result<(), HandlerError> {
///     cx.tx.insert(format!("bill for order {}", order.order_id));
///     Ok(())
/// }
/// let (store, (publisher, subscriber)) = (MemoryStore::default(), Memory::channel());
/// let consumer = Consumer::builder("billing", &store).on("bill", bill).subscribe(subscriber).start().await?;
/// let message = Message::for_test(&OrderPlaced { order_id: 7 })?;
/// publisher.publish(&message).await?;
/// publisher.publish(&message).await?; // a repeat
/// assert_eq!(store.rows(), ["bill for order 7"]);
/// # consumer.shutdown(std::time::Duration::from_secs(5)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Changes when a transaction has ended.
    ended: watch::Sender<()>,
    wake: Wake,
}

#[derive(Debug, Default)]
struct State {
    inbox: HashSet<OwnedKey>,
    locked: HashSet<OwnedKey>,
    commands: HashMap<OwnedCommandKey, RecordedCommand>,
    locked_commands: HashSet<OwnedCommandKey>,
    rows: Vec<String>,
    events: Vec<NewEvent>,
    open: usize,
    down: bool,
    refuse_commits: u32,
    lose_results: u32,
    late_results: u32,
    read_only: bool,
    refused_source: Option<String>,
    refused_delivery: Option<String>,
    /// Stored deliveries in the order of their ids, and the last id that was given.
    deliveries: BTreeMap<i64, Row>,
    last_id: i64,
    letters: Vec<DeadLetter>,
    instances: BTreeMap<Arc<str>, instances::Row>,
    controls: Vec<operator::Row>,
    live: BTreeMap<String, Live>,
    inbox_retention: Option<Duration>,
}

/// An open transaction of a [`MemoryStore`]. Dropped, it rolls back.
///
/// ```
/// # use outbox_core::{outbox::Store, testing::MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::default();
/// let tx = store.begin().await?;
/// tx.insert("a bill");
/// drop(tx); // rolls back
/// assert!(store.rows().is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MemoryTx {
    store: Arc<Shared>,
    staged: Arc<Mutex<Staged>>,
    /// The writes of the transaction around this one.
    around: Option<Arc<Mutex<Staged>>>,
    correlation: Mutex<Option<CorrelationContext>>,
}

#[derive(Debug, Default)]
struct Staged {
    keys: Vec<OwnedKey>,
    commands: HashMap<OwnedCommandKey, RecordedCommand>,
    rows: Vec<String>,
    events: Vec<NewEvent>,
    deferred: Vec<Row>,
    finished: Vec<i64>,
    letters: Vec<DeadLetter>,
}

/// Consumer, handler, source, message.
type OwnedKey = (String, String, String, MessageId);

impl MemoryStore {
    /// Takes the store down or up again. While it is down, every call but rollback fails as unavailable.
    ///
    /// ```
    /// # use outbox_core::{outbox::Store, testing::MemoryStore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryStore::default();
    /// store.set_down(true);
    /// assert!(store.begin().await.is_err());
    /// # Ok(()) }
    /// ```
    pub fn set_down(&self, down: bool) {
        self.0.state().down = down;
        self.0.ended.send_replace(());
    }

    /// Lets the next commits fail as busy, with everything rolled back, as a deadlock's victim does.
    pub fn refuse_commits(&self, times: u32) {
        self.0.state().refuse_commits = times;
    }

    /// Lets the next commits succeed and their results get lost: the caller sees the store as unavailable.
    pub fn lose_commit_results(&self, times: u32) {
        self.0.state().lose_results = times;
    }

    /// Lets the next commits succeed and their results come too late: the caller sees the store as busy.
    pub fn delay_commit_results(&self, times: u32) {
        self.0.state().late_results = times;
    }

    /// Refuses inbox rows for messages of a source, as a database refuses a text that its column does not hold.
    pub fn refuse_source(&self, source: impl Into<String>) {
        self.0.state().refused_source = Some(source.into());
    }

    /// Refuses to store deliveries of a source for later, as a database refuses a packet that is too large.
    pub fn refuse_deliveries(&self, source: impl Into<String>) {
        self.0.state().refused_delivery = Some(source.into());
    }

    /// Opens transactions and refuses inbox rows and dead letters, as a server does that was made read-only or whose
    /// privileges were revoked.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.state().read_only = read_only;
    }

    /// Sets the inbox retention; for ever unless set. No row is deleted here all the same.
    pub fn set_inbox_retention(&self, retention: Duration) {
        self.0.state().inbox_retention = Some(retention);
    }

    /// Gives the committed rows, in order of their commits.
    #[must_use]
    pub fn rows(&self) -> Vec<String> {
        self.0.state().rows.clone()
    }

    /// Gives the committed events, in order of their commits.
    #[must_use]
    pub fn events(&self) -> Vec<NewEvent> {
        self.0.state().events.clone()
    }

    /// Gives the letters that were written, in order of their commits.
    #[must_use]
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.0.state().letters.clone()
    }

    /// Tells how many deliveries are stored.
    #[must_use]
    pub fn stored_deliveries(&self) -> usize {
        self.0.state().deliveries.len()
    }

    /// Tells how many inbox rows are committed.
    #[must_use]
    pub fn inbox_rows(&self) -> usize {
        self.0.state().inbox.len()
    }

    /// Tells how many transactions are open.
    #[must_use]
    pub fn open_transactions(&self) -> usize {
        self.0.state().open
    }

    /// Gives the wake for committed events.
    #[must_use]
    pub fn wake_handle(&self) -> Wake {
        self.0.wake.clone()
    }
}

impl MemoryTx {
    /// Writes a row.
    pub fn insert(&self, row: impl Into<String>) {
        self.staged().rows.push(row.into());
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn correlation(&self) -> MutexGuard<'_, Option<CorrelationContext>> {
        self.correlation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the transaction around this one holds a key, and whether it holds any.
    fn around_holds(&self, key: &OwnedKey) -> (bool, bool) {
        let Some(around) = &self.around else { return (false, false) };
        let around = around.lock().unwrap_or_else(PoisonError::into_inner);
        (around.keys.contains(key), !around.keys.is_empty())
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        let staged = std::mem::take(&mut *self.staged());
        let mut state = self.store.state();
        state.open -= 1;
        for key in staged.keys {
            state.locked.remove(&key);
        }
        for key in staged.commands.into_keys() {
            state.locked_commands.remove(&key);
        }
        drop(state);
        self.store.ended.send_replace(());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.down { Err(store_down()) } else { Ok(state) }
    }

    fn writable(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.up()?;
        if state.read_only {
            Err(StoreError::Unusable("a privilege is missing".into()))
        } else {
            Ok(state)
        }
    }

    /// Writes the inbox row for the transaction; `None` while another transaction has locked its key.
    fn try_receive(&self, tx: &MemoryTx, key: &OwnedKey) -> Result<Option<bool>, StoreError> {
        let mut state = self.writable()?;
        if state.refused_source.as_ref() == Some(&key.2) {
            return Err(StoreError::Refused("a text that the column does not hold".into()));
        }
        let mut staged = tx.staged();
        let (holds_this, holds_any) = tx.around_holds(key);
        if state.inbox.contains(key) || staged.keys.contains(key) || holds_this {
            return Ok(Some(false));
        }
        if state.locked.insert(key.clone()) {
            staged.keys.push(key.clone());
            return Ok(Some(true));
        }
        if staged.keys.is_empty() && !holds_any {
            Ok(None)
        } else {
            Err(busy("a transaction that holds a key waits for another"))
        }
    }
}

fn store_down() -> StoreError {
    StoreError::Unavailable("the store is down".into())
}

fn busy(text: &'static str) -> StoreError {
    StoreError::Busy(text.into())
}

#[async_trait]
impl Store for MemoryStore {
    type Tx = MemoryTx;

    async fn begin(&self) -> Result<MemoryTx, StoreError> {
        self.0.up()?.open += 1;
        Ok(MemoryTx {
            store: self.0.clone(),
            staged: Arc::default(),
            around: None,
            correlation: Mutex::default(),
        })
    }

    async fn commit(&self, tx: MemoryTx) -> Result<(), StoreError> {
        let mut state = self.0.up()?;
        if let Some(around) = &tx.around {
            around
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .absorb(std::mem::take(&mut *tx.staged()));
            drop(state);
            return Ok(());
        }
        if state.refuse_commits > 0 {
            state.refuse_commits -= 1;
            return Err(busy("a deadlock's victim"));
        }
        let (rows, events) = {
            let mut staged = tx.staged();
            state.inbox.extend(staged.keys.iter().cloned());
            state.commands.extend(
                staged.commands.iter().map(|(key, command)| (key.clone(), command.clone())),
            );
            state.settle(&mut staged);
            (std::mem::take(&mut staged.rows), std::mem::take(&mut staged.events))
        };
        let wakes = !events.is_empty();
        state.rows.extend(rows);
        state.events.extend(events);
        let lost = state.lose_results > 0;
        state.lose_results = state.lose_results.saturating_sub(1);
        let late = state.late_results > 0;
        state.late_results = state.late_results.saturating_sub(1);
        drop(state);
        drop(tx);
        if lost {
            return Err(store_down());
        }
        if late {
            return Err(busy("no response within its time"));
        }
        if wakes {
            self.0.wake.wake();
        }
        Ok(())
    }

    async fn rollback(&self, tx: MemoryTx) -> Result<(), StoreError> {
        drop(tx);
        Ok(())
    }

    async fn append(&self, tx: &MemoryTx, events: &[NewEvent]) -> Result<(), StoreError> {
        let _up = self.0.up()?;
        let mut events = events.to_vec();
        if let Some(correlation) = &*tx.correlation() {
            events.iter_mut().for_each(|event| correlation.apply_to(&mut event.headers));
        }
        tx.staged().events.append(&mut events);
        Ok(())
    }

    fn operator(&self) -> Option<Arc<dyn OperatorRows>> {
        Some(Arc::new(self.clone()))
    }

    fn trials(&self) -> Option<Arc<dyn TrialStore<MemoryTx>>> {
        Some(Arc::new(self.clone()))
    }

    fn correlate(&self, tx: &MemoryTx, correlation: CorrelationContext) {
        *tx.correlation() = Some(correlation);
    }

    async fn receive(&self, tx: &MemoryTx, key: InboxKey<'_>) -> Result<bool, StoreError> {
        let key = (
            key.consumer.to_owned(),
            key.handler.to_owned(),
            key.source.to_owned(),
            key.message_id,
        );
        let mut ended = self.0.ended.subscribe();
        loop {
            if let Some(new) = self.0.try_receive(tx, &key)? {
                return Ok(new);
            }
            // The sender lives as long as the store.
            let _ = ended.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn key(id: MessageId) -> InboxKey<'static> {
        InboxKey { consumer: "c", handler: "h", source: "/s", message_id: id }
    }

    #[tokio::test]
    async fn uncommitted_writes_are_not_seen() {
        let store = MemoryStore::default();
        let id = MessageId::generate();
        let tx = store.begin().await.expect("up");
        tx.insert("lost");
        assert!(store.receive(&tx, key(id)).await.expect("up"));
        drop(tx);
        assert_eq!((store.rows().len(), store.inbox_rows(), store.open_transactions()), (0, 0, 0));
        let tx = store.begin().await.expect("up");
        tx.insert("kept");
        assert!(store.receive(&tx, key(id)).await.expect("up"), "the rollback freed the key");
        store.commit(tx).await.expect("up");
        assert_eq!((store.rows(), store.inbox_rows()), (vec!["kept".to_owned()], 1));
    }

    #[tokio::test]
    async fn the_second_of_two_receivers_waits_for_the_first() {
        let store = MemoryStore::default();
        let id = MessageId::generate();
        let (first, second) = (store.begin().await.expect("up"), store.begin().await.expect("up"));
        assert!(store.receive(&first, key(id)).await.expect("up"));
        {
            let mut waiting = store.receive(&second, key(id));
            assert!((&mut waiting).now_or_never().is_none());
            store.commit(first).await.expect("up");
            assert!(!waiting.await.expect("up"), "it was received");
        }
        store.rollback(second).await.expect("up");
    }

    #[tokio::test]
    async fn a_store_that_is_down_says_so_and_a_commit_whose_result_is_lost_is_committed() {
        let store = MemoryStore::default();
        let tx = store.begin().await.expect("up");
        tx.insert("a");
        store.lose_commit_results(1);
        assert!(matches!(store.commit(tx).await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.rows(), ["a"]);
        let tx = store.begin().await.expect("up");
        tx.insert("b");
        store.set_down(true);
        assert!(matches!(store.commit(tx).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.begin().await, Err(StoreError::Unavailable(_))));
        store.set_down(false);
        assert_eq!((store.rows().len(), store.open_transactions()), (1, 0));
    }
}
