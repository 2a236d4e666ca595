//! What the stories are told with: a world, destinations, victims.

pub(crate) mod broker;
pub(crate) mod checks;
pub(crate) mod destination;
pub(crate) mod effects;
pub(crate) mod event;
pub(crate) mod handlers;
pub(crate) mod kafka;
pub(crate) mod logs;
pub(crate) mod part;
pub(crate) mod queue;
pub(crate) mod victims;
pub(crate) mod wire;
pub(crate) mod world;

pub(crate) use broker::Broker;
pub(crate) use checks::{Expected, Story, keys};
pub(crate) use destination::{Destination, HERE};
pub(crate) use effects::consuming;
pub(crate) use event::Told;
pub(crate) use handlers::{Cx, consumer, effect};
pub(crate) use logs::{LogLine, Logs};
pub(crate) use part::{Part, RoutePart};
pub(crate) use queue::{Answered, Queue, command, message};
pub(crate) use victims::{supervised, victim};
pub(crate) use wire::{Answer, Sent};
pub(crate) use world::{World, relay};

use std::time::Duration;

/// For what should take moments, on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For a drain of tens of thousands of events, with takeovers.
pub(crate) const LATE: Duration = Duration::from_secs(120);
/// A lease whose end tests wait for.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// Tells a story on the databases with several writers and servers of their own: SQLite has one writer, and no server
/// that could end a session.
macro_rules! on_servers {
    ($(async fn $name:ident($db:ident: $given:ty) $story:block)+) => {$(
        async fn $name($db: $given) $story

        mod $name {
            #[test]
            fn postgres() {
                tests::databases::tell(tests::databases::Database::Postgres, super::$name)
            }

            #[test]
            fn mariadb() {
                tests::databases::tell(tests::databases::Database::MariaDb, super::$name)
            }
        }
    )+};
}
pub(crate) use on_servers;
