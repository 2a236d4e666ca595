//! Fragments of pages by server-sent events.

use http::StatusCode;

/// The readers of open pages: one a page and query.
#[derive(Debug, Default)]
pub(crate) struct LiveReaders {}

/// Streams a page's fragments.
pub(crate) async fn stream() -> StatusCode {
    StatusCode::NOT_FOUND
}
