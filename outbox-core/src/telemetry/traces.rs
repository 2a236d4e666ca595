//! The seam between the framework's spans and a tracing system: trace contexts, parents and links.

use super::names::{TRACEPARENT, TRACESTATE};
use crate::event::Headers;
use std::{fmt, sync::OnceLock};
use tracing::Span;

/// What the process has installed; empty where it traces nothing.
static BACKEND: OnceLock<Box<dyn TraceBackend>> = OnceLock::new();

/// The W3C trace context of a span, as headers carry it.
///
/// # Source
/// W3C Trace Context, level 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Trace, span and flags, such as `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
    pub traceparent: String,
    /// What vendors add to it.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Reads the context that a message carries: that of the business transaction in which it was
    /// created.
    ///
    /// ```
    /// # use outbox_core::{event::Headers, telemetry::TraceContext};
    /// let mut headers = Headers::new();
    /// assert_eq!(TraceContext::read(&headers), None);
    /// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// headers.insert("traceparent", traceparent)?;
    /// assert_eq!(TraceContext::read(&headers).unwrap().traceparent, traceparent);
    /// # Ok::<(), outbox_core::event::HeaderError>(())
    /// ```
    #[must_use]
    pub fn read(headers: &Headers) -> Option<Self> {
        let traceparent = headers.get(TRACEPARENT)?.to_owned();
        Some(Self { traceparent, tracestate: headers.get(TRACESTATE).map(str::to_owned) })
    }

    /// Lists the headers of a protocol that carry it, with their values.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.tracestate.as_deref().map(|state| (TRACESTATE, state));
        [(TRACEPARENT, &*self.traceparent)].into_iter().chain(state)
    }
}

/// A tracing system that takes the framework's spans: the package `outbox-saga-otel` has one for
/// OpenTelemetry. Without one the spans go to [`tracing`] alone, and no message gets a context.
pub trait TraceBackend: fmt::Debug + Send + Sync + 'static {
    /// Gives the context of a span; `None` where the system does not have the span.
    fn context(&self, span: &Span) -> Option<TraceContext>;

    /// Puts a span that has not begun yet in its trace: under a parent of another process, or as the
    /// root of a new one, with links. A context that cannot be read is left out.
    fn place(&self, span: &Span, parent: Option<&TraceContext>, links: &[TraceContext]);
}

/// Installs the tracing system of the process. `false` where it has one already, which stays.
pub fn install_traces(backend: impl TraceBackend) -> bool {
    BACKEND.set(Box::new(backend)).is_ok()
}

/// Gives the context of the span in which the caller runs: what a publisher writes in its protocol's
/// own headers, for the receiver to go on from. `None` where the process traces nothing.
#[must_use]
pub fn current_context() -> Option<TraceContext> {
    context(&Span::current())
}

/// Keeps the context of the span in which an event is created with the event, unless it has one. An
/// event outside of such a span, which is at DEBUG, gets the context of the span around it.
pub fn keep_context(created_in: &Span, headers: &mut Headers) {
    if headers.get(TRACEPARENT).is_some() {
        return;
    }
    let Some(kept) = context(created_in).or_else(current_context) else { return };
    for (name, value) in kept.headers() {
        // A state that no header can carry is left out: the event matters more.
        let _ = headers.insert(name, value);
    }
}

/// Tells whether the process has a tracing system.
pub(super) fn is_traced() -> bool {
    BACKEND.get().is_some()
}

/// Puts a span in its trace.
pub(super) fn place(span: &Span, parent: Option<&TraceContext>, links: &[TraceContext]) {
    if let Some(backend) = BACKEND.get()
        && !span.is_disabled()
    {
        backend.place(span, parent, links);
    }
}

fn context(span: &Span) -> Option<TraceContext> {
    let backend = BACKEND.get()?;
    (!span.is_disabled()).then(|| backend.context(span)).flatten()
}
