//! What of a content a form of a browser can carry: text that comes back byte by byte, except for
//! the ends of its lines.

use crate::access::Refusal;
use outbox_core::failure::DeadLetter;

/// Longest content that a form edits, in bytes: what the page of a letter shows whole.
const LONGEST: usize = 64 * 1024;

/// Gives the content of a letter as a text that a form can edit without changing more than the
/// operator does. Browsers send each end of a line as CRLF, and drop NUL.
pub(super) fn editable(letter: &DeadLetter) -> Result<&str, Refusal> {
    let Some(message) = &letter.message else {
        return Err(refused("its event cannot be read"));
    };
    if message.encoding().is_some() {
        return Err(Refusal::conflict(
            "the content cannot be edited: a payload codec has encoded it, for its own message id",
        )
        .advising("Emit the corrected event in the service, and discard the letter."));
    }
    let payload = &message.payload;
    if payload.len() > LONGEST {
        return Err(refused(&format!(
            "it has {} bytes, and a form edits {LONGEST}",
            payload.len()
        )));
    }
    let text = std::str::from_utf8(payload).map_err(|_| refused("it is no text"))?;
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(refused("it has control characters"));
    }
    if Ends::of(text) == Ends::Mixed {
        return Err(refused("its lines end in different ways"));
    }
    Ok(text)
}

fn refused(why: &str) -> Refusal {
    Refusal::conflict(format!("the content cannot be edited in a browser: {why}"))
        .advising("Use `outbox dead-letters resend NUMBER --payload FILE`.")
}

/// How the lines of a text end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Lf,
    CrLf,
    Mixed,
}

impl Ends {
    fn of(text: &str) -> Self {
        let (cr, lf) = (text.matches('\r').count(), text.matches('\n').count());
        match text.matches("\r\n").count() {
            _ if cr == 0 => Self::Lf,
            pairs if pairs == cr && pairs == lf => Self::CrLf,
            _ => Self::Mixed,
        }
    }
}

/// Gives what a browser has sent the ends of lines that the old content has.
pub(super) fn restored(old: &str, sent: &str) -> String {
    let plain = sent.replace("\r\n", "\n");
    match Ends::of(old) {
        Ends::Lf | Ends::Mixed => plain,
        Ends::CrLf => plain.replace('\n', "\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser makes of the text of a form.
    fn sent(text: &str) -> String {
        text.replace("\r\n", "\n").replace('\n', "\r\n")
    }

    #[test]
    fn a_content_that_is_not_changed_comes_back_byte_by_byte() {
        for old in ["{}", "a\nb\n", "a\r\nb\r\n", "", "\n", "{\n\t\"a\": \"b\"\n}"] {
            assert_ne!(Ends::of(old), Ends::Mixed);
            assert_eq!(restored(old, &sent(old)), old, "{old:?}");
        }
        for mixed in ["a\r\nb\n", "a\rb", "\r"] {
            assert_eq!(Ends::of(mixed), Ends::Mixed, "{mixed:?}");
        }
    }
}
