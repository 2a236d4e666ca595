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
mod numbers;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod asked;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod versions;
