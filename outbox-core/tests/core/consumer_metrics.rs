//! What a consumer counts, and its health.

use crate::support::{
    AckResult, Cx, OrderPlaced, Queue, order, parts, queue, stop, until, until_seen,
};
use outbox_core::{
    consumer::{Consumer, ConsumerBuilder, HandlerError},
    event::{Message, MessageParts},
    failure::RetryPolicy,
    telemetry::{Metrics, SeriesValue, attribute, metric},
    testing::MemoryStore,
};
use std::time::Duration;

/// Handles an order as its number says.
async fn by_number(order: OrderPlaced, cx: &Cx) -> Result<(), HandlerError> {
    match order.0 {
        2 => Err(HandlerError::reject("no such order")),
        3 if cx.attempt() == 1 => Err(HandlerError::retry("not yet")),
        _ => Ok(()),
    }
}

fn consumer(store: &MemoryStore, metrics: &Metrics) -> (Queue, ConsumerBuilder<MemoryStore>) {
    let (queue, subscriber) = queue();
    let consumer = Consumer::builder("receipts", store)
        .on("write", by_number)
        .subscribe(subscriber)
        .retry(RetryPolicy::attempts(3, Duration::from_secs(1)))
        .max_unacked_time(Duration::ZERO)
        .metrics(metrics.clone());
    (queue, consumer)
}

async fn delivered(queue: &Queue, message: Result<Message, String>) {
    assert_eq!(queue.deliver(message, None).wait().await, AckResult::Ack);
}

/// Gives the value of a metric of the consumer with further labels.
fn value(metrics: &Metrics, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let consumer = [(attribute::CONSUMER_GROUP, "receipts")];
    let labels: Vec<_> = labels.iter().copied().chain(consumer).collect();
    metrics.snapshot().value(metric, &labels).map(SeriesValue::number)
}

fn consumed(metrics: &Metrics, further: (&str, &str)) -> Option<f64> {
    let labels = [(attribute::SYSTEM, "outbox"), (attribute::OPERATION_NAME, "receive"), further];
    value(metrics, metric::CONSUMED.description().name, &labels)
}

fn runs(metrics: &Metrics, outcome: &str) -> Option<f64> {
    let labels = [
        (attribute::SYSTEM, "outbox"),
        (attribute::OPERATION_NAME, "process"),
        (attribute::DESTINATION, "orders"),
        (attribute::HANDLER, "write"),
        (attribute::ERROR_TYPE, outcome),
    ];
    let set = if outcome.is_empty() { &labels[..4] } else { &labels[..] };
    value(metrics, metric::PROCESS_DURATION.description().name, set)
}

#[tokio::test(start_paused = true)]
async fn deliveries_and_runs_are_counted_by_what_became_of_them() {
    let (store, metrics) = (MemoryStore::default(), Metrics::new());
    let (queue, consumer) = consumer(&store, &metrics);
    let handle = consumer.start().await.expect("starts");
    let first = order(1);
    delivered(&queue, Ok(first.clone())).await;
    delivered(&queue, Ok(first)).await;
    delivered(&queue, Ok(order(2))).await;
    delivered(&queue, Ok(order(3))).await;
    let newer = MessageParts { event_version: 2, ..parts("order.placed", "4", None) };
    delivered(&queue, Ok(Message::new(newer))).await;
    delivered(&queue, Err("no JSON".to_owned())).await;
    until(&handle, |stats| stats.handled == 2).await;
    stop(handle).await;

    let count = |name| value(&metrics, name, &[]);
    assert_eq!(
        [(attribute::DESTINATION, "orders"), (attribute::ERROR_TYPE, "unreadable")]
            .map(|label| consumed(&metrics, label)),
        [Some(5.0), Some(1.0)]
    );
    assert_eq!(
        ["", "rejected", "failed", "undecodable"].map(|outcome| runs(&metrics, outcome)),
        [Some(2.0), Some(1.0), Some(1.0), None]
    );
    assert_eq!(
        [
            metric::DUPLICATES_SUPPRESSED.description().name,
            metric::DEFERRED.description().name,
            metric::HANDED_OVER.description().name,
        ]
        .map(count),
        [Some(1.0); 3]
    );
    let letters = metric::DEAD_LETTERS.description().name;
    assert_eq!(
        ["rejected", "undecodable"].map(|reason| value(
            &metrics,
            letters,
            &[(attribute::REASON, reason)]
        )),
        [Some(1.0), Some(1.0)]
    );
}

#[tokio::test(start_paused = true)]
async fn runs_in_a_batch_are_counted_and_deliveries_in_flight_shown_while_they_are_handled() {
    let (store, metrics) = (MemoryStore::default(), Metrics::new());
    let (queue, subscriber) = queue();
    let (entered, gate) = (tokio::sync::Semaphore::new(0), tokio::sync::Semaphore::new(0));
    let (entered, gate) = (std::sync::Arc::new(entered), std::sync::Arc::new(gate));
    let handler = {
        let (entered, gate) = (entered.clone(), gate.clone());
        move |_: OrderPlaced, _: &Cx| {
            let (entered, gate) = (entered.clone(), gate.clone());
            async move {
                entered.add_permits(1);
                gate.acquire().await.expect("it is open").forget();
                Ok::<_, HandlerError>(())
            }
        }
    };
    let answers: Vec<_> = (1..=3).map(|n| queue.deliver(Ok(order(n)), None)).collect();
    let consumer = Consumer::builder("receipts", &store)
        .on("write", handler)
        .subscribe(subscriber)
        .batched(3)
        .metrics(metrics.clone());
    let handle = consumer.start().await.expect("starts");
    entered.acquire().await.expect("it is open").forget();
    let in_flight = metric::DELIVERIES_IN_FLIGHT.description().name;
    let shown = handle.stats().borrow().in_flight;
    assert!(shown > 0);
    assert_eq!(value(&metrics, in_flight, &[]), Some(shown as f64));
    gate.add_permits(3);
    for answer in answers {
        assert_eq!(answer.wait().await, AckResult::Ack);
    }
    until(&handle, |stats| stats.in_flight == 0).await;
    assert_eq!((value(&metrics, in_flight, &[]), runs(&metrics, "")), (Some(0.0), Some(3.0)));
    stop(handle).await;
    assert_eq!(value(&metrics, in_flight, &[]), None, "the consumer has ended");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_ready_while_its_database_answers_and_live_until_it_ends() {
    let (store, metrics) = (MemoryStore::default(), Metrics::new());
    let (_queue, consumer) = consumer(&store, &metrics);
    let handle = consumer.start().await.expect("starts");
    let check = handle.health_check();
    let lacks = || check.health().reasons.iter().map(|it| it.lacks).collect::<Vec<_>>();
    until_seen("it is ready", lacks, Vec::is_empty).await;
    assert!(handle.health().ready && handle.health().live);
    store.set_down(true);
    until_seen("its database is missed", lacks, |lacks| *lacks == ["database"]).await;
    assert!(check.health().live && !check.health().ready);
    store.set_down(false);
    until_seen("it is ready again", lacks, Vec::is_empty).await;
    stop(handle).await;
    let health = check.health();
    assert!(!health.live && !health.ready, "{health:?}");
    assert_eq!((lacks(), &*health.reasons[0].part), (vec!["ended"], "consumer `receipts`"));
}
