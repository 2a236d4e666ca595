//! Failures: their classes, retries, breakers and dead letters.

mod background;
mod breaker;
mod class;
mod crash;
mod letter;
mod loggable;
mod rejection;
mod report;

pub(crate) use background::BackgroundWork;
pub use breaker::{Breaker, BreakerState, Failure};
pub use class::{AttemptError, FailureClass};
pub(crate) use crash::MAX_CRASHES;
pub use letter::{ConsumerOrigin, DeadLetter, DeadReason, Resolution};
pub(crate) use letter::{DeadLetterListener, log_letter, notify_dead_letter};
pub(crate) use loggable::{HIDDEN_TEXT, loggable_text};
pub use rejection::{DEFAULT_GIVE_UP_REJECTED, OtherMessages, Rejected, Rejection};
pub use report::{FailureReports, REPORT_EVERY, Report, ReportBook};
// The runtime restarts its actors by them, and a message carries a policy of its own.
pub(crate) use crate::runtime::retry::backoff;
pub use crate::runtime::{
    full_text::{BoxError, full_text},
    retry::{Decision, RetryPolicy},
};
