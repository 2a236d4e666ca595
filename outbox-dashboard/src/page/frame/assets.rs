//! Style sheet and script, from the program itself.

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use std::sync::LazyLock;

const STYLE: &str = include_str!("../../../assets/style.css");
const SCRIPT: &str = include_str!("../../../assets/page.js");

/// The addresses of the files have their hash, so that a browser may keep them and a new version is
/// fetched.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let bytes = STYLE.bytes().chain(SCRIPT.bytes());
    // FNV-1a: it tells versions apart, and nothing depends on it.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
});

/// Gives the hash of the files.
pub(crate) fn version() -> &'static str {
    &VERSION
}

/// Gives a file.
pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, content) = match &*name {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_four_kib_at_most() {
        assert!(SCRIPT.len() <= 4 * 1024, "{} bytes", SCRIPT.len());
    }
}
