//! The rows that operators share with running parts: what operators have paused or slowed down, and
//! what relays, consumers and coordinators write about themselves.

mod note;
mod control;
mod reader;
mod live;
mod bounded;
mod samples;
mod shown;
mod times;

pub use bounded::Bounded;
pub use control::{Control, ControlAction, ControlFault, ControlScope, ControlStore, Controls};
pub use live::{ConsumerLive, LastFailure, Live, LiveStore, RelayLive, RouteLive, SagasLive};
pub use note::OperatorNote;
pub(crate) use reader::ControlReader;
pub use samples::{Sample, SampleBasis, SampleFigures, SampleWriter, SampledRelay};
pub use times::HandoverTimes;

use crate::runtime::Wake;

/// The rows that a store shares with operators, for running consumers and coordinators.
pub trait OperatorRows: ControlStore + LiveStore {
    /// Gives the wake that follows each change of a control in this process; by default there is
    /// none, and changes are seen at the next renewal.
    fn control_wake(&self) -> Option<Wake> {
        None
    }
}
