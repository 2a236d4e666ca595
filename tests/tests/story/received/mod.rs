//! What a consumer receives has its effect once, is kept while it fails, and ends in a letter or not at all.

mod away;
mod bookings;
mod crashes;
mod deadly;
mod joins;
mod kept;
mod letters;
mod lost;
mod once;
mod refused;
mod stuck;
mod vanished;
