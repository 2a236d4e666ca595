//! What a server suffers: alarms, limits, its end. Each on a private one.

mod alarm;
mod limits;
mod outage;
mod restart;
