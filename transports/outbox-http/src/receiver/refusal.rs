//! Why a request was not taken, and what its sender is told.

use crate::{REASON_HEADER, headers::encode, verdict::plain};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use std::time::Duration;

/// A request that is not confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), retry_after: None }
    }

    /// One that asks to come again.
    pub(super) fn later(reason: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let reason = plain(&self.reason);
        let header = HeaderValue::from_str(&encode(&reason)).ok();
        let mut response = (self.status, reason).into_response();
        if let Some(value) = header {
            response.headers_mut().insert(REASON_HEADER, value);
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}
