//! The fields of a form and of a query, and what each act reads of them.

use crate::{
    access::{Grant, Refusal},
    builder::{App, Shared},
    store::Database,
};
use axum::{
    Form,
    extract::{FromRequest, Query, Request},
};
use http::StatusCode;
use outbox_core::admin::{OperatorNote, ReasonFault, shown_text};
use std::{str::FromStr, time::Duration};

/// Most characters of the name that the audit keeps.
const LONGEST_NAME: usize = 255;

/// The fields of a request: those of its form, then those of its query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl FromRequest<Shared> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Refusal> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|error| Refusal::bad(error.body_text()))?;
        let mut fields = Vec::new();
        if !request.method().is_safe() {
            let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
            fields = form.map_err(|error| unreadable(error.status(), error.body_text()))?.0;
        }
        fields.extend(query.0);
        // A content is bytes, whatever they are.
        for (name, value) in fields.iter().filter(|(name, _)| name != "payload") {
            text(name, value)?;
        }
        Ok(Self(fields))
    }
}

fn unreadable(status: StatusCode, why: String) -> Refusal {
    let to_do = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Use `outbox dead-letters resend` for a larger content.",
        _ => "Go back, load the page again, and use its buttons.",
    };
    Refusal::new(status, "That form cannot be read").because(why).advising(to_do)
}

impl Fields {
    /// Gives the first value of a field that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(field, value)| field == name && !value.is_empty());
        values.next().map(|(_, value)| value.as_str())
    }

    /// Gives a field that the form must have.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::bad(format!("the field `{name}` is missing")))
    }

    /// Tells whether a box is ticked.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Reads a field as what it must be; `what` says what that is.
    pub(crate) fn read<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, Refusal> {
        self.get(name).map(|text| read(name, text, what)).transpose()
    }

    /// Reads a field as a span of time, such as `1h 30m`.
    pub(crate) fn span(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        self.get(name).map(|text| span(name, text)).transpose()
    }

    /// Gives the database that the request is about; it may be left out where there is one.
    pub(crate) fn database<'a>(&self, app: &'a App) -> Result<&'a Database, Refusal> {
        database(app, self.get("db"))
    }

    /// Makes the note of an act: the name of who is logged in, and the reason of the form.
    pub(crate) fn note(&self, grant: &Grant) -> Result<OperatorNote, Refusal> {
        note(grant, self.get("why"), self.is_set("force"))
    }
}

/// Reads a text as what it must be.
pub(crate) fn read<T: FromStr>(name: &str, text: &str, what: &str) -> Result<T, Refusal> {
    let is_wrong = |_| Refusal::bad(format!("`{name}` is {what}, and not {text:?}"));
    text.trim().parse().map_err(is_wrong)
}

/// Checks a text that a database is asked with.
pub(crate) fn text<'a>(name: &str, text: &'a str) -> Result<&'a str, Refusal> {
    match text.contains('\0') {
        true => Err(Refusal::bad(format!("`{name}` has a NUL, which no text of a database has"))),
        false => Ok(text),
    }
}

/// Reads a span of time.
pub(crate) fn span(name: &str, text: &str) -> Result<Duration, Refusal> {
    humantime::parse_duration(text.trim()).map_err(|error| {
        Refusal::bad(format!("`{name}` is a span of time such as `90s`, `2h` or `1d`: {error}"))
    })
}

/// Gives the one database that an act is about.
pub(crate) fn database<'a>(app: &'a App, name: Option<&str>) -> Result<&'a Database, Refusal> {
    match (name, app.databases.as_slice()) {
        (Some(name), _) => app
            .database(name)
            .ok_or_else(|| Refusal::not_found("There is no such database").because(unknown(name))),
        (None, [only]) => Ok(only),
        (None, _) => Err(Refusal::bad("there are several databases: say which one in `db`")),
    }
}

fn unknown(name: &str) -> String {
    format!("no database of this dashboard is named {name:?}")
}

/// Makes the note of an act.
pub(crate) fn note(grant: &Grant, why: Option<&str>, force: bool) -> Result<OperatorNote, Refusal> {
    let reason = checked_reason(why)?;
    let by: String = shown_text(&grant.who).chars().take(LONGEST_NAME).collect();
    Ok(OperatorNote { force, ..OperatorNote::new(by, reason) })
}

/// Makes the note of a cancellation, which asks for no reason: it is in a hurry.
pub(crate) fn note_of_cancel(grant: &Grant, why: Option<&str>) -> Result<OperatorNote, Refusal> {
    let why = why.filter(|why| !why.trim().is_empty());
    note(grant, Some(why.unwrap_or("no reason was asked for")), false)
}

/// Checks an operator's reason: it is kept for others to read.
pub(crate) fn checked_reason(why: Option<&str>) -> Result<String, Refusal> {
    let checked = outbox_core::admin::checked_reason(why.unwrap_or_default());
    checked.map(str::to_owned).map_err(|fault| {
        let refusal = Refusal::bad(fault.to_string());
        match fault {
            ReasonFault::Missing => refusal.advising(
                "Go back and say why, for those who read the audit: nothing was changed.",
            ),
            ReasonFault::TooLong | ReasonFault::NotOneLine => refusal,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    fn fields(all: &[(&str, &str)]) -> Fields {
        Fields(all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_reason_is_asked_for_and_bounded() {
        let long = "x".repeat(1_001);
        let grant = Grant::new("ann\u{1b}", Role::Operator);
        for (why, ok) in [
            ("billing is repaired", true),
            ("  ", false),
            ("", false),
            ("two\nlines", false),
            ("nul\0", false),
            (long.as_str(), false),
        ] {
            assert_eq!(fields(&[("why", why)]).note(&grant).is_ok(), ok, "{why:?}");
        }
        let note = fields(&[("why", " yes "), ("force", "1")]).note(&grant).unwrap();
        assert_eq!(
            (note.by.as_str(), note.reason.as_str(), note.force),
            ("ann\\u{1b}", "yes", true)
        );
    }

    #[test]
    fn a_field_is_the_first_that_is_filled_and_is_read_as_what_it_must_be() {
        let all = fields(&[("a", ""), ("a", "7"), ("a", "8"), ("t", "1h 30m"), ("bad", "x")]);
        assert_eq!(all.get("a"), Some("7"));
        assert_eq!(all.read::<u32>("a", "a number").unwrap(), Some(7));
        assert_eq!(all.read::<u32>("none", "a number").unwrap(), None);
        assert!(all.read::<u32>("bad", "a number").is_err());
        assert_eq!(all.span("t").unwrap(), Some(Duration::from_mins(90)));
        assert!(all.span("bad").is_err() && all.required("none").is_err());
    }
}
