//! Sagas on SQLite, PostgreSQL and MariaDB.

#[cfg(test)]
mod order;
#[cfg(test)]
mod world;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod erasure;
#[cfg(test)]
mod pauses;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod replies;
#[cfg(test)]
mod remote_steps;
#[cfg(test)]
mod lost_connections;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod unexpected_senders;
#[cfg(test)]
mod versions;
