//! Consumers whose deliveries share transactions, on SQLite, PostgreSQL and MariaDB.

#[cfg(test)]
mod script;
#[cfg(test)]
mod world;
#[cfg(test)]
mod equivalence;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod connections;
