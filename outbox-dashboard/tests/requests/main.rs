//! The dashboard by requests to its router, without a socket: what operators do, who may, and the
//! documents for programs.

#[cfg(test)]
mod client;
#[cfg(test)]
mod world;
#[cfg(test)]
mod access;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod contents;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod resend;
#[cfg(test)]
mod tries;
#[cfg(test)]
mod controls;
#[cfg(test)]
mod sagas;
#[cfg(test)]
mod participants;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod live;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod api;
#[cfg(test)]
mod described;
