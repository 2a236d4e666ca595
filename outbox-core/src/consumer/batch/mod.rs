//! Which deliveries share a transaction, and when a delivery has one of its own. Pure; `work/together.rs` runs
//! what is decided here.
//!
//! A batch is optimistic: if anything in it fails, all of it is rolled back, nothing is counted, and each
//! of its deliveries runs alone, as if there had been no batch.

mod choice;
mod pace;
mod plan;

pub(super) use pace::Pace;
pub(super) use plan::{BatchPlan, Candidate, Sharing, may_share};

use super::settings::AckMode;
use std::time::Duration;

/// Most deliveries of one transaction: a commit costs about as much as a few statements, so that more save nothing.
pub(super) const MAX_BATCH: usize = 64;
/// Most bytes of the payloads of one transaction: a batch of large ones is no faster, and keeps them all in memory.
const MAX_BYTES: usize = 1024 * 1024;
/// How long the handlers of one transaction may take together, by their medians: the locks of the first are held
/// so long.
const MAX_TIME: Duration = Duration::from_millis(100);
/// The same where the transaction keeps all other writers of the database waiting.
const MAX_TIME_OF_ONE_WRITER: Duration = Duration::from_millis(20);
/// A handler whose median run takes longer waits for something, and runs alone: a shared commit would save
/// little.
const SLOW: Duration = Duration::from_millis(5);
/// Longest statement of a batch, and longest wait for a lock in it. Ten times what its handlers should take.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(1);
/// After this time a batch is rolled back whatever is under way: a handler in it, or a hook before its commit, waits
/// for another service. It begins behind BEGIN and ends before COMMIT, which is never cut off.
/// Longer than a statement may take, so that a wait for a lock ends first and the rollback is awaited: on
/// InnoDB, inserts that wait for an inbox row when its transaction is rolled back inherit a lock of the gap
/// behind it, and would keep all later inbox rows out until their own handlers end.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(3);

/// When deliveries share a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// Each has its own.
    Alone,
    /// Those that are ready share one without savepoints, as far as their handlers are known to be fast.
    Optimistic,
    /// The same from a handler's first delivery on, for tests.
    #[cfg(feature = "testing")]
    Eager,
    /// So many share one, behind a savepoint each.
    Savepoints(usize),
}

impl Batching {
    /// Gives how many deliveries may share a transaction at most.
    pub(super) const fn most(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Savepoints(deliveries) => deliveries,
            _ => MAX_BATCH,
        }
    }

    /// Tells whether deliveries share a transaction without savepoints.
    pub(super) const fn is_optimistic(self) -> bool {
        !matches!(self, Self::Alone | Self::Savepoints(_))
    }

    /// Tells whether a handler shares a transaction before its pace is known.
    pub(super) const fn is_eager(self) -> bool {
        !matches!(self, Self::Alone | Self::Savepoints(_) | Self::Optimistic)
    }

    /// Gives each delivery its own transaction where it is acknowledged by itself, before or during its handlers, and
    /// where a layer around the handlers waits for others, unless savepoints were asked for.
    pub(super) const fn allowed(self, ack: AckMode, layers_wait: bool) -> Self {
        match ack {
            AckMode::AfterHandlers if !layers_wait || !self.is_optimistic() => self,
            _ => Self::Alone,
        }
    }

    /// Gives the mode of a consumer whose builder says nothing.
    pub(super) fn usual() -> Self {
        #[cfg(feature = "testing")]
        match std::env::var("OUTBOX_TEST_BATCHES").as_deref() {
            Ok("eager") => return Self::Eager,
            Ok("alone") => return Self::Alone,
            _ => {}
        }
        Self::Optimistic
    }
}
