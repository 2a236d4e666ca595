//! Conformance suites, recorder and faults for tests of stores and transports.

mod memory;
mod payload_codec;
mod recorder;
pub mod saga;
pub mod store;
pub mod transport;

pub use memory::{MemoryStore, MemoryTx};
pub use payload_codec::FlippingCodec;
pub use recorder::{Late, Recorder};
