//! Why the receiver did not accept a request, and the response that its sender gets.

use crate::{REASON_HEADER, headers::encode};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use outbox_core::transport::one_line;
use std::time::Duration;

/// Why a request is not confirmed.
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

    /// Asks the sender to retry after a wait.
    pub(super) fn retry_later(reason: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, reason) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let reason = one_line(&self.reason);
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
