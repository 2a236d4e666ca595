//! The limits of transactions that the server enforces.

use std::time::Duration;

/// Time that a response may take beyond the server's own limits: the way there and back.
const NETWORK_SLACK: Duration = Duration::from_secs(1);

/// Longest statement of an operator's read, and longest time in which its transaction is idle: a
/// page waits 5 s for all of its statements, and the command line may wait a while longer.
const LONGEST_READ: Duration = Duration::from_secs(10);
/// Longest wait of an operator's read for a lock, which only a change of the tables makes it wait
/// for.
const LONGEST_READ_LOCK: Duration = Duration::from_secs(5);

/// Limits of the transactions that the framework opens itself: those of handlers, stored
/// deliveries, steps of sagas and operators. The server ends a transaction that exceeds them, so
/// that a frozen process, or one without a network, holds no lock for longer.
///
/// | | PostgreSQL | MariaDB | MySQL | SQLite |
/// | --- | --- | --- | --- | --- |
/// | [`idle`](Self::idle) | `idle_in_transaction_session_timeout` | `idle_transaction_timeout` | none | none |
/// | [`lock_wait`](Self::lock_wait) | `lock_timeout` | `innodb_lock_wait_timeout` | the same | the pool's `busy_timeout` |
/// | [`statement`](Self::statement) | `statement_timeout` | `max_statement_time` | `max_execution_time` (reads) | none |
///
/// The process itself waits for the responses to its own BEGIN, COMMIT, ROLLBACK and inbox
/// statements for the longer of `idle` and `lock_wait`, and a second; then it closes the
/// connection. That holds for every transaction of an [`Outbox`](crate::Outbox).
///
/// What an operator asks has shorter ones, where these are longer: 10 s for a statement, 5 s for a
/// lock.
///
/// ```
/// # use outbox_sea_orm::TransactionLimits;
/// # use std::time::Duration;
/// let limits = TransactionLimits::new()
///     .idle(Duration::from_secs(30))
///     .lock_wait(Duration::from_secs(5))
///     .statement(Duration::from_mins(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct TransactionLimits {
    pub(crate) idle: Duration,
    pub(crate) lock_wait: Duration,
    pub(crate) statement: Duration,
}

impl Default for TransactionLimits {
    fn default() -> Self {
        let (idle, statement) = (Duration::from_secs(15), Duration::from_mins(5));
        Self { idle, lock_wait: idle, statement }
    }
}

impl TransactionLimits {
    /// Starts from the defaults: 15 s idle, 15 s for a lock, 5 min for a statement.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a transaction may be idle, at least 1 s; 15 s unless set. A live process keeps
    /// its own awake while a handler or step waits for something else, so this ends those of frozen
    /// and vanished ones.
    pub fn idle(mut self, longest: Duration) -> Self {
        self.idle = longest.max(Duration::from_secs(1));
        self
    }

    /// Sets how long a statement waits for a lock, at least 1 s; 15 s unless set.
    pub fn lock_wait(mut self, longest: Duration) -> Self {
        self.lock_wait = longest.max(Duration::from_secs(1));
        self
    }

    /// Sets how long a statement may run, at least 1 s; 5 min unless set. Where the application's
    /// own `statement_timeout` is part of its PostgreSQL connection options, that one stays.
    pub fn statement(mut self, longest: Duration) -> Self {
        self.statement = longest.max(Duration::from_secs(1));
        self
    }

    /// Gives the limits of operators' reads. Whoever asked may be gone, and the statement goes on:
    /// the server has to end it.
    pub(crate) fn of_reads(self) -> Self {
        Self {
            idle: self.idle.min(LONGEST_READ),
            lock_wait: self.lock_wait.min(LONGEST_READ_LOCK),
            statement: self.statement.min(LONGEST_READ),
        }
    }

    /// How long the process waits for a response of the server.
    pub(crate) fn response(&self) -> Duration {
        self.idle.max(self.lock_wait) + NETWORK_SLACK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_an_operator_ends_soon_and_never_later_than_other_statements() {
        let of = |idle, lock_wait, statement| TransactionLimits {
            idle: Duration::from_secs(idle),
            lock_wait: Duration::from_secs(lock_wait),
            statement: Duration::from_secs(statement),
        };
        for (limits, expected) in [
            (TransactionLimits::default(), of(10, 5, 10)),
            (of(2, 20, 3), of(2, 5, 3)),
            (of(60, 1, 600), of(10, 1, 10)),
        ] {
            assert_eq!(limits.of_reads(), expected, "{limits:?}");
        }
    }
}
