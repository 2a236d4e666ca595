//! The limit of crashes.

/// Starts of one event, stored delivery or saga step that may end their process (the first of them
/// among others, the rest alone) before it is given up as crashed. A process that is killed from
/// outside every few seconds hits an innocent one two or three times: of 80,000 events in 330
/// deaths, two to ten.
pub(crate) const MAX_CRASHES: u32 = 5;
