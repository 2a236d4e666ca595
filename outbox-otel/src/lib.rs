#![doc = include_str!("../README.md")]

mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod spans;

pub use metrics::{AlreadyBound, BoundMetrics, bind};
#[cfg(feature = "otlp")]
pub use otlp::{Otlp, OtlpBuilder, OtlpError};
pub use spans::{continue_from, install, layer, span_filter};
