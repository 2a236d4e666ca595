//! The program `outbox`, run as people run it, on SQLite, PostgreSQL and MariaDB.

#[cfg(test)]
mod acts;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod program;
#[cfg(test)]
mod participants;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod tail;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod world;
