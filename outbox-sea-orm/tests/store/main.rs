//! The store on SQLite, PostgreSQL and MariaDB: the suite of the core, and what is this crate's
//! own.

#[cfg(test)]
mod busy;
#[cfg(test)]
mod bytes;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod controls;
#[cfg(test)]
mod dedup;
#[cfg(test)]
mod entities;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod consumers;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod acts;
#[cfg(test)]
mod act_faults;
#[cfg(test)]
mod erasure;
#[cfg(test)]
mod migration;
#[cfg(test)]
mod operated;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod tail;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod wakes;

use fixture::{OnMariaDb, OnPostgres, OnSqlite, OnSqliteInMemory};

mod sqlite {
    use super::*;
    outbox_core::store_suite!(OnSqlite);
}

mod sqlite_in_memory {
    use super::*;
    outbox_core::store_suite!(OnSqliteInMemory);
}

mod postgres {
    use super::*;
    outbox_core::store_suite!(OnPostgres);
}

mod mariadb {
    use super::*;
    outbox_core::store_suite!(OnMariaDb);
}
