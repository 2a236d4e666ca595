//! What a server suffers: alarms, limits, a queue without a leader, its end. Each on a private one.

mod alarm;
mod leader;
mod limits;
mod outage;
mod restart;
