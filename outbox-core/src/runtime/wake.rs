//! The wake: a signal that there may be something to read. It carries no data.

use std::sync::Arc;
use tokio::sync::watch;

/// Wakes every relay of this process that listens. Carries no data; wakes that come together are
/// one.
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
