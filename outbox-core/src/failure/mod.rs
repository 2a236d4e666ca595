//! What went wrong, whether it may go later, and where it ends.

mod background;
mod breaker;
mod class;
mod letter;
mod policy;
mod rejection;
mod report;

pub(crate) use background::BackgroundWork;
pub use breaker::{Breaker, BreakerState, Failure};
pub use class::{AttemptError, FailureClass, full_text};
pub use letter::{DeadLetter, DeadReason, Fate, ReceivedBy};
pub(crate) use letter::{LetterListener, log_letter, tell_of_letter};
pub use policy::{Decision, RetryPolicy};
pub use rejection::{DEFAULT_GIVE_UP_REJECTED, Others, Rejected, Rejection};
pub use report::{FailureReports, REPORT_EVERY, Report, ReportBook};
