//! Failures: their classes, retries, breakers and dead letters.

mod background;
mod breaker;
mod class;
mod letter;
mod policy;
mod rejection;
mod report;

pub(crate) use background::BackgroundWork;
pub use breaker::{Breaker, BreakerState, Failure};
pub use class::{AttemptError, BoxError, FailureClass, full_text};
pub use letter::{ConsumerOrigin, DeadLetter, DeadReason, Resolution};
pub(crate) use letter::{DeadLetterListener, log_letter, notify_dead_letter};
pub use policy::{Decision, RetryPolicy};
pub(crate) use policy::{MAX_CRASHES, backoff};
pub use rejection::{DEFAULT_GIVE_UP_REJECTED, OtherMessages, Rejected, Rejection};
pub use report::{FailureReports, REPORT_EVERY, Report, ReportBook};
