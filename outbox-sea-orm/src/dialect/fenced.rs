//! The writes of a relay: every transaction first locks its partitions, in order, and reads their
//! owners.

use super::{Dialect, EVENT_COLUMNS, ORIGIN_RELAY};

impl Dialect {
    /// Locks those of `n` partitions that an owner has. Takes owner, partitions; gives partition,
    /// epoch and the time.
    pub(crate) fn lock_owned(self, n: usize) -> String {
        format!(
            "SELECT p.partition_no, p.epoch, {{now}} FROM {{partitions}} p WHERE p.owner = ? AND {} \
             ORDER BY p.partition_no{{for_share}}",
            self.any("p.partition_no", n)
        )
    }

    /// Finishes events in one statement, where the database can: takes owner, partitions and
    /// epochs, places; gives the number of events and the list of partitions that the relay owned.
    pub(crate) fn finish_at_once(self, keep: bool) -> Option<String> {
        (self == Self::Postgres).then(|| super::postgres::finish(keep))
    }

    /// Deletes events by `n` ids.
    pub(crate) fn delete_ids(self, n: usize) -> String {
        self.delete_events(&self.any("e.event_id", n), self.by_id())
    }

    /// Deletes events of one partition: takes it, and `n` ids.
    pub(crate) fn delete_of_partition(self, n: usize) -> String {
        self.delete_events(&format!("e.partition_no = ? AND {}", self.any("e.event_id", n)), "")
    }

    fn delete_events(self, condition: &str, index: &str) -> String {
        if self.is_mysql() {
            // Only this form takes an index hint; without it MySQL scans a small table, and locks
            // every row that it reads.
            let index = if index.is_empty() { " FORCE INDEX (PRIMARY)" } else { index };
            format!("DELETE e FROM {{events}} AS e{index} WHERE {condition}")
        } else {
            format!("DELETE FROM {{events}} AS e WHERE {condition}")
        }
    }

    /// Archives events by `n` ids.
    pub(crate) fn archive_ids(self, n: usize) -> String {
        self.archive_events(&self.any("e.event_id", n), self.by_id())
    }

    /// Archives events of one partition: takes it, and `n` ids.
    pub(crate) fn archive_of_partition(self, n: usize) -> String {
        self.archive_events(&format!("e.partition_no = ? AND {}", self.any("e.event_id", n)), "")
    }

    fn archive_events(self, condition: &str, index: &str) -> String {
        let or_replace = self.or_replace("event_id", &["finished_at"]);
        format!(
            "INSERT INTO {{archive}} (event_id, partition_no, {EVENT_COLUMNS}, created_at, expires_at, finished_at) \
             SELECT e.event_id, e.partition_no, {EVENT_COLUMNS}, e.created_at, e.expires_at, {{now}} \
             FROM {{events}} AS e{index} WHERE {condition}{or_replace}"
        )
    }

    /// Reads parked keys of a partition in the order of their letters: takes the partition, the
    /// letter before, a limit.
    pub(crate) fn parks(self) -> String {
        format!(
            "SELECT route, message_key, letter_id FROM {{letters}} WHERE {} AND resolution IS NULL AND partition_no = ? \
             AND letter_id > ? AND message_key IS NOT NULL ORDER BY letter_id LIMIT ?",
            self.is_set("parks")
        )
    }

    /// Reads which of `n` events of a partition are there, with their keys: takes the partition,
    /// ids.
    pub(crate) fn present(self, n: usize) -> String {
        format!(
            "SELECT e.event_id, e.message_key FROM {{events}} e WHERE e.partition_no = ? AND {}",
            self.any("e.event_id", n)
        )
    }

    /// Reads the routes on which an operator has `n` events of a partition delivered again, and how
    /// many attempts have failed since: takes the partition, ids.
    pub(crate) fn redriven(self, n: usize) -> String {
        format!(
            "SELECT event_id, route, attempts_finished FROM {{retries}} WHERE partition_no = ? AND {} \
             AND state = 'waiting' AND {}",
            self.any("event_id", n),
            self.is_set("redriven")
        )
    }

    /// Reads which of `n` events of a partition are finished, and whether any of their routes
    /// confirmed: takes the partition, ids.
    pub(crate) fn finished(self, n: usize) -> String {
        format!(
            "SELECT e.event_id, CASE WHEN EXISTS (SELECT 1 FROM {{retries}} d WHERE d.partition_no = e.partition_no \
             AND d.event_id = e.event_id AND d.state = 'done') THEN 1 ELSE 0 END FROM {{events}} e \
             WHERE e.partition_no = ? AND {} AND NOT EXISTS (SELECT 1 FROM {{retries}} w \
             WHERE w.partition_no = e.partition_no AND w.event_id = e.event_id AND w.state = 'waiting')",
            self.any("e.event_id", n)
        )
    }

    /// Deletes the route rows of `n` events of a partition: takes it, ids.
    pub(crate) fn delete_route_rows(self, n: usize) -> String {
        format!("DELETE FROM {{retries}} WHERE partition_no = ? AND {}", self.any("event_id", n))
    }

    /// Inserts or replaces the rows of `n` routes: takes partition, id, route, key, state, attempts
    /// started and finished, wait, span of failing, errors, whether redriven.
    pub(crate) fn upsert_route_rows(self, n: usize) -> String {
        let row = "(?, ?, ?, ?, ?, ?, ?, {now} + ?, ?, ?, ?)";
        let replaced = [
            "state",
            "attempts_started",
            "attempts_finished",
            "due_at",
            "failing_us",
            "errors",
            "redriven",
        ];
        format!(
            "INSERT INTO {{retries}} (partition_no, event_id, route, message_key, state, attempts_started, \
             attempts_finished, due_at, failing_us, errors, redriven) VALUES {}{}",
            vec![row; n].join(", "),
            self.or_replace("partition_no, event_id, route", &replaced)
        )
    }

    /// Reads the letters of `n` events: id, event, route, whether it is unresolved; the oldest
    /// first.
    pub(crate) fn letters_of(self, n: usize) -> String {
        format!(
            "SELECT letter_id, event_id, route, CASE WHEN resolution IS NULL THEN 1 ELSE 0 END FROM {{letters}} WHERE {} \
             ORDER BY letter_id",
            self.any("event_id", n)
        )
    }

    /// Writes the letter of an event with the history of its route: takes route, reason, whether it
    /// parks, the letter before, route, partition, id. Gives the letter's id, or
    /// [`last_id`](Self::last_id) does.
    pub(crate) fn insert_letter(self) -> String {
        let of_event: Vec<String> = EVENT_COLUMNS.split(", ").map(|c| format!("e.{c}")).collect();
        let returning = if self.is_mysql() { "" } else { " RETURNING letter_id" };
        format!(
            "INSERT INTO {{letters}} (origin, partition_no, event_id, {EVENT_COLUMNS}, created_at, expires_at, route, reason, \
             attempts, errors, parks, dead_at, previous_id) SELECT {ORIGIN_RELAY}, e.partition_no, e.event_id, {}, e.created_at, \
             e.expires_at, ?, ?, COALESCE(r.attempts_finished, 0), COALESCE(r.errors, '[]'), ?, {{now}}, ? \
             FROM {{events}} e LEFT JOIN {{retries}} r ON r.partition_no = e.partition_no \
             AND r.event_id = e.event_id AND r.route = ? WHERE e.partition_no = ? AND e.event_id = ?{returning}",
            of_event.join(", ")
        )
    }

    /// Reads the id of the last INSERT of this connection, where the INSERT cannot return it.
    pub(crate) const fn last_id(self) -> Option<&'static str> {
        if self.is_mysql() { Some("SELECT CAST(LAST_INSERT_ID() AS SIGNED)") } else { None }
    }

    /// Deletes rows of a table where a condition without parameters holds, the first by `order`, up
    /// to a limit: takes it.
    pub(crate) fn prune_first(
        self,
        table: &str,
        key: &str,
        condition: &str,
        order: &str,
    ) -> String {
        let ordered = format!("{condition} ORDER BY {order}");
        if self.is_mysql() {
            format!("DELETE FROM {table} WHERE {ordered} LIMIT ?")
        } else {
            format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {ordered} LIMIT ?) AND {condition}"
            )
        }
    }

    /// Reads how many bytes the rows have that [`prune_first`](Self::prune_first) deletes, in its
    /// order: takes its limit.
    pub(crate) fn prune_sizes(
        self,
        table: &str,
        columns: &[&str],
        condition: &str,
        order: &str,
    ) -> String {
        format!(
            "SELECT {} FROM {table} WHERE {condition} ORDER BY {order} LIMIT ?",
            self.bytes_of(columns)
        )
    }

    /// Deletes rows of a table where a condition without parameters holds, up to a limit: takes it.
    pub(crate) fn prune(self, table: &str, key: &str, condition: &str) -> String {
        if self.is_mysql() {
            format!("DELETE FROM {table} WHERE {condition} LIMIT ?")
        } else {
            // The condition again: a row may have been renewed since it was chosen.
            format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?) \
                 AND {condition}"
            )
        }
    }
}
