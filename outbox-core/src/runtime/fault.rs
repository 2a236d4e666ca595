//! Fault points: the places where a crash, a delay or an error would hurt most. Without the feature
//! `testing` they are nothing.

/// A place in the life of an event at which a test may inject a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// A producer has written its events and not yet sent COMMIT.
    BeforeCommit,
    /// The COMMIT was answered; listeners and wake are to come.
    AfterCommit,
    /// A relay has taken partitions and not yet read them.
    AfterTake,
    /// A read has returned; the board has not taken the events in.
    AfterRead,
    /// A batch is handed to the publisher and not yet sent.
    BeforePublish,
    /// The destination has confirmed; the relay has not yet noted it.
    AfterPublish,
    /// Confirmed events are about to be finished.
    BeforeSettle,
    /// Confirmed events are finished in the database; the relay has not yet noted it.
    AfterSettle,
    /// A failure is about to be written down.
    BeforeRecord,
    /// A failure is written down; the relay has not yet noted it.
    AfterRecord,
    /// Partitions are about to be given back at shutdown.
    BeforeRelease,
    /// A consumer has opened its transaction; the inbox row is not written.
    BeforeInbox,
    /// The handler has returned; nothing is committed.
    AfterHandler,
    /// The handler's transaction is committed; the delivery is not acknowledged.
    BeforeAck,
    /// The delivery is acknowledged.
    AfterAck,
    /// A consumer is about to defer a delivery.
    BeforeDefer,
    /// A delivery is deferred and not acknowledged.
    AfterDefer,
    /// Deferred deliveries are claimed; none of them is begun.
    AfterClaim,
    /// A deferred delivery has failed; its next attempt is not written down.
    BeforeReschedule,
    /// The dead letter of a received message is about to be written.
    BeforeDeadLetter,
    /// The dead letter of a received message is written; the delivery is not acknowledged.
    AfterDeadLetter,
    /// A coordinator has claimed sagas and not yet begun with them.
    AfterSagaClaim,
    /// A step of a saga has returned; its record is not written.
    AfterStep,
    /// The record of a step is written; nothing is committed.
    AfterStepRecord,
    /// Step and record are committed; the coordinator has not yet noted it.
    AfterStepCommit,
}

impl FaultPoint {
    /// Every point, in the order in which an event meets them.
    pub const ALL: [Self; 21] = [
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::AfterTake,
        Self::AfterRead,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::BeforeSettle,
        Self::AfterSettle,
        Self::BeforeRecord,
        Self::AfterRecord,
        Self::BeforeRelease,
        Self::BeforeInbox,
        Self::AfterHandler,
        Self::BeforeAck,
        Self::AfterAck,
        Self::BeforeDefer,
        Self::AfterDefer,
        Self::AfterClaim,
        Self::BeforeReschedule,
        Self::BeforeDeadLetter,
        Self::AfterDeadLetter,
    ];

    /// Every point in the life of a saga, in order.
    pub const OF_SAGAS: [Self; 4] =
        [Self::AfterSagaClaim, Self::AfterStep, Self::AfterStepRecord, Self::AfterStepCommit];
}

#[cfg(feature = "testing")]
static HOOK: std::sync::OnceLock<fn(FaultPoint)> = std::sync::OnceLock::new();

/// Sets what happens at fault points of this process; the first call wins.
#[cfg(feature = "testing")]
pub fn install_hook(hook: fn(FaultPoint)) {
    let _ = HOOK.set(hook);
}

/// Runs the hook of a fault point.
#[inline]
pub fn fault_point(point: FaultPoint) {
    #[cfg(feature = "testing")]
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
    #[cfg(not(feature = "testing"))]
    let _ = point;
}
