//! How the databases behave, where the rest of the crate decides by it.

use super::Dialect;

/// Ids of one DELETE on MySQL: more lock the index for so long that producers notice.
const MYSQL_CHUNK: usize = 200;
/// Ids of one DELETE on SQLite: its limit of parameters is 32,766.
const SQLITE_CHUNK: usize = 1_024;

impl Dialect {
    /// Tells whether there is one writer at a time: then every transaction is serializable, and a
    /// second one would wait for the first.
    pub(crate) const fn has_one_writer(self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// Tells whether ids may commit out of order: everywhere but where there is one writer.
    pub(crate) const fn ids_commit_out_of_order(self) -> bool {
        !self.has_one_writer()
    }

    /// Tells whether a server has the data, so that connections cross a network and any number of
    /// pools see the same. A file has no network, and a database in memory exists for its own pool
    /// only.
    pub(crate) const fn is_on_a_server(self) -> bool {
        !matches!(self, Self::Sqlite)
    }

    /// Tells whether a pooler may stand before the server that gives a connection to another client
    /// after each transaction.
    pub(crate) const fn has_poolers(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether the server can notify other processes.
    pub(crate) const fn has_notifications(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether the server ends a transaction that is idle for too long.
    pub(crate) const fn ends_idle_transactions(self) -> bool {
        matches!(self, Self::Postgres | Self::MariaDb)
    }

    /// Tells whether COMMIT after a failed statement may roll back without an error.
    ///
    /// # Source
    /// PostgreSQL responds to COMMIT of a failed transaction with ROLLBACK and no error; seen with
    /// SeaORM 2.0.4.
    pub(crate) const fn commit_may_silently_roll_back(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Tells whether the first plain read of a transaction may fix what its later ones see, unless
    /// the transaction asks for another isolation.
    pub(crate) const fn first_read_may_fix_snapshot(self) -> bool {
        self.is_mysql()
    }

    /// Tells whether a statement locks the gaps in which it finds no row, against the INSERTs of
    /// other transactions; an INSERT .. SELECT also locks the rows that it reads.
    pub(crate) const fn locks_gaps(self) -> bool {
        self.is_mysql()
    }

    /// Tells whether the driver takes tens of milliseconds for each further statement text beyond
    /// those that a connection keeps.
    ///
    /// # Source
    /// sqlx 0.9 with MariaDB 10.11: of the 101st text of a connection on, closing one statement and
    /// preparing the next are two packets, and the second waits 44 ms for the acknowledgement of the
    /// first.
    pub(crate) const fn caches_few_statements(self) -> bool {
        self.is_mysql()
    }

    /// Tells whether an upsert can have a condition and a RETURNING clause.
    pub(crate) const fn upserts_by_condition(self) -> bool {
        !self.is_mysql()
    }

    /// Tells whether one parameter can be a list.
    pub(crate) const fn binds_lists(self) -> bool {
        matches!(self, Self::Postgres)
    }

    /// Gives the most ids of one DELETE.
    pub(crate) const fn delete_chunk(self) -> usize {
        match self {
            Self::Postgres => usize::MAX,
            Self::MySql | Self::MariaDb => MYSQL_CHUNK,
            Self::Sqlite => SQLITE_CHUNK,
        }
    }
}
