//! The limits of transactions that the server enforces.

use super::{Dialect, mysql, postgres};
use std::time::Duration;

/// Time that a response may take beyond the server's own limits: the way there and back.
const NETWORK_SLACK: Duration = Duration::from_secs(1);

/// Shortest limit: MySQL and MariaDB count in whole seconds, and take zero for none.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest limit: PostgreSQL takes no more milliseconds than fit 31 bits.
const LONGEST: Duration = Duration::from_hours(24 * 24);
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
/// | [`lock_wait`](Self::lock_wait) | `lock_timeout` | `innodb_lock_wait_timeout` and `lock_wait_timeout` | the same | the pool's `busy_timeout` |
/// | [`statement`](Self::statement) | `statement_timeout` | `max_statement_time` | `max_execution_time` (reads) | none |
///
/// MySQL ends no write that lasts long: there a statement that writes, and waits for no lock, keeps
/// its transaction until it has ended.
///
/// Transactions that several deliveries share have 1 s for a lock and for a statement, if not less, and
/// end 3 s after their BEGIN unless COMMIT was sent.
///
/// The process itself waits for the responses to its own BEGIN, COMMIT, ROLLBACK and inbox
/// statements for the longer of `idle` and `lock_wait`, and a second; then it closes the
/// connection. That holds for every transaction of an [`Outbox`](crate::Outbox). A single statement of
/// its own has that time too, besides the pool's `acquire_timeout`; one that counts, hands over or
/// renames the stored deliveries of a handler has `statement` on top, since it may walk over a large
/// table.
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

    /// Sets how long a transaction may be idle, 1 s to 24 days; 15 s unless set. A live process
    /// keeps its own awake while a handler or step waits for something else, so this ends those of
    /// frozen and vanished ones.
    pub fn idle(mut self, longest: Duration) -> Self {
        self.idle = longest.clamp(SHORTEST, LONGEST);
        self
    }

    /// Sets how long a statement waits for a lock, 1 s to 24 days; 15 s unless set.
    pub fn lock_wait(mut self, longest: Duration) -> Self {
        self.lock_wait = longest.clamp(SHORTEST, LONGEST);
        self
    }

    /// Sets how long a statement may run, 1 s to 24 days; 5 min unless set. Where the application's
    /// own `statement_timeout` is part of its PostgreSQL connection options, that one counts in place
    /// of this, also where it is shorter; `0` there is no limit.
    pub fn statement(mut self, longest: Duration) -> Self {
        self.statement = longest.clamp(SHORTEST, LONGEST);
        self
    }

    /// Takes the limit of a statement from the options of a PostgreSQL connection, where they set one.
    pub(crate) fn with_postgres_options(self, options: &str) -> Self {
        match statement_timeout(options) {
            Some(statement) => Self { statement, ..self },
            None => self,
        }
    }

    /// Gives the limits of operators' reads. Whoever asked may be gone, and the statement goes on: the
    /// server has to end it.
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

/// Reads the limit of a statement from the options of a PostgreSQL connection, of which the last one
/// counts. Zero is none, which is the longest.
fn statement_timeout(options: &str) -> Option<Duration> {
    let (_, rest) = options.rsplit_once("statement_timeout")?;
    let value = rest.strip_prefix('=')?.trim_start_matches(['\'', '"']);
    let (number, rest) =
        value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let number: u64 = number.parse().ok()?;
    // A space inside of a value is escaped.
    let rest = rest.strip_prefix("\\ ").unwrap_or(rest);
    let unit = &rest[..rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len())];
    let limit = match unit {
        "us" => Duration::from_micros(number),
        "" | "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(60 * 60)),
        "d" => Duration::from_secs(number.saturating_mul(24 * 60 * 60)),
        _ => return None,
    };
    Some(if number == 0 { LONGEST } else { limit.clamp(Duration::from_millis(1), LONGEST) })
}

/// A setting of a session: its name with its value.
type Setting = (&'static str, String);

impl Dialect {
    /// Lists the limits of a connection for handlers, steps and operators: names with their values.
    pub(crate) fn limits_of_session(self, limits: &TransactionLimits) -> Vec<Setting> {
        match self {
            Self::Postgres => postgres::limits(limits),
            Self::MySql => mysql::limits(limits, false),
            Self::MariaDb => mysql::limits(limits, true),
            Self::Sqlite => Vec::new(),
        }
    }

    /// Writes the statement that sets these limits: for the open transaction where the database
    /// can, else for the session. It is empty where there are none.
    pub(crate) fn limits_of_transaction(self, limits: &TransactionLimits) -> String {
        self.set(&self.limits_of_session(limits))
    }

    /// Writes the statement that puts other limits in the place of these, as
    /// [`limits_of_transaction`](Self::limits_of_transaction) does. It sets those alone that
    /// differ, and is empty where none does.
    pub(crate) fn change_of_limits(
        self,
        from: &TransactionLimits,
        to: &TransactionLimits,
    ) -> String {
        let before = self.limits_of_session(from);
        let mut settings = self.limits_of_session(to);
        settings.retain(|setting| !before.contains(setting));
        self.set(&settings)
    }

    fn set(self, settings: &[Setting]) -> String {
        let written = |scope: &str, between: &str| {
            let settings = settings.iter().map(|(name, value)| format!("{scope} {name} = {value}"));
            settings.collect::<Vec<_>>().join(between)
        };
        match self {
            _ if settings.is_empty() => String::new(),
            Self::Postgres => written("SET LOCAL", "; "),
            // One statement, which sets all of them or none.
            Self::MySql | Self::MariaDb => format!("SET {}", written("SESSION", ", ")),
            Self::Sqlite => String::new(),
        }
    }

    /// Tells whether limits that are set in a transaction outlast it, on its connection.
    pub(crate) const fn keeps_limits_of_transaction(self) -> bool {
        self.is_mysql()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_one_that_every_server_takes() {
        for (longest, expected) in [
            (Duration::ZERO, 1_000),
            (Duration::from_millis(1_500), 1_500),
            (Duration::MAX, 2_073_600_000),
        ] {
            let limits = TransactionLimits::new().idle(longest).lock_wait(longest);
            for (name, value) in Dialect::Postgres.limits_of_session(&limits.statement(longest)) {
                assert_eq!(value.parse::<i32>(), Ok(expected), "{name}");
            }
            assert!(limits.response() > limits.idle);
        }
    }

    #[test]
    fn other_limits_set_what_differs_and_are_put_back_by_the_same_names() {
        let usual = TransactionLimits::new();
        let short = usual.lock_wait(Duration::from_secs(1));
        let both = short.statement(Duration::from_secs(5));
        for (dialect, from, to, expected) in [
            (Dialect::Postgres, usual, short, "SET LOCAL lock_timeout = 1000"),
            (
                Dialect::Postgres,
                usual,
                both,
                "SET LOCAL statement_timeout = 5000; SET LOCAL lock_timeout = 1000",
            ),
            (
                Dialect::MariaDb,
                usual,
                short,
                "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1",
            ),
            (
                Dialect::MariaDb,
                both,
                usual,
                "SET SESSION innodb_lock_wait_timeout = 15, SESSION lock_wait_timeout = 15, \
                 SESSION max_statement_time = 300",
            ),
            (
                Dialect::MySql,
                both,
                usual,
                "SET SESSION innodb_lock_wait_timeout = 15, SESSION lock_wait_timeout = 15, \
                 SESSION max_execution_time = 300000",
            ),
            (Dialect::MariaDb, usual, usual, ""),
            (Dialect::Postgres, short, short, ""),
            (Dialect::Sqlite, usual, both, ""),
        ] {
            assert_eq!(dialect.change_of_limits(&from, &to), expected, "{dialect:?}");
        }
    }

    #[test]
    fn the_application_s_own_limit_of_a_statement_counts_and_is_never_loosened() {
        let usual = TransactionLimits::new();
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        for (options, statement) in [
            ("", usual.statement),
            ("-c lock_timeout=5", usual.statement),
            ("-c statement_timeout=soon", usual.statement),
            ("-c statement_timeout=60000 -c lock_timeout=5", minute),
            ("-c statement_timeout=5 -c statement_timeout=1min", minute),
            ("-c statement_timeout=60\\ s", minute),
            ("--statement_timeout='60s'", minute),
            ("-c statement_timeout=500", Duration::from_millis(500)),
            ("-c statement_timeout=10us", Duration::from_millis(1)),
            ("-c statement_timeout=0", LONGEST),
            ("-c statement_timeout=18446744073709551615d", LONGEST),
        ] {
            let limits = usual.with_postgres_options(options);
            assert_eq!(limits, TransactionLimits { statement, ..usual }, "{options}");
            assert_eq!(limits.of_reads().statement, statement.min(LONGEST_READ), "{options}");
            // As a transaction that deliveries share sets it.
            let shared = TransactionLimits { statement: statement.min(second), ..limits };
            let set = Dialect::Postgres.change_of_limits(&limits, &shared);
            assert_eq!(set.is_empty(), statement < second, "{options}: {set}");
        }
    }

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
