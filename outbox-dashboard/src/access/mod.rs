//! Who may do what: logins, grants, the rule around each handler, and what protects all of them.

mod grant;
mod secrets;
mod login;
mod loopback;
mod origin;
mod rule;
mod protect;
mod refusal;

#[cfg(test)]
mod tests;

pub use grant::{Grant, Permission, Role};
pub use login::Access;
pub(crate) use loopback::ServedByItself;
pub(crate) use protect::protect;
pub(crate) use refusal::Refusal;
pub(crate) use rule::{Needs, check};
