//! The reads of a relay. Every statement gives rows of one shape, with their kind in the first
//! column; see [`column`].

use super::Dialect;

/// Rows of `outbox_retries` that one read takes beyond four for each event of its limit: more
/// routes than any relay has.
pub(crate) const ROWS_SLACK: i64 = 500;

/// Kinds of rows, in their first column.
pub(crate) mod kind {
    /// An event, whole.
    pub(crate) const EVENT: i64 = 0;
    /// The ids of a window.
    pub(crate) const WINDOW: i64 = 1;
    /// The row of `outbox_retries` of an event on a route.
    pub(crate) const ROUTE: i64 = 2;
}

/// Indexes of the columns of a relay's reads.
pub(crate) mod column {
    pub(crate) const KIND: usize = 0;
    pub(crate) const PARTITION: usize = 1;
    pub(crate) const EVENT_ID: usize = 2;
    /// First of the columns of an event; the others follow in the order of `EVENT_COLUMNS`.
    pub(crate) const EVENT: usize = 3;
    pub(crate) const CREATED_AT: usize = 13;
    pub(crate) const EXPIRES_AT: usize = 14;
    pub(crate) const EXPIRES_IN: usize = 15;
    /// The length of a payload that the read left out.
    pub(crate) const LEFT_OUT: usize = 16;
    pub(crate) const IDS: usize = 17;

    // A route's row uses columns of the same types.
    pub(crate) const ROUTE: usize = 4;
    pub(crate) const STATE: usize = 5;
    pub(crate) const REDRIVEN: usize = 7;
    pub(crate) const ERRORS: usize = 12;
    pub(crate) const STARTED: usize = 13;
    pub(crate) const FINISHED: usize = 14;
    pub(crate) const DUE_IN: usize = 15;
    pub(crate) const FAILING: usize = 16;
}

/// Expressions with a type that a database would otherwise guess.
struct Typed {
    kind_event: &'static str,
    partition_event: &'static str,
    partition_route: &'static str,
    length: &'static str,
    most: &'static str,
    no_ids: &'static str,
}

impl Dialect {
    const fn typed(self) -> Typed {
        match self {
            Self::Postgres => Typed {
                kind_event: "0::bigint",
                partition_event: "e.partition_no::bigint",
                partition_route: "r.partition_no::bigint",
                length: "octet_length(e.payload)::bigint",
                most: "?::bigint",
                no_ids: "NULL::bigint[]",
            },
            Self::MySql | Self::MariaDb => Typed {
                kind_event: "0",
                partition_event: "e.partition_no",
                partition_route: "r.partition_no",
                length: "CAST(LENGTH(e.payload) AS SIGNED)",
                most: "?",
                no_ids: "CAST(NULL AS CHAR)",
            },
            Self::Sqlite => Typed {
                kind_event: "0",
                partition_event: "e.partition_no",
                partition_route: "r.partition_no",
                length: "length(e.payload)",
                most: "?",
                no_ids: "NULL",
            },
        }
    }

    /// Forces the index of events: some planners scan all partitions because of the order by id
    /// alone. On PostgreSQL the settings of the connection force it.
    pub(crate) const fn by_key(self) -> &'static str {
        match self {
            Self::Postgres => "",
            Self::MySql | Self::MariaDb => " FORCE INDEX (PRIMARY)",
            Self::Sqlite => " INDEXED BY {place}",
        }
    }

    /// Forces the primary key of route rows, which is in the order of the read.
    const fn rows_by_key(self) -> &'static str {
        if self.is_mysql() { " FORCE INDEX (PRIMARY)" } else { "" }
    }

    /// Selects events, as `e`. Takes first, twice, the most bytes of a payload that is read: a
    /// longer one is left out, and its length stands in a column that only route rows use
    /// otherwise.
    fn event_rows(self, index: &str) -> String {
        let Typed { kind_event, partition_event, length, most, no_ids, .. } = self.typed();
        format!(
            "SELECT {kind_event} AS kind, {partition_event} AS part, e.event_id, e.message_id, e.source, e.topic, \
             e.event_type, e.event_version, e.aggregate_type, e.message_key, e.content_type, \
             CASE WHEN {length} <= {most} THEN e.payload END AS payload, e.headers, \
             e.created_at, e.expires_at, e.expires_at - {{now}} AS span, \
             CASE WHEN {length} > {most} THEN {length} END AS failing, {no_ids} AS ids \
             FROM {{events}} e{index}"
        )
    }

    /// Selects route rows, as `r`.
    fn route_rows(self) -> String {
        format!(
            "SELECT 2, {}, r.event_id, NULL, r.route, r.state, NULL, CASE WHEN r.redriven THEN 1 ELSE 0 END, NULL, \
             NULL, NULL, NULL, r.errors, r.attempts_started, r.attempts_finished, r.due_at - {{now}}, r.failing_us, \
             NULL FROM {{retries}} r{}",
            self.typed().partition_route,
            self.rows_by_key()
        )
    }

    /// Makes a part of a UNION ALL of a select that has an order and a limit of its own.
    fn part(self, select: &str) -> String {
        if self == Self::Sqlite {
            format!("SELECT * FROM ({select})")
        } else {
            format!("({select})")
        }
    }

    /// Writes the read over `n` partitions, in one snapshot. With `window` it looks back too.
    ///
    /// PostgreSQL takes the lists of partitions, positions, limits and whether to look back, then
    /// twice the length of payloads, twice the window. The others take for each partition: twice
    /// the length, partition, position, limit; with a window partition, partition, position,
    /// position, window, whether to look back, partition, position; partition, position, limit of
    /// rows.
    pub(crate) fn read(self, n: usize, window: bool) -> String {
        if self == Self::Postgres {
            return super::postgres::read(&self.event_rows(""), &self.route_rows());
        }
        let events = self.event_rows(self.by_key())
            + " WHERE e.partition_no = ? AND e.event_id > ? ORDER BY e.event_id LIMIT ?";
        let routes = self.route_rows()
            + " WHERE r.partition_no = ? AND r.event_id > ? ORDER BY r.event_id, r.route LIMIT ?";
        let window_ids = format!(
            "{ids} AND w.event_id > ? - ? AND (? = 1 OR EXISTS (SELECT 1 FROM {{events}} n{by_key} \
             WHERE n.partition_no = ? AND n.event_id > ?))",
            ids = self.ids_to(),
            by_key = self.by_key()
        );
        let mut parts = Vec::with_capacity(n * 3);
        for _ in 0..n {
            parts.push(self.part(&events));
            if window {
                parts.push(self.part(&window_ids));
            }
            parts.push(self.part(&routes));
        }
        parts.join(" UNION ALL ")
    }

    /// Selects the ids of a partition up to one, as `w`. Takes the partition, the partition, the
    /// id.
    fn ids_to(self) -> String {
        let (number, ids) = match self {
            Self::Sqlite => ("CAST(? AS INTEGER)", "group_concat(w.event_id)"),
            _ => ("CAST(? AS SIGNED)", "GROUP_CONCAT(w.event_id ORDER BY w.event_id)"),
        };
        format!(
            "SELECT 1, {number}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
             NULL, {ids} FROM {{events}} w{by_key} WHERE w.partition_no = ? AND w.event_id <= ?",
            by_key = self.by_key()
        )
    }

    /// Tells whether a snapshot that shows an effect always shows its cause.
    pub(crate) const fn snapshot_keeps_causes(self) -> bool {
        !matches!(self, Self::MariaDb)
    }

    /// Writes the recheck of the ids of `n` partitions. Takes for each: partition, partition, last
    /// id, position, window.
    pub(crate) fn recheck_ids(self, n: usize) -> String {
        let ids = self.part(&format!("{} AND w.event_id > ? - ?", self.ids_to()));
        vec![ids; n].join(" UNION ALL ")
    }

    /// Writes the read of events by id, with their route rows. Takes a list of places, then twice
    /// the length of payloads on PostgreSQL; twice the length, then twice a list of `n` ids on the
    /// others.
    pub(crate) fn fetch(self, n: usize) -> String {
        let (events, routes) = (self.event_rows(self.by_id()), self.route_rows());
        match self {
            Self::Postgres => format!(
                "WITH d AS MATERIALIZED (SELECT * FROM unnest(?::smallint[], ?::bigint[]) AS u(no, id)) \
                 ({events} JOIN d ON e.partition_no = d.no AND e.event_id = d.id) UNION ALL \
                 ({routes} JOIN d ON r.partition_no = d.no AND r.event_id = d.id)"
            ),
            _ => {
                let with_rows = format!(
                    "{routes} JOIN {{events}} e{} ON r.partition_no = e.partition_no AND r.event_id = e.event_id",
                    self.by_id()
                );
                format!(
                    "{} UNION ALL {}",
                    self.part(&format!("{events} WHERE {}", self.any("e.event_id", n))),
                    self.part(&format!("{with_rows} WHERE {}", self.any("e.event_id", n)))
                )
            }
        }
    }

    /// Writes the read of a range of one partition. Takes twice the length of payloads; partition,
    /// first and last id, limit; partition, first id, partition, first and last id, limit.
    pub(crate) fn page(self) -> String {
        let events = self.event_rows(self.by_key())
            + " WHERE e.partition_no = ? AND e.event_id >= ? AND e.event_id <= ? ORDER BY e.event_id LIMIT ?";
        let routes = self.route_rows()
            + " WHERE r.partition_no = ? AND r.event_id >= ? AND r.event_id <= (SELECT max(x.event_id) FROM (SELECT \
               l.event_id FROM {events} l"
            + self.by_key()
            + " WHERE l.partition_no = ? AND l.event_id >= ? AND l.event_id <= ? ORDER BY l.event_id LIMIT ?) x)";
        format!("{} UNION ALL {}", self.part(&events), self.part(&routes))
    }

    /// Writes the read of ids of a range of one partition: partition, first and last id, limit.
    pub(crate) fn ids(self) -> String {
        format!(
            "SELECT event_id FROM {{events}}{} WHERE partition_no = ? AND event_id >= ? AND event_id <= ? \
             ORDER BY event_id LIMIT ?",
            self.by_key()
        )
    }
}
