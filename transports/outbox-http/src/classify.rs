//! What a response status or a failed request means for its message.

use crate::{REASON_HEADER, headers};
use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use outbox_core::{
    failure::FailureClass,
    runtime::wall_clock,
    transport::{PublishError, one_line},
};
use std::{
    error::Error,
    io,
    time::{Duration, SystemTime},
};

/// Longest `Retry-After` that the publisher honours: more is a mistake, and would keep a message
/// past its retry policy.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// What a status code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classification {
    /// The destination has confirmed the message.
    Delivered,
    /// It has not, and the failure has this class.
    Failed(FailureClass),
}

/// Says what a status code means.
///
/// ```
/// # use outbox_core::failure::FailureClass;
/// # use outbox_http::{Classification, classify};
/// # use http::StatusCode;
/// assert_eq!(classify(StatusCode::NO_CONTENT), Classification::Delivered);
/// assert_eq!(classify(StatusCode::NOT_FOUND), Classification::Failed(FailureClass::Permanent));
/// assert_eq!(classify(StatusCode::UNAUTHORIZED), Classification::Failed(FailureClass::Unavailable));
/// ```
#[must_use]
pub fn classify(status: StatusCode) -> Classification {
    use FailureClass::{Permanent, Transient, Unavailable};
    match status.as_u16() {
        200..=299 => Classification::Delivered,
        // The credentials are wrong, not the message: no other message would pass either.
        401 | 403 => Classification::Failed(Unavailable),
        408 | 425 | 429 => Classification::Failed(Transient),
        300..=499 => Classification::Failed(Permanent),
        _ => Classification::Failed(Transient),
    }
}

/// Makes the error of a response that is no confirmation, with the destination's reason where it
/// gave one.
pub(crate) fn response_error(
    class: FailureClass,
    status: StatusCode,
    headers: &HeaderMap,
    quoted: Option<&str>,
) -> PublishError {
    let mut text = format!("the destination answered {status}");
    if status.is_redirection() {
        text.push_str(", and redirects are not followed");
    }
    let reason = headers.get(REASON_HEADER).and_then(|value| headers::decode(value.as_bytes()));
    let reason = reason.as_deref().or(quoted).map(one_line).filter(|reason| !reason.is_empty());
    if let Some(reason) = reason {
        text.push_str(": ");
        text.push_str(&reason);
    }
    let error = match class {
        FailureClass::Permanent => PublishError::permanent(text),
        FailureClass::Transient => PublishError::transient(text),
        FailureClass::Unavailable => PublishError::unavailable(text).responded(),
    };
    match retry_after(headers, wall_clock()).filter(|_| class == FailureClass::Transient) {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// Reads `Retry-After`, in seconds or as a date. A date is compared with the response's own `Date`
/// where there is one, so that the clocks of both hosts need not agree.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = |value: &http::HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
    let value = headers.get(RETRY_AFTER)?;
    let text = value.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Digits that overflow still ask for a long wait.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let sent_at = headers.get(DATE).and_then(date).unwrap_or(now);
        date(value)?.duration_since(sent_at).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Makes the error of a request that got no response.
pub(crate) fn request_error(error: reqwest::Error) -> PublishError {
    // The URL may hold a token.
    let error = error.without_url();
    let failed = if error.is_builder() {
        PublishError::permanent("the request cannot be built")
    } else if error.is_dns() {
        PublishError::unavailable(
            "the destination's name does not resolve to an address that may be reached",
        )
    } else if error.is_connect() {
        PublishError::unavailable("no connection to the destination")
    } else if error.is_timeout() {
        PublishError::transient("the destination did not answer in time")
    } else if is_connection_lost(&error) {
        PublishError::unavailable("the connection to the destination broke")
    } else {
        PublishError::transient("the destination gave no readable answer")
    };
    failed.caused_by(error)
}

/// Tells whether the connection ended during the request.
fn is_connection_lost(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_closed() || error.is_canceled())
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::{collection::vec, option, prelude::*};

    #[test]
    fn every_status_is_classified_and_only_2xx_delivers() {
        for code in 100..1000 {
            let status = StatusCode::from_u16(code).expect("a status has three digits");
            assert_eq!(
                classify(status) == Classification::Delivered,
                (200..300).contains(&code),
                "{code}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_retry_after_is_a_bounded_wait_or_none(value in vec(0x20u8..=0xff, 0..40), date in option::of(vec(0x20u8..0x7f, 0..40))) {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_bytes(&value).unwrap_or(HeaderValue::from_static("")));
            if let Some(Ok(date)) = date.map(|d| HeaderValue::from_bytes(&d)) {
                headers.insert(DATE, date);
            }
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            prop_assert!(retry_after(&headers, now).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }

        #[test]
        fn a_text_becomes_one_bounded_line(text in any::<String>()) {
            let line = one_line(&text);
            prop_assert!(line.chars().count() <= 256 && !line.chars().any(char::is_control));
        }
    }
}
