//! Settings of a relay, with the reason for each default.

use std::time::Duration;

/// Settings of a relay. The defaults are meant to be kept.
///
/// ```
/// # use outbox_core::relay::RelayBuilder;
/// # fn example(relay: RelayBuilder<'_>) -> RelayBuilder<'_> {
/// relay.configure(|settings| {
///     settings.per_route = 2_048;
///     settings.read_batch = 1_024;
/// })
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelaySettings {
    /// How long a relay owns its partitions without renewing; renewed at a third of it. 15 s bounds
    /// the pause after a crash and survives a slow database.
    pub lease: Duration,
    /// Longest pause between two reads of an idle relay: the latency when every wake is lost. At
    /// most two statements a second are spent on it.
    pub poll: Duration,
    /// How many ids a read looks back over for events that committed late. With 16 writers at most
    /// 355 were needed.
    pub order_window: u32,
    /// Events of one route in memory; further ones are evicted and read again.
    pub per_route: usize,
    /// Events of one key and route in memory; further ones are evicted and read again.
    pub per_key: usize,
    /// Events of one read over all partitions.
    pub read_batch: usize,
    /// How long an event that no route takes waits before it becomes a dead letter: a rolling
    /// deployment is over in ten minutes. While a relay with other routes waits for its turn it is
    /// up to an hour.
    pub unroutable_after: Duration,
    /// How often one relay of the database writes a row of samples for each route, for the overview
    /// of a day. A minute gives 1,440 points.
    pub sample_every: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            order_window: 10_000,
            per_route: 8_192,
            per_key: 1_024,
            read_batch: 4_096,
            unroutable_after: Duration::from_mins(10),
            sample_every: Duration::from_mins(1),
        }
    }
}
