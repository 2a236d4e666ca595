//! Conformance suites, recorder and faults for tests of stores and transports.

mod memory;
mod payload_codec;
mod recorder;
pub mod saga;
pub mod store;
pub mod transport;

pub use memory::{MemoryStore, MemoryTx};
// For the tests of stores, transports and faces; an application tests with its own codec.
#[doc(hidden)]
pub use payload_codec::FlippingCodec;
pub use recorder::{Late, Recorder};
