//! What a handler knows of a request beside its query: who asks, and where the page is mounted.

use crate::{access::Grant, builder::Shared};
use axum::extract::{FromRequestParts, OriginalUri};
use http::{StatusCode, request::Parts};
use std::convert::Infallible;

/// A request of somebody whom the route's rule has let in.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) grant: Grant,
    /// The way from the page to the dashboard's root, which links begin with: `./`, `../`, `outbox/`.
    /// Relative, so that links hold under any prefix, also one that a proxy takes off.
    pub(crate) root: String,
}

impl FromRequestParts<Shared> for Visit {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, StatusCode> {
        // The rule around the handler has put it there: without it nothing is shown.
        let grant = parts.extensions.get::<Grant>().cloned().ok_or(StatusCode::FORBIDDEN)?;
        let Root(root) = match Root::from_request_parts(parts, app).await {
            Ok(root) => root,
            Err(never) => match never {},
        };
        Ok(Self { grant, root })
    }
}

/// The way from a page to the dashboard's root.
#[derive(Debug, Clone)]
pub(crate) struct Root(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Root {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let OriginalUri(original) = OriginalUri::from_request_parts(parts, state).await?;
        Ok(Self(root_of(original.path(), parts.uri.path())))
    }
}

/// Gives the way to the root, from the path as the browser has it and as the router has it.
fn root_of(original: &str, inner: &str) -> String {
    let inner = inner.trim_start_matches('/');
    if inner.is_empty() {
        let last = original.rsplit('/').next().unwrap_or_default();
        return if last.is_empty() { "./".to_owned() } else { format!("{last}/") };
    }
    match inner.matches('/').count() {
        0 => "./".to_owned(),
        depth => "../".repeat(depth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_root_holds_under_any_prefix() {
        for (original, inner, root) in [
            ("/", "/", "./"),
            ("/outbox", "/", "outbox/"),
            ("/a/outbox", "/", "outbox/"),
            ("/outbox/", "/", "./"),
            ("/outbox/letters", "/letters", "./"),
            ("/letters", "/letters", "./"),
            ("/outbox/letters/7", "/letters/7", "../"),
            ("/letters/7/redrive", "/letters/7/redrive", "../../"),
            ("/sagas/", "/sagas/", "../"),
        ] {
            assert_eq!(root_of(original, inner), root, "{original} {inner}");
        }
    }
}
