//! Where events wait: partitions, leases, and what a store must do.

mod barrier;
mod error;
mod handover;
mod instance;
mod lease;
mod operator;
mod partition;
mod received;
mod rollback;
mod status;
mod store;
mod trial;

pub use barrier::{BarrierStore, CommandKey, CommandOutcome, RecordedCommand, StoredReply};
pub use error::StoreError;
pub use handover::{Awaited, AwaitedBy, COUNTED_DELIVERIES, HandlerNameStore, HandoverStore};
pub use instance::{
    DeclaredHandler, DeclaredSaga, DeclaredType, InstanceRow, InstanceStore, NewInstance,
};
pub use lease::{LeaseView, OwnershipPlan, PartitionOwner, RelayRow, plan_ownership};
pub(crate) use operator::ControlReader;
pub use operator::{
    Bounded, ConsumerLive, Control, ControlAction, ControlFault, ControlScope, ControlStore,
    Controls, HandoverTimes, LastFailure, Live, LiveStore, OperatorNote, OperatorRows, RelayLive,
    RouteLive, SagasLive, Sample, SampleBasis, SampleFigures, SampleWriter, SampledRelay,
};
pub use partition::{DEFAULT_PARTITIONS, Epoch, PartitionNo, partition_of};
pub use received::{
    Admission, ClaimQuery, ConsumerStore, Deferral, DeferredDelivery, DeliveryClaim, History,
    ReceivedLetter, RetrierStore, StoredDelivery, order_hash,
};
pub(crate) use rollback::roll_back;
pub use status::{RouteOutcome, RouteRow, RouteState, row_after};
pub use store::{
    DUE_LIMIT, DetachedLetter, DueRetry, EventReader, Fence, InboxKey, JanitorStore, LeaseStore,
    NewLetter, OutboxInfo, OutboxStats, ParkStore, ParkedKey, PartitionRead, PartitionRows,
    ReadPlan, RelayStore, Renewal, RouteUpdate, SettleStore, Settled, Store, StoredEvent,
    UNPARKED_LIMIT, UnparkedKey, WakeListener,
};
pub use trial::{TableChange, TrialEffects, TrialStore};
