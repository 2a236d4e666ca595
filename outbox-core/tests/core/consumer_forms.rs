//! What may be a handler, and how one is tested alone.

use crate::support::{Cx, OrderPlaced, consumer, order, stop, write};
use bytes::Bytes;
use outbox_core::{
    consumer::{HandlerContext, capturing},
    event::{DecodeEvent, EncodeError, EventMeta, Message, OutboxEvent},
    outbox::Store,
    testing::MemoryStore,
    transport::Publisher,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[tokio::test]
async fn a_closure_that_captures_a_client_and_borrows_its_context_is_a_handler() {
    let (store, client) = (MemoryStore::default(), Arc::new(AtomicU64::new(0)));
    let captured = client.clone();
    let bill = capturing(move |order: OrderPlaced, cx: &Cx| {
        let client = captured.clone();
        Box::pin(async move {
            client.fetch_add(order.0, Ordering::Relaxed);
            tokio::task::yield_now().await;
            cx.tx.insert(format!("{}:{}", cx.handler(), order.0));
            Ok(())
        })
    });
    let (consumer, publisher) = consumer(&store);
    let handle = consumer.on("bill", bill).start().await.expect("starts");
    publisher.publish(&order(7)).await.expect("handled");
    stop(handle).await;
    assert_eq!((store.rows(), client.load(Ordering::Relaxed)), (vec!["bill:7".to_owned()], 7));
}

/// An order as its service tells of it.
struct Placed(u64);

impl OutboxEvent for Placed {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("order.placed").topic("orders").key(Some("7"))
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(self.0.to_string().into())
    }
}

#[tokio::test]
async fn a_handler_is_tested_with_a_context_and_a_message_of_one_line() {
    let store = MemoryStore::default();
    let tx = store.begin().await.expect("a transaction");
    let cx = HandlerContext::for_test(tx, Message::for_test(&Placed(7)).expect("it can be saved"));
    let order = OrderPlaced::decode(cx.message()).expect("as a consumer reads it");
    write(order, &cx).await.expect("it writes");
    assert_eq!((cx.handler(), cx.attempt(), cx.message().key.as_deref()), ("test", 1, Some("7")));
    store.commit(cx.tx).await.expect("it is committed");
    assert_eq!(store.rows(), ["test:7"]);
}
