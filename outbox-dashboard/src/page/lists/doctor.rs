//! The page `doctor`.

use crate::visit::Visit;
use axum::response::Html;

/// Shows the page.
pub(crate) async fn page(_: Visit) -> Html<&'static str> {
    Html("doctor")
}
