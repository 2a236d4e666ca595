//! What went wrong, whether it may go later, and where it ends.

mod breaker;
mod class;
mod letter;
mod policy;

pub use breaker::{Breaker, BreakerState};
pub use class::{AttemptError, FailureClass, full_text};
pub use letter::{DeadLetter, DeadReason, Fate, ReceivedBy};
pub(crate) use letter::{LetterListener, tell_of_letter};
pub use policy::{Decision, RetryPolicy};
