//! What protects all routes: forged requests are refused, bodies are bounded, each answer has the
//! headers that keep a browser from doing more than it should, and refusals become pages.

use super::{Grant, Refusal, origin};
use crate::{builder::Shared, visit::Root};
use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Largest body of a request: a content of 64 KiB that is edited, in the encoding of forms (three
/// bytes for one), twice for the comparison, and a reason.
const LARGEST_BODY: usize = 512 * 1024;
/// Where the API is, under the root.
const API: &str = "/api/";

/// Nothing but what the page itself brings, and nobody may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
     base-uri 'none'";

/// The headers of each answer; a handler may set another `cache-control`.
///
/// Not `no-referrer`: with it a browser sends `Origin: null` with the page's own forms, and over plain
/// HTTP it says nothing else of where they come from, so that every act would be refused.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Puts the protection around a router.
pub(crate) fn protect(router: Router, app: Shared) -> Router {
    router.layer(DefaultBodyLimit::max(LARGEST_BODY)).layer(from_fn_with_state(app, around))
}

async fn around(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let is_api = parts.uri.path().starts_with(API);
    let root = match Root::from_request_parts(&mut parts, &app).await {
        Ok(Root(root)) => root,
        Err(never) => match never {},
    };
    let is_forged = origin::is_forged(&parts.method, &parts.uri, &parts.headers);
    let mut response = if is_forged {
        forged().into_response()
    } else {
        next.run(Request::from_parts(parts, body)).await
    };
    if let Some(refusal) = refusal_of(&mut response) {
        let grant = response.extensions_mut().remove::<Grant>();
        response = refusal.render(&app, grant, root, is_api);
    }
    harden(response.headers_mut());
    response
}

fn forged() -> Refusal {
    Refusal::forbidden("That came from another page")
        .because("a page of another site made this request, so that nothing was done")
        .advising(
            "Do it on the dashboard itself. Behind a proxy, let it pass the header `Host` on.",
        )
}

/// Takes the refusal out of a response; makes one of an error that axum itself has answered.
fn refusal_of(response: &mut Response) -> Option<Refusal> {
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        return Some(refusal);
    }
    let status = response.status();
    let is_plain = |headers: &HeaderMap| {
        headers
            .get(header::CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
    };
    if !(status.is_client_error() || status.is_server_error()) || !is_plain(response.headers()) {
        return None;
    }
    let refusal = match status {
        StatusCode::NOT_FOUND => Refusal::not_found("There is no such page")
            .advising("Look for it from the start: an id, a key or a saga's correlation id finds it.")
            .link("", "Start"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Refusal::new(status, "That page is not asked that way")
                .advising("Go back, load the page again, and use its buttons.")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(status, "That is too large")
            .because(format!("a request may have {} KiB", LARGEST_BODY / 1024))
            .advising("Use `outbox dead-letters resend` for a larger content."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Refusal::new(status, "That is no form")
            .because("a form has the type application/x-www-form-urlencoded, and a document of the API application/json"),
        status => Refusal::new(status, status.canonical_reason().unwrap_or("That did not work")),
    };
    Some(refusal)
}

/// Sets the headers that each answer has.
fn harden(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
