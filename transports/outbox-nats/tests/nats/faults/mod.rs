//! What a server suffers: a restart, a silent network. Each on a private one.

mod outage;
mod restart;
