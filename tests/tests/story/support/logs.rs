//! The log lines of the framework in a test.

use super::SOON;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

thread_local! {
    /// Keeps a thread listening until it ends.
    static LISTENING: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct LogLine {
    pub(crate) level: Level,
    pub(crate) text: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl LogLine {
    /// Gives the text of a field; empty where the line has no such field.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.text = format!("{value:?}"),
            name => _ = self.fields.insert(name, format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// The framework's lines of the threads that listen.
#[derive(Clone, Default)]
pub(crate) struct Logs {
    lines: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<LogLine>>>);

// It records no spans: those of another subscriber may end on these threads.
impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("outbox_")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = LogLine {
            level: *event.metadata().level(),
            text: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Logs {
    /// Listens on this thread until it ends.
    pub(crate) fn listen(&self) {
        let guard = tracing::dispatcher::set_default(&Dispatch::new(self.lines.clone()));
        LISTENING.set(Some(guard));
    }

    /// Gives the lines of a level and of those above it.
    pub(crate) fn at_least(&self, level: Level) -> Vec<LogLine> {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.level <= level).cloned().collect()
    }

    /// Gives the lines at INFO and above that contain a text.
    pub(crate) fn with(&self, text: &str) -> Vec<LogLine> {
        self.at_least(Level::INFO).into_iter().filter(|line| line.text.contains(text)).collect()
    }

    /// Waits for the first line that contains a text.
    pub(crate) async fn wait_for(&self, text: &str) -> LogLine {
        tests::wait_until(SOON, text, async || !self.with(text).is_empty()).await;
        self.with(text).swap_remove(0)
    }

    /// Fails where a line of any level shows one of these.
    pub(crate) fn assert_never(&self, secrets: &[&str]) {
        for line in self.at_least(Level::TRACE) {
            let shown = format!("{line:?}");
            assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
        }
    }
}
