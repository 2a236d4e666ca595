//! The dashboard by requests to its router, without a socket: what operators do, who may, and the
//! documents for programs.

mod client;
mod world;
mod access;
mod letters;
mod plans;
mod resend;
mod tries;
mod controls;
mod sagas;
mod pages;
mod live;
mod schema;
mod api;
