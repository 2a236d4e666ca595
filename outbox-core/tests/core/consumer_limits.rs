//! Handlers that do not return.

use crate::support::{AckResult, Cx, OrderPlaced, order, queue, stop, until};
use outbox_core::{
    consumer::{AckMode, Consumer, HandlerOptions},
    failure::{DeadReason, RetryPolicy},
    runtime::now,
    testing::MemoryStore,
};
use std::{io::Error, time::Duration};

/// The number of an order whose handler returns.
const GOOD: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// Never returns, but for one order.
fn hangs(order: OrderPlaced, cx: &Cx) -> impl Future<Output = Result<(), Error>> + Send + use<> {
    cx.tx.insert(format!("order {}", order.0));
    async move {
        if order.0 != GOOD {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_handlers_that_never_return_are_shown_dropped_after_five_minutes_and_the_next_one_runs()
 {
    let (store, begun) = (MemoryStore::default(), now());
    let (queue, subscriber) = queue();
    let once = RetryPolicy::attempts(1, SECOND);
    let consumer =
        Consumer::builder("receipts", &store).on("hang", hangs).retry(once).subscribe(subscriber);
    let handle = consumer.start().await.expect("starts");
    let hanging: Vec<_> = (0..16).map(|n| queue.deliver(Ok(order(n)), None)).collect();
    let good = queue.deliver(Ok(order(GOOD)), None);
    until(&handle, |s| s.slow == 16).await;
    assert_eq!(now().duration_since(begun).as_secs(), 30, "a tenth of the limit");
    for answered in hanging.into_iter().chain([good]) {
        assert_eq!(answered.wait().await, AckResult::Ack);
    }
    assert_eq!(now().duration_since(begun).as_secs(), 300);
    assert_eq!((store.rows(), store.open_transactions()), (vec![format!("order {GOOD}")], 0));
    assert!(
        store.letters()[0].errors[0].text.contains("time limit of 300s"),
        "{:?}",
        store.letters()[0].errors
    );
    let stats = stop(handle).await;
    assert_eq!((stats.timed_out, stats.slow, stats.dead_lettered, stats.handled), (16, 0, 16, 1));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_is_dropped_however_its_delivery_is_acknowledged() {
    for (mode, batch, attempts, expected, reason) in [
        (AckMode::AfterHandlers, 1, 1, AckResult::Ack, Some(DeadReason::Exhausted)),
        // The second attempt is made from the store.
        (AckMode::AfterHandlers, 1, 2, AckResult::Ack, Some(DeadReason::Exhausted)),
        (AckMode::AfterHandlers, 2, 1, AckResult::Ack, Some(DeadReason::Exhausted)),
        (AckMode::Before, 1, 1, AckResult::Ack, Some(DeadReason::NotRetried)),
        (AckMode::Manual, 1, 1, AckResult::Nack, None),
    ] {
        let store = MemoryStore::default();
        let (queue, subscriber) = queue();
        let options = HandlerOptions::new().timeout(60 * SECOND);
        let consumer = Consumer::builder("receipts", &store)
            .on_with("hang", options, hangs)
            .subscribe(subscriber);
        let retry = RetryPolicy::attempts(attempts, SECOND);
        let consumer =
            consumer.acknowledge(mode).batched(batch).retry(retry).max_unacked_time(Duration::ZERO);
        let handle = consumer.start().await.expect("starts");
        let (hanging, good) =
            (queue.deliver(Ok(order(1)), None), queue.deliver(Ok(order(GOOD)), None));
        assert_eq!(hanging.wait().await, expected, "{mode:?} {batch}");
        let _ = good.wait().await;
        until(&handle, |s| s.timed_out == u64::from(attempts) && s.slow == 0).await;
        until(&handle, |s| s.dead_lettered == u64::from(reason.is_some())).await;
        assert_eq!(
            store.letters().first().map(|letter| letter.reason),
            reason,
            "{mode:?} {batch} {attempts}"
        );
        assert_eq!(
            (store.rows(), store.open_transactions()),
            (vec![format!("order {GOOD}")], 0),
            "{mode:?} {batch}"
        );
        stop(handle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_without_a_limit_is_shown_and_runs_on() {
    let store = MemoryStore::default();
    let (queue, subscriber) = queue();
    let options = HandlerOptions::new().no_timeout();
    let consumer =
        Consumer::builder("receipts", &store).on_with("hang", options, hangs).timeout(SECOND);
    let handle = consumer.subscribe(subscriber).start().await.expect("starts");
    let hanging = queue.deliver(Ok(order(1)), None);
    until(&handle, |s| s.slow == 1).await;
    assert!(tokio::time::timeout(3600 * SECOND, hanging.wait()).await.is_err(), "it runs on");
    let stats = *handle.stats().borrow();
    assert_eq!((stats.slow, stats.timed_out), (1, 0));
    handle.shutdown(SECOND).await.expect_err("it has to be dropped");
}
