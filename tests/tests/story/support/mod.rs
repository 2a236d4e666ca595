//! What the tests run on: a world, destinations, victims.

pub(crate) mod broker;
pub(crate) mod checks;
pub(crate) mod destination;
pub(crate) mod effects;
pub(crate) mod event;
pub(crate) mod handlers;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod mqtt;
pub(crate) mod logs;
pub(crate) mod config;
pub(crate) mod queue;
pub(crate) mod victims;
pub(crate) mod wire;
pub(crate) mod world;

pub(crate) use broker::Broker;
pub(crate) use checks::{Deliveries, Expected, keys};
pub(crate) use config::{VictimConfig, VictimRoute};
pub(crate) use destination::{Destination, HERE};
pub(crate) use effects::consuming;
pub(crate) use event::Sample;
pub(crate) use handlers::{Cx, consumer, effect};
pub(crate) use logs::{LogLine, Logs};
pub(crate) use queue::{AckDecision, Queue, command, message};
pub(crate) use victims::{supervised, victim};
pub(crate) use wire::{Answer, Sent};
pub(crate) use world::{World, relay};

use std::time::Duration;

/// The limit of a short wait, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The limit of a drain of tens of thousands of events, with takeovers.
pub(crate) const LATE: Duration = Duration::from_secs(120);
/// A lease whose end tests wait for.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// Runs a test on the databases with a server: SQLite has one writer, and no server that could end a
/// session.
macro_rules! on_servers {
    ($(async fn $name:ident($db:ident: $given:ty) $body:block)+) => {$(
        async fn $name($db: $given) $body

        mod $name {
            #[test]
            fn postgres() {
                tests::databases::run_on(tests::databases::Database::Postgres, super::$name)
            }

            #[test]
            fn mariadb() {
                tests::databases::run_on(tests::databases::Database::MariaDb, super::$name)
            }
        }
    )+};
}
pub(crate) use on_servers;
