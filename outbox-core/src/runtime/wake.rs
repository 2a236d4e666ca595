//! The wake: says that there is something to read, and nothing else.

use std::sync::Arc;
use tokio::sync::watch;

/// Wakes every relay that listens, in this process. Carries no data; wakes that come together are one.
#[derive(Debug, Clone)]
pub struct Wake(Arc<watch::Sender<u64>>);

impl Default for Wake {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Wake {
    /// Wakes. Never blocks.
    pub fn wake(&self) {
        self.0.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Gives a receiver that sees wakes from now on.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
