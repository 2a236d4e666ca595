//! A consumer's messages have their effect once, are deferred while they fail, and become dead
//! letters or are handled.

mod database_outage;
mod bookings;
mod crashes;
mod deadly;
mod joins;
mod deferred;
mod letters;
mod lost;
mod once;
mod refused;
mod stuck;
mod vanished;
