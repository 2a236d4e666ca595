use super::*;
use crate::{
    event::{EventId, LetterId, MessageParts},
    failure::DeadReason,
    outbox::{Epoch, NewLetter, PartitionNo},
    relay::{
        RelaySettings,
        board::{Board, RouteBatch},
        messages::{DispatcherMsg, Lease},
        observers::Observers,
        publisher::RoutePublisher,
    },
    runtime::Shutdown,
    telemetry::{SeriesValue, Snapshot, attribute},
    testing::transport::numbered,
    transport::{Publisher, everything},
};
use async_trait::async_trait;
use std::{future::pending, time::Duration};
use tokio::sync::{mpsc, watch};

/// Does what the key of a message says.
struct ByKey;

#[async_trait]
impl Publisher for ByKey {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        match message.key.as_deref() {
            Some("repeat") => Ok(Receipt::new().duplicate(true)),
            Some("refused") => Err(PublishError::permanent("no")),
            Some("hangs") => pending().await,
            _ => Ok(Receipt::new()),
        }
    }

    fn system(&self) -> &'static str {
        "carrier"
    }
}

fn message(topic: &str, key: &str) -> Message {
    let parts = numbered(1, key).into_parts();
    Message::new(MessageParts { topic: topic.to_owned(), ..parts })
}

fn batch(messages: &[Message]) -> RouteBatch {
    let events = (1..).map(|id| (EventId(id), 1)).take(messages.len()).collect();
    RouteBatch { route: 0, events, messages: messages.to_vec() }
}

/// A publisher of the route `mails` with a lease, and the ends of its channels.
struct Running {
    metrics: Metrics,
    batches: mpsc::Sender<(u64, RouteBatch)>,
    mailbox: mpsc::Receiver<DispatcherMsg>,
    lease: watch::Sender<Lease>,
}

fn publisher() -> (RoutePublisher, Running) {
    let metrics = Metrics::new();
    let route = Route::new("mails", everything(), ByKey).deadline(Duration::from_secs(10));
    let (batches_tx, batches) = mpsc::channel(4);
    let (dispatcher, mailbox) = mpsc::channel(64);
    let valid_until = Some(now() + Duration::from_hours(1));
    let (lease_tx, lease) = watch::channel(Lease { valid_until, renewals: 1, term: 1 });
    let publisher = RoutePublisher {
        number: 0,
        metrics: RouteMetrics::new(&metrics, &route),
        route,
        batches,
        dispatcher,
        lease,
        shutdown: Shutdown::default(),
        observers: Arc::new(Observers::default()),
        stop_at: None,
    };
    (publisher, Running { metrics, batches: batches_tx, mailbox, lease: lease_tx })
}

impl Running {
    /// Waits until a batch has ended.
    async fn ended(&mut self) {
        while let Some(message) = self.mailbox.recv().await {
            if let DispatcherMsg::Published { is_last: true, .. } = message {
                return;
            }
        }
    }
}

/// Gives the value of a metric of the route `mails` with further labels.
fn of_route(snapshot: &Snapshot, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: Vec<_> = labels.iter().copied().chain([(attribute::ROUTE, "mails")]).collect();
    snapshot.value(metric, &labels).map(SeriesValue::number)
}

/// Gives how many messages of a topic were sent with an outcome.
fn sent(snapshot: &Snapshot, topic: &str, outcome: &str) -> Option<f64> {
    let name = metric::SENT.description().name;
    let labels = [
        (attribute::SYSTEM, "carrier"),
        (attribute::OPERATION_NAME, "send"),
        (attribute::DESTINATION, topic),
        (attribute::ERROR_TYPE, outcome),
    ];
    let set = if outcome.is_empty() { &labels[..3] } else { &labels[..] };
    of_route(snapshot, name, set)
}

/// Gives how many batches have ended with an outcome, of one topic or of several.
fn batches(snapshot: &Snapshot, topic: &str, outcome: &str) -> Option<f64> {
    let name = metric::CLIENT_DURATION.description().name;
    let mut labels = vec![
        (attribute::SYSTEM, "carrier"),
        (attribute::OPERATION_NAME, "send"),
        (attribute::OPERATION_TYPE, "send"),
    ];
    for (label, value) in [(attribute::DESTINATION, topic), (attribute::ERROR_TYPE, outcome)] {
        labels.extend((!value.is_empty()).then_some((label, value)));
    }
    of_route(snapshot, name, &labels)
}

#[tokio::test(start_paused = true)]
async fn published_messages_are_counted_by_topic_and_outcome_and_batches_are_timed() {
    let (publisher, mut running) = publisher();
    let steps = async {
        let well = [message("orders", "a"), message("orders", "repeat"), message("orders", "b")];
        running.batches.send((1, batch(&well))).await.unwrap();
        running.ended().await;
        let mixed =
            [message("orders", "refused"), message("payments", "c"), message("orders", "refused")];
        running.batches.send((1, batch(&mixed))).await.unwrap();
        running.ended().await;
        running
    };
    let task = crate::runtime::spawn(publisher.run());
    let Running { metrics, batches: batches_tx, mailbox, .. } = steps.await;
    drop((batches_tx, mailbox));
    task.await;
    let shown = metrics.snapshot();
    let counts = [("orders", ""), ("orders", "permanent"), ("payments", "")];
    assert_eq!(
        counts.map(|(topic, outcome)| sent(&shown, topic, outcome)),
        [Some(3.0), Some(2.0), Some(1.0)]
    );
    assert_eq!(of_route(&shown, metric::SENT_REPEATS.description().name, &[]), Some(1.0));
    assert_eq!(
        [batches(&shown, "orders", ""), batches(&shown, "", "permanent")],
        [Some(1.0), Some(1.0)]
    );
    let in_flight = of_route(&shown, metric::IN_FLIGHT.description().name, &[]);
    assert_eq!(in_flight, None, "the publisher has ended, and its gauge with it");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_in_flight_until_its_deadline_or_until_the_lease_is_lost() {
    let (publisher, mut running) = publisher();
    let in_flight = |running: &Running| {
        of_route(&running.metrics.snapshot(), metric::IN_FLIGHT.description().name, &[])
    };
    let task = crate::runtime::spawn(publisher.run());
    let hangs = [message("orders", "hangs"), message("orders", "hangs")];
    assert_eq!(in_flight(&running), Some(0.0));
    running.batches.send((1, batch(&hangs))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(in_flight(&running), Some(2.0));
    running.ended().await;
    let shown = running.metrics.snapshot();
    assert_eq!(
        (sent(&shown, "orders", TIMEOUT), batches(&shown, "orders", TIMEOUT)),
        (Some(2.0), Some(1.0))
    );
    assert_eq!(in_flight(&running), Some(0.0));

    running.batches.send((1, batch(&hangs[..1]))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(in_flight(&running), Some(1.0));
    running.lease.send_modify(|lease| lease.term = 2);
    running.ended().await;
    let shown = running.metrics.snapshot();
    assert_eq!(
        (sent(&shown, "orders", CANCELLED), batches(&shown, "orders", CANCELLED)),
        (Some(1.0), Some(1.0))
    );
    drop(running);
    task.await;
}

#[test]
fn what_a_board_shows_is_counted_and_a_new_board_begins_anew() {
    let (metrics, now) = (Metrics::new(), Instant::now());
    let routes: Arc<[Route]> =
        ["mails", "bills"].map(|name| Route::new(name, everything(), ByKey)).into_iter().collect();
    let shown = |name: &str, labels: &[(&str, &str)]| {
        metrics.snapshot().value(name, labels).map(SeriesValue::number)
    };
    let lost = || shown(metric::LEASES_LOST.description().name, &[]);
    let open = |route| shown(metric::BREAKER_OPEN.description().name, &[(attribute::ROUTE, route)]);
    for expected in [2.0, 4.0] {
        let board_metrics = BoardMetrics::new(&metrics, &routes);
        let mut board = Board::new(RelaySettings::default(), routes.clone(), |up_to| up_to);
        let show = |board: &Board| {
            board_metrics.show(&board.stats(), |route| board.breaker_is_open(route));
        };
        for no in 0..3 {
            board.gain(PartitionNo(no), Epoch(1), false);
        }
        show(&board);
        assert_eq!((open("mails"), open("bills")), (Some(0.0), Some(0.0)));
        board.start_with_outage(1, "connection refused", now);
        board.lost(PartitionNo(0), Epoch(1));
        board.lost(PartitionNo(2), Epoch(1));
        show(&board);
        show(&board);
        assert_eq!(lost(), Some(expected));
        assert_eq!((open("mails"), open("bills")), (Some(0.0), Some(1.0)));
    }
    assert_eq!(open("bills"), None, "no relay runs");
}

#[test]
fn dead_letters_are_counted_by_route_and_reason_where_they_were_written() {
    let metrics = Metrics::new();
    let letter = |route: &str, reason| NewLetter { route: route.into(), reason, parks: false };
    let update = |id, letters| RouteUpdate {
        partition: PartitionNo(0),
        id: EventId(id),
        rows: Vec::new(),
        letters,
    };
    let updates = [
        update(1, vec![letter("a", DeadReason::Rejected), letter("b", DeadReason::Exhausted)]),
        update(2, vec![letter("a", DeadReason::Expired)]),
        update(3, Vec::new()),
    ];
    // The partition of the second event was lost: its letter is not written.
    let written = [("a", 1), ("b", 2)];
    let letters = written.map(|(route, letter)| (EventId(1), route.into(), LetterId(letter)));
    count_letters(&metrics, &updates, &Settled { letters: letters.into(), ..Settled::default() });
    count_detached(
        &metrics,
        &[DetachedLetter {
            partition: PartitionNo(0),
            id: EventId(4),
            message: message("orders", "a"),
            letter: letter("a", DeadReason::Rejected),
            errors: Vec::new(),
        }],
    );
    let shown = metrics.snapshot();
    let count = |route, reason| {
        let labels = [(attribute::ROUTE, route), (attribute::REASON, reason)];
        shown.value(metric::DEAD_LETTERS.description().name, &labels).map(SeriesValue::number)
    };
    assert_eq!((count("a", "rejected"), count("b", "exhausted")), (Some(2.0), Some(1.0)));
    assert_eq!(count("a", "expired"), None);
}
