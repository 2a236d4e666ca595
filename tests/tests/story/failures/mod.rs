//! Destinations and events that fail: no other route or key is affected, and failed events become
//! dead letters.

mod isolation;
mod fanout;
mod large;
mod letters;
mod once;
mod operator;
mod outage;
mod poison;
mod routes;
mod single_message;
