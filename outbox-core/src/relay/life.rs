//! One life of a relay: all its actors, started together and ended together. When one of them fails, the supervisor
//! starts the next life under a new identity.

use super::{
    RelayConfig, RelayStats,
    board::Board,
    dispatcher::Dispatcher,
    keeper::Keeper,
    messages::{Lease, Note},
    observers::{Observers, tell_of_letters},
    publisher::RoutePublisher,
    reader, retrier,
    settler::Settler,
};
use crate::{
    event::{RelayId, jitter},
    failure::BackgroundWork,
    maintenance::janitor::Janitor,
    outbox::{RelayStore, StoreError, WakeListener},
    runtime::{Exit, Shutdown, Tasks, Wake, now},
    transport::{Route, route_set_hash},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

const LETTERS_ACTOR: &str = "dead-letter actor";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Notes that may wait for the dispatcher: answers of all publishers and a few of everybody else.
const NOTES: usize = 256;
/// Settles and timer sets that may wait; the dispatcher keeps what is beyond and goes on.
const WRITES: usize = 64;
/// Sets of letters that may wait for their listeners.
const LETTERS: usize = 1_024;
/// For how long a relay that ends waits for the log and the listeners of letters.
const LAST_LETTERS: Duration = Duration::from_millis(500);
/// Between two tries to hear wakes of other processes; the relay polls meanwhile.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What every life of a relay is made of.
pub(crate) struct Parts {
    pub(crate) store: RelayStore,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) config: RelayConfig,
    pub(crate) wake: Wake,
    pub(crate) shutdown: Shutdown,
    pub(crate) observers: Arc<Observers>,
    pub(crate) stats: watch::Sender<RelayStats>,
}

/// An actor that ended when it should not have.
#[derive(Debug, thiserror::Error)]
#[error("the {actor} ended: {cause}")]
pub(crate) struct ActorEnded {
    actor: String,
    cause: String,
}

/// Lives until the shutdown is carried out or an actor fails.
pub(crate) async fn live(parts: Arc<Parts>) -> Result<(), ActorEnded> {
    let relay = RelayId::generate();
    tracing::info!(%relay, routes = parts.routes.len(), "the relay starts");
    let mut actors = start(&parts, relay);
    let mut tells_letters = true;
    while let Some((actor, exit)) = actors.next().await {
        tells_letters &= actor != LETTERS_ACTOR;
        match exit {
            // The keeper is the last to end when all goes well, but for what is still told of letters: it has signed off.
            Exit::Finished(Ok(())) if actor == "keeper" => {
                let told = async {
                    while tells_letters && let Some((actor, _)) = actors.next().await {
                        tells_letters = actor != LETTERS_ACTOR;
                    }
                };
                let within = parts.shutdown.time_left().unwrap_or_default().min(LAST_LETTERS);
                _ = timeout(within, told).await;
                return Ok(());
            }
            Exit::Finished(Ok(())) if parts.shutdown.is_requested() => {}
            Exit::Finished(Ok(())) => {
                return Err(ActorEnded { actor, cause: "it returned".into() });
            }
            Exit::Finished(Err(error)) => {
                return Err(ActorEnded { actor, cause: crate::failure::full_text(&*error) });
            }
            Exit::Panicked(cause) => return Err(ActorEnded { actor, cause }),
            Exit::Cancelled => return Err(ActorEnded { actor, cause: "it was cancelled".into() }),
        }
    }
    Ok(())
}

fn start(parts: &Arc<Parts>, relay: RelayId) -> Tasks<String, Result<(), BoxError>> {
    let (notes_in, notes) = mpsc::channel::<Note>(NOTES);
    let (reader_in, reads) = mpsc::channel(1);
    let (settler_in, writes) = mpsc::channel(WRITES);
    let (retrier_in, timers) = mpsc::channel(WRITES);
    let (keeper_in, handback) = mpsc::channel(WRITES);
    let (letters_in, letters) = mpsc::channel(LETTERS);
    let (lease_in, lease) = watch::channel(Lease::default());
    let (owned_in, owned) = watch::channel(Vec::new());
    let mut actors: Tasks<String, Result<(), BoxError>> = Tasks::default();

    let mut publishers = Vec::new();
    for (number, route) in parts.routes.iter().enumerate() {
        let (sender, batches) = mpsc::channel(route.limits.max_in_flight.max(1));
        publishers.push(sender);
        let publisher = RoutePublisher {
            number,
            route: route.clone(),
            batches,
            dispatcher: notes_in.clone(),
            lease: lease.clone(),
            shutdown: parts.shutdown.clone(),
            observers: parts.observers.clone(),
            stop_at: None,
        };
        actors.spawn(format!("publisher of route `{}`", route.name), async {
            Ok(publisher.run().await?)
        });
    }
    let keeper = Keeper {
        relay: relay.clone(),
        routes: route_set_hash(&parts.routes),
        store: parts.store.leases.clone(),
        parks: parts.store.parks.clone(),
        lease: parts.config.lease,
        published: lease_in,
        owned: owned_in,
        dispatcher: notes_in.clone(),
        handback,
        work: BackgroundWork::default(),
    };
    actors.spawn("keeper".to_owned(), async {
        keeper.run().await;
        Ok(())
    });
    let settler = Settler {
        relay: relay.clone(),
        store: parts.store.settler.clone(),
        writes,
        dispatcher: notes_in.clone(),
        letters: letters_in,
        lease: lease.clone(),
        work: BackgroundWork::default(),
    };
    actors.spawn("settler".to_owned(), async { Ok(settler.run().await?) });
    let (store, dispatcher) = (parts.store.reader.clone(), notes_in.clone());
    actors.spawn("reader".to_owned(), async {
        reader::run(store, reads, dispatcher).await;
        Ok(())
    });
    actors.spawn("retrier".to_owned(), async {
        retrier::run(timers, notes_in).await;
        Ok(())
    });
    let (store, observers) = (parts.store.settler.clone(), parts.observers.clone());
    actors.spawn(LETTERS_ACTOR.to_owned(), async {
        tell_of_letters(store, letters, observers).await;
        Ok(())
    });
    let janitor = Janitor {
        relay,
        store: parts.store.janitor.clone(),
        owned,
        wake: parts.wake.clone(),
        shutdown: parts.shutdown.clone(),
        work: BackgroundWork::default(),
    };
    actors.spawn("janitor".to_owned(), async {
        janitor.run().await;
        Ok(())
    });
    if let Some(listener) = parts.store.listener.clone() {
        let (wake, shutdown) = (parts.wake.clone(), parts.shutdown.clone());
        actors.spawn("wake listener".to_owned(), async move {
            tokio::select! {
                () = hear(listener, wake) => {}
                () = shutdown.requested() => {}
            }
            Ok(())
        });
    }
    let mut board = Board::new(parts.config, parts.routes.clone(), jitter);
    for (number, route) in parts.routes.iter().enumerate() {
        if let Err(error) = route.publisher.check() {
            board.begins_down(number, &error.full_text(), now());
        }
    }
    let dispatcher = Dispatcher {
        board,
        routes: parts.routes.clone(),
        notes,
        wake: parts.wake.listen(),
        lease: Lease::default(),
        shutdown: parts.shutdown.clone(),
        reader: reader_in,
        publishers,
        settler: settler_in,
        retrier: retrier_in,
        keeper: keeper_in,
        stats: parts.stats.clone(),
        work: BackgroundWork::default(),
    };
    actors.spawn("dispatcher".to_owned(), async { Ok(dispatcher.run().await?) });
    actors
}

async fn hear(listener: Arc<dyn WakeListener>, wake: Wake) {
    let work = BackgroundWork::default();
    loop {
        let error: StoreError = match listener.listen(&wake).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // Polling goes on.
        work.failed("hear the wakes of other processes", &error);
        sleep(LISTEN_AGAIN).await;
        // What was rung meanwhile was not heard.
        wake.wake();
    }
}
