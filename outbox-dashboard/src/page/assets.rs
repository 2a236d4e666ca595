//! Style sheet and script.

use http::StatusCode;

/// Gives a file.
pub(crate) async fn asset() -> StatusCode {
    StatusCode::NOT_FOUND
}
