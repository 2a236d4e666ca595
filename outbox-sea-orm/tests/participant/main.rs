//! A service that does steps of sagas of others, on SQLite, PostgreSQL and MariaDB.

#[cfg(test)]
mod payments;
#[cfg(test)]
mod world;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod encoded;
#[cfg(test)]
mod modes;
#[cfg(test)]
mod races;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod trails;
