//! What a visitor is told where something is refused or fails: what, why, and what to do. A page for
//! people, a problem document for programs.

use super::{Grant, Permission, Role};
use crate::{
    builder::App,
    page::{
        Body, Layout, Tab,
        frame::asking::with_causes,
        shell,
        text::{Markup, text},
    },
    visit::Visit,
};
use askama::Template;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use outbox_core::{failure::full_text, outbox::StoreError};
use serde::Serialize;
use std::time::Duration;

/// When to try again where a database is busy or away, in seconds.
const RETRY_AFTER: u64 = 2;

/// Why a request was not answered as it was meant. It travels to the outermost layer as an extension
/// of the response, which knows whether a page or a document was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(Box<Told>);

/// What the visitor is told.
#[derive(Debug, Clone)]
struct Told {
    status: StatusCode,
    title: String,
    why: Option<String>,
    to_do: Option<String>,
    /// Where to go on, relative to the root, with the link's text.
    link: Option<(String, String)>,
    challenges: Vec<HeaderValue>,
    /// When to ask again, in seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, title: impl Into<String>) -> Self {
        let title = title.into();
        Self(Box::new(Told {
            status,
            title,
            why: None,
            to_do: None,
            link: None,
            challenges: Vec::new(),
            retry_after: None,
        }))
    }

    /// A request that is wrong in itself.
    pub(crate) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "That request is wrong").because(why)
    }

    /// Something that is not there.
    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// An act that does not fit the present state, such as one that somebody else has done first.
    pub(crate) fn conflict(why: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Nothing was changed").because(why)
    }

    pub(super) fn forbidden(title: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, title)
    }

    pub(super) fn unauthorized(challenges: Vec<HeaderValue>) -> Self {
        let mut refusal = Self::new(StatusCode::UNAUTHORIZED, "Log in first");
        refusal.0.challenges = challenges;
        refusal
    }

    /// A login of a name of which too many have failed from its address.
    pub(super) fn too_often(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many logins have failed")
            .because(
                "logins of this name from your address have failed one after another, and this \
                 one was not looked at",
            )
            .advising(format!("Wait {seconds} s, then log in again."));
        refusal.0.retry_after = Some(seconds);
        refusal
    }

    /// A visitor who may not do this.
    pub(super) fn denied(who: &str, permission: Permission) -> Self {
        Self::forbidden("You may not do that")
            .because(format!("{who} has no permission to {permission}"))
            .advising("Ask whoever runs this dashboard for the permission, or somebody who has it.")
    }

    /// A question that a database refuses, or cannot answer.
    pub(crate) fn of_question(database: &str, error: &StoreError) -> Self {
        match error {
            StoreError::Refused(why) => {
                Self::bad(format!("database {database} refuses that: {}", full_text(&**why)))
            }
            error => {
                let why = with_causes(error);
                Self::from_store(error).because(format!("database {database}: {why}"))
            }
        }
    }

    /// Says why.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.0.why = Some(why.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn advising(mut self, to_do: impl Into<String>) -> Self {
        self.0.to_do = Some(to_do.into());
        self
    }

    /// Says where to go on.
    #[must_use]
    pub(crate) fn link(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.link = Some((path.into(), text.into()));
        self
    }

    /// Says in a sentence or two what was refused, and why.
    pub(crate) fn told(&self) -> String {
        let why = self.0.why.as_deref().map(|why| format!(" {}", sentence(why)));
        sentence(&self.0.title) + &why.unwrap_or_default()
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Draws the page, or writes the document where `is_api`.
    pub(super) fn render(
        &self,
        app: &App,
        grant: Option<Grant>,
        root: String,
        is_api: bool,
    ) -> Response {
        let mut response = if is_api { self.document() } else { self.page(app, grant, root) };
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        for challenge in &self.0.challenges {
            headers.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
        let soon = (self.0.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER);
        if let Some(seconds) = self.0.retry_after.or(soon) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn document(&self) -> Response {
        let problem = Problem {
            r#type: "about:blank",
            title: &self.0.title,
            status: self.0.status.as_u16(),
            detail: self.0.why.as_deref(),
            to_do: self.0.to_do.as_deref(),
        };
        let mut response = axum::Json(problem).into_response();
        let problem_json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
        response
    }

    fn page(&self, app: &App, grant: Option<Grant>, root: String) -> Response {
        let grant = grant.unwrap_or_else(|| Grant::new("", Role::Reader));
        let visit = Visit { grant, root };
        let layout = Layout::new(app, &visit, Tab::None, &self.0.title);
        let told = |words: &Option<String>| words.as_deref().map(|words| text(&sentence(words)));
        let body = RefusalBody {
            root: &visit.root,
            title: &self.0.title,
            why: told(&self.0.why),
            to_do: told(&self.0.to_do),
            link: self.0.link.as_ref(),
        };
        shell(&layout, &Body::draw(&self.0.title, &body).with_status(self.0.status))
    }
}

/// A problem document, by RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "act/refusal.html")]
struct RefusalBody<'a> {
    root: &'a str,
    title: &'a str,
    why: Option<Markup>,
    to_do: Option<Markup>,
    link: Option<&'a (String, String)>,
}

/// Makes a sentence of an error's text, which begins with a small letter and has no full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else { return String::new() };
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    first.to_uppercase().chain(letters).chain(stop.chars()).collect()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::from_store(&error)
    }
}

impl Refusal {
    fn from_store(error: &StoreError) -> Self {
        let unavailable = |title| Self::new(StatusCode::SERVICE_UNAVAILABLE, title);
        match error {
            StoreError::Unavailable(_) => unavailable("The database cannot be reached")
                .because(with_causes(error))
                .advising("Load the page again when it is back: whether an act that was under way is done, the audit says then."),
            StoreError::Busy(_) => unavailable("The database is busy")
                .because(with_causes(error))
                .advising("Nothing was changed. Try again in a moment."),
            // What refused says it in full: a rule of the outbox, not the database.
            StoreError::Refused(why) => Self::conflict(full_text(&**why)),
            StoreError::Mismatch(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The outbox does not fit this program")
                    .because(with_causes(error))
                    .advising("Run `outbox migrate status` and `outbox doctor` on this database.")
            }
            // Whatever else a store may say one day.
            StoreError::Unusable(_) | _ => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The database cannot be used")
                    .because(with_causes(error))
                    .advising("Run `outbox doctor` on this database.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_a_sentence() {
        for (text, told) in [
            ("letter 7 was redriven by ann", "Letter 7 was redriven by ann."),
            ("Already one.", "Already one."),
            ("", ""),
        ] {
            assert_eq!(sentence(text), told);
        }
    }

    #[test]
    fn each_failure_of_a_database_has_a_status_and_says_what_to_do() {
        let cause = || "the cause".into();
        for (error, status) in [
            (StoreError::Unavailable(cause()), StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Busy(cause()), StatusCode::SERVICE_UNAVAILABLE),
            (StoreError::Mismatch("no table".into()), StatusCode::INTERNAL_SERVER_ERROR),
            (StoreError::Unusable(cause()), StatusCode::INTERNAL_SERVER_ERROR),
        ] {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.status(), status);
            assert!(refusal.0.to_do.is_some() && refusal.0.why.is_some(), "{refusal:?}");
        }
        // Nothing was to be changed: the question is wrong.
        let question = StoreError::Refused("an invalid byte sequence".into());
        assert_eq!(Refusal::of_question("orders", &question).status(), StatusCode::BAD_REQUEST);
        let refused = Refusal::from(StoreError::Refused("letter 7 was discarded by bob".into()));
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert_eq!(refused.0.why.as_deref(), Some("letter 7 was discarded by bob"));
    }
}
