//! The configuration of a victim process.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The configuration of one process; its only argument, as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct VictimConfig {
    /// The database.
    pub(crate) url: String,
    /// Its name at destinations.
    pub(crate) name: String,
    pub(crate) lease_ms: u64,
    /// How long a shutdown may take after SIGTERM.
    pub(crate) shutdown_ms: u64,
    /// Transactions to commit, one event and one row of `story_facts` each, before it is `done`.
    pub(crate) produces: u64,
    /// Routes of its relay; without one there is no relay.
    pub(crate) routes: Vec<VictimRoute>,
    /// The handler of its consumer, where a route leads to one; `effect` when it is empty.
    pub(crate) handler: String,
    /// The queue of the shared RabbitMQ from which its consumer receives; without one it has no such consumer.
    pub(crate) queue: Option<String>,
    /// The Kafka broker and the topic of it from which its consumer receives, in the same way.
    pub(crate) kafka: Option<(String, String)>,
    /// The MQTT server and the topic of it from which its consumer receives, in the same way.
    pub(crate) mqtt: Option<(String, String)>,
    /// The address at which its consumer receives by HTTP, in the same way.
    pub(crate) http: Option<SocketAddr>,
    /// The fault point to stop at for ever, and at which reach of it, from 1.
    pub(crate) stops_at: Option<(String, u64)>,
    /// How long its handlers' transactions may be idle; as usual when it is 0.
    pub(crate) idle_ms: u64,
    /// Locks the SQLite file against all writers, and holds it.
    pub(crate) locks_the_file: bool,
}

/// One route of a victim's relay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VictimRoute {
    pub(crate) name: String,
    /// Where it leads; without an address to the consumer in the victim itself, which writes to `story_effects`.
    pub(crate) to: Option<SocketAddr>,
    pub(crate) at_most_once: bool,
    /// Whether the rest of a key waits behind a dead head.
    pub(crate) parks: bool,
    pub(crate) max_batch: usize,
    pub(crate) max_in_flight: usize,
    /// First pause of a retry.
    pub(crate) backoff_ms: u64,
}
