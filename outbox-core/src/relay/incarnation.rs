//! One incarnation of a relay: its actors, started together and ended together. When one of them
//! fails, the supervisor starts the next incarnation under a new identity.

use super::{
    RelaySettings, RelayStats,
    board::{Board, RouteBatch},
    dispatcher::Dispatcher,
    keeper::Keeper,
    messages::{DispatcherMsg, Lease},
    metrics::{BoardMetrics, RouteMetrics},
    observers::{Observers, notify_dead_letters},
    operator::{Operator, Watched},
    publisher::RoutePublisher,
    reader,
    settler::Settler,
    timers,
};
use crate::{
    event::{RelayId, jitter},
    failure::{BackgroundWork, BoxError},
    maintenance::janitor::Janitor,
    outbox::{RelayStore, StoreError, WakeListener},
    runtime::{Exit, Shutdown, Tasks, Wake, now},
    telemetry::{Heartbeats, Metrics},
    transport::{Route, route_set_hash},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

const DEAD_LETTER_ACTOR: &str = "dead-letter actor";

/// Messages that may wait for the dispatcher: results of all publishers, and a few from each other
/// actor.
const MAX_MESSAGES: usize = 256;
/// Writes and sets of timers that may wait in a channel; the dispatcher keeps further ones and goes
/// on.
const MAX_WRITES: usize = 64;
/// Sets of dead letters that may wait for the dead-letter actor.
const MAX_LETTERS: usize = 1_024;
/// How long a relay that ends waits until its last dead letters are logged and their listeners
/// notified.
const LETTERS_GRACE: Duration = Duration::from_millis(500);
/// Pause between two attempts to listen for wakes of other processes; the relay polls meanwhile.
const LISTEN_BACKOFF: Duration = Duration::from_secs(1);

/// The parts that every incarnation of a relay uses.
pub(crate) struct RelayParts {
    pub(crate) store: RelayStore,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) config: RelaySettings,
    pub(crate) wake: Wake,
    pub(crate) shutdown: Shutdown,
    pub(crate) observers: Arc<Observers>,
    pub(crate) stats: watch::Sender<RelayStats>,
    pub(crate) metrics: Metrics,
    pub(crate) heartbeats: Arc<Heartbeats>,
}

/// An actor that ended while the relay was running.
#[derive(Debug, thiserror::Error)]
#[error("the {actor} ended: {cause}")]
pub(crate) struct ActorEnded {
    actor: String,
    cause: String,
}

/// Runs the actors until the shutdown is complete or an actor fails.
pub(crate) async fn run(parts: Arc<RelayParts>) -> Result<(), ActorEnded> {
    let relay = RelayId::generate();
    tracing::info!(%relay, routes = parts.routes.len(), "the relay starts");
    let mut actors = start(&parts, relay);
    let mut notifies = true;
    while let Some((actor, exit)) = actors.next().await {
        notifies &= actor != DEAD_LETTER_ACTOR;
        match exit {
            // In a shutdown the keeper ends last, when it has deregistered the relay; only dead
            // letters may still be logged.
            Exit::Finished(Ok(())) if actor == "keeper" => {
                let notified = async {
                    while notifies && let Some((actor, _)) = actors.next().await {
                        notifies = actor != DEAD_LETTER_ACTOR;
                    }
                };
                let within = parts.shutdown.time_left().unwrap_or_default().min(LETTERS_GRACE);
                _ = timeout(within, notified).await;
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

fn start(parts: &Arc<RelayParts>, relay: RelayId) -> Tasks<String, Result<(), BoxError>> {
    let (dispatcher_tx, mailbox) = mpsc::channel::<DispatcherMsg>(MAX_MESSAGES);
    let (reader_tx, reads) = mpsc::channel(1);
    let (settler_tx, writes) = mpsc::channel(MAX_WRITES);
    let (timers_tx, timers) = mpsc::channel(MAX_WRITES);
    let (keeper_tx, releases) = mpsc::channel(MAX_WRITES);
    let (letters_tx, letters) = mpsc::channel(MAX_LETTERS);
    let (lease_tx, lease) = watch::channel(Lease::default());
    let (owned_tx, owned) = watch::channel(Vec::new());
    let (waits_tx, waits_for) = watch::channel(None);
    let mut actors: Tasks<String, Result<(), BoxError>> = Tasks::default();

    let (publishers, route_metrics) = start_publishers(parts, &dispatcher_tx, &lease, &mut actors);
    let keeper = Keeper {
        relay: relay.clone(),
        routes: route_set_hash(&parts.routes),
        store: parts.store.leases.clone(),
        parks: parts.store.parks.clone(),
        lease: parts.config.lease,
        published: lease_tx,
        owned: owned_tx,
        waits_for: waits_tx,
        live: parts.store.live.clone(),
        dispatcher: dispatcher_tx.clone(),
        releases,
        heartbeats: parts.heartbeats.clone(),
        work: BackgroundWork::default(),
    };
    actors.spawn("keeper".to_owned(), async {
        keeper.run().await;
        Ok(())
    });
    let (lease_of, owned_of) = (lease.clone(), owned.clone());
    let watched = Watched { lease: lease_of, owned: owned_of, waits_for, routes: route_metrics };
    if let Some(operator) = Operator::new(parts, &relay, dispatcher_tx.clone(), watched) {
        actors.spawn("operator actor".to_owned(), async { Ok(operator.run().await?) });
    }
    let settler = Settler {
        relay: relay.clone(),
        store: parts.store.settler.clone(),
        writes,
        dispatcher: dispatcher_tx.clone(),
        letters: letters_tx,
        lease: lease.clone(),
        metrics: parts.metrics.clone(),
        work: BackgroundWork::default(),
    };
    actors.spawn("settler".to_owned(), async { Ok(settler.run().await?) });
    let (store, dispatcher) = (parts.store.reader.clone(), dispatcher_tx.clone());
    let heartbeats = parts.heartbeats.clone();
    actors.spawn("reader".to_owned(), async {
        reader::run(store, reads, dispatcher, heartbeats).await;
        Ok(())
    });
    actors.spawn("timer actor".to_owned(), async {
        timers::run(timers, dispatcher_tx).await;
        Ok(())
    });
    let (store, observers) = (parts.store.settler.clone(), parts.observers.clone());
    actors.spawn(DEAD_LETTER_ACTOR.to_owned(), async {
        notify_dead_letters(store, letters, observers).await;
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
        actors.spawn("wake listener".to_owned(), listen_until(shutdown, listener, wake));
    }
    let dispatcher = Dispatcher {
        board: board(parts),
        routes: parts.routes.clone(),
        mailbox,
        wake: parts.wake.listen(),
        lease: Lease::default(),
        shutdown: parts.shutdown.clone(),
        reader: reader_tx,
        publishers,
        settler: settler_tx,
        timer_actor: timers_tx,
        keeper: keeper_tx,
        stats: parts.stats.clone(),
        metrics: BoardMetrics::new(&parts.metrics, &parts.routes),
        work: BackgroundWork::default(),
    };
    actors.spawn("dispatcher".to_owned(), async { Ok(dispatcher.run().await?) });
    actors
}

/// The channel of a route's publisher: batches with the terms of their leases.
type BatchSender = mpsc::Sender<(u64, RouteBatch)>;

/// Starts a publisher for each route; gives their channels and metrics.
fn start_publishers(
    parts: &RelayParts,
    dispatcher: &mpsc::Sender<DispatcherMsg>,
    lease: &watch::Receiver<Lease>,
    actors: &mut Tasks<String, Result<(), BoxError>>,
) -> (Vec<BatchSender>, Vec<Arc<RouteMetrics>>) {
    let (mut publishers, mut all_metrics) = (Vec::new(), Vec::new());
    for (number, route) in parts.routes.iter().enumerate() {
        let (sender, batches) = mpsc::channel(route.limits.max_in_flight.max(1));
        let metrics = RouteMetrics::new(&parts.metrics, route);
        publishers.push(sender);
        all_metrics.push(metrics.clone());
        let publisher = RoutePublisher {
            number,
            route: route.clone(),
            batches,
            dispatcher: dispatcher.clone(),
            lease: lease.clone(),
            shutdown: parts.shutdown.clone(),
            observers: parts.observers.clone(),
            metrics,
            stop_at: None,
        };
        actors.spawn(format!("publisher of route `{}`", route.name), async {
            Ok(publisher.run().await?)
        });
    }
    (publishers, all_metrics)
}

/// Makes the board. It knows which destinations are down, and starts nothing before it knows the
/// controls.
fn board(parts: &RelayParts) -> Board {
    let mut board = Board::new(parts.config, parts.routes.clone(), jitter);
    for (number, route) in parts.routes.iter().enumerate() {
        if let Err(error) = route.publisher.check() {
            board.start_with_outage(number, &error.full_text(), now());
        }
    }
    if parts.store.controls.is_some() {
        board.wait_for_controls();
    }
    board
}

/// Passes on wakes of other processes, until the relay stops.
async fn listen_until(
    shutdown: Shutdown,
    listener: Arc<dyn WakeListener>,
    wake: Wake,
) -> Result<(), BoxError> {
    tokio::select! {
        () = listen(listener, wake) => {}
        () = shutdown.requested() => {}
    }
    Ok(())
}

/// Passes on wakes of other processes.
async fn listen(listener: Arc<dyn WakeListener>, wake: Wake) {
    let work = BackgroundWork::default();
    loop {
        let error: StoreError = match listener.listen(&wake).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // Polling goes on.
        work.failed("listen for wakes of other processes", &error);
        sleep(LISTEN_BACKOFF).await;
        // Wakes during the pause were missed.
        wake.wake();
    }
}
