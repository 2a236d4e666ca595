//! The texts of failures as log lines and live rows have them: nothing of a sensitive message.

use super::FailureClass;
use crate::event::Message;

/// What stands for the text of a failure that may quote a sensitive message.
pub(crate) const HIDDEN_TEXT: &str = "(hidden: the event is sensitive)";

/// Gives the text of a failure for log lines, live rows and brokers. Of a message that [is
/// sensitive](Message::is_sensitive) it is the class alone, since the text may quote the content: the
/// histories of events and dead letters keep it, and are shown to operators without it.
pub(crate) fn loggable_text(text: &str, class: FailureClass, message: Option<&Message>) -> String {
    match message {
        Some(message) if message.is_sensitive() => format!("{class} {HIDDEN_TEXT}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::SENSITIVE, testing::transport::full};
    use FailureClass::{Permanent, Transient, Unavailable};

    #[test]
    fn of_a_sensitive_message_the_class_of_a_failure_is_told_and_not_its_text() {
        let quoting = "bad request: 4111 1111";
        for (mark, class, told) in [
            (None, Transient, quoting),
            (Some("false"), Permanent, quoting),
            (Some("true"), Permanent, "permanent (hidden: the event is sensitive)"),
            (Some("true"), Transient, "transient (hidden: the event is sensitive)"),
            (Some("true"), Unavailable, "unavailable (hidden: the event is sensitive)"),
        ] {
            let mut parts = full().into_parts();
            if let Some(mark) = mark {
                parts.headers.insert(SENSITIVE, mark).unwrap();
            }
            let message = Message::new(parts);
            assert_eq!(loggable_text(quoting, class, Some(&message)), told, "{mark:?}");
        }
        assert_eq!(loggable_text(quoting, Transient, None), quoting, "no message is its cause");
    }
}
