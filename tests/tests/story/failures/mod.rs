//! Destinations and events that fail: nobody else suffers, and what is given up is kept.

mod alone;
mod burden;
mod fanout;
mod large;
mod letters;
mod once;
mod operator;
mod outage;
mod poison;
mod routes;
