//! The options of one handler.

use std::time::Duration;

/// Options of one handler, given to [`on_with`](crate::consumer::ConsumerBuilder::on_with) or
/// [`on_command_with`](crate::consumer::ConsumerBuilder::on_command_with).
///
/// ```
/// # use outbox_core::consumer::HandlerOptions;
/// # use std::time::Duration;
/// let options = HandlerOptions::new().timeout(Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct HandlerOptions {
    /// The time limit; `None` for the consumer's, `Some(None)` for no limit.
    pub(in crate::consumer) timeout: Option<Option<Duration>>,
    pub(in crate::consumer) deferred_lock: bool,
    pub(in crate::consumer) renamed_from: Option<&'static str>,
    pub(in crate::consumer) no_writes: bool,
    pub(in crate::consumer) alone: bool,
    pub(in crate::consumer) no_try: Option<&'static str>,
}

impl HandlerOptions {
    /// Starts with the consumer's settings.
    pub const fn new() -> Self {
        Self {
            timeout: None,
            deferred_lock: false,
            renamed_from: None,
            no_writes: false,
            alone: false,
            no_try: None,
        }
    }

    /// Sets after which time a run is dropped: its transaction rolls back, and it counts as a failed attempt.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(Some(limit));
        self
    }

    /// Lets a run take as long as it takes. One that never returns keeps its slot, its connection and its locks for ever.
    pub const fn no_timeout(mut self) -> Self {
        self.timeout = Some(None);
        self
    }

    /// Begins the handler's transaction without the write lock where the database has only one, which is SQLite: other
    /// writers go on while the handler waits for something else. Its first write takes the lock, and its inbox row is written
    /// at its end.
    ///
    /// Where another writer has written between the handler's first read and its first write, the write fails, and the handler
    /// runs again without a failure being counted; so it should write before it reads, or read little. Two deliveries of one
    /// message at the same time may both run it; one of them commits. In a file that is not in WAL mode, which a relay sets, a
    /// handler that has read keeps writers waiting all the same. Commands of sagas, batches, [renamed](Self::renamed_from)
    /// handlers and the other databases take their locks as usual.
    ///
    /// ```
    /// # use outbox_core::consumer::HandlerOptions;
    /// let waits_for_a_service = HandlerOptions::new().deferred_lock();
    /// ```
    pub const fn deferred_lock(mut self) -> Self {
        self.deferred_lock = true;
        self
    }

    /// Runs the handler in a transaction of its own for each delivery: for one that waits for others, or has effects outside
    /// of the database. Fast handlers share transactions otherwise, unless their consumer handles
    /// its deliveries [one by one](crate::consumer::ConsumerBuilder::one_by_one): then a handler
    /// keeps its locks until its neighbours are done, and runs once more where one of them fails.
    ///
    /// ```
    /// # use outbox_core::consumer::HandlerOptions;
    /// let calls_a_service = HandlerOptions::new().alone();
    /// ```
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Says that the handler writes nothing through its transaction and emits nothing, which is then not warned of. Its
    /// effects elsewhere may happen twice, so it runs [alone](Self::alone).
    pub const fn no_writes(mut self) -> Self {
        self.no_writes = true;
        self
    }

    /// Says that the handler must not be [tried](crate::consumer::Consumer::try_handle), and why: it does something by another
    /// connection or by the network that a rollback does not undo. It runs [alone](Self::alone) for the same reason.
    ///
    /// ```
    /// # use outbox_core::consumer::HandlerOptions;
    /// let options = HandlerOptions::new().no_try("it charges the card");
    /// ```
    pub const fn no_try(mut self, reason: &'static str) -> Self {
        self.no_try = Some(reason);
        self
    }

    /// Sets the handler's former name: 1 to 100 bytes. Deliveries that are stored under that name are its own, and messages
    /// that were received under it are not handled again. Old and new instances may run beside each other, and the release
    /// may be rolled back: each message has an inbox row under either name, and deliveries are stored under the old one while
    /// another instance has it, and for [an hour](crate::consumer::ConsumerBuilder::keep_unknown) after the start; then they move to the new one.
    ///
    /// Leave it out again when all instances have run with it for as long as a message may be
    /// [delivered again](crate::consumer::ConsumerBuilder::redelivery_window).
    ///
    /// ```
    /// # use outbox_core::consumer::HandlerOptions;
    /// let options = HandlerOptions::new().renamed_from("mail-receipt"); // now `send-receipt`
    /// ```
    pub const fn renamed_from(mut self, name: &'static str) -> Self {
        self.renamed_from = Some(name);
        self
    }
}
