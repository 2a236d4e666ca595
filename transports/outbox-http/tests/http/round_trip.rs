//! A published message arrives, in both modes, and its ack decision is the response.

use crate::support::{SECRET, message, message_with, read_request, serve, serve_raw};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_http::{HttpPublisher, HttpReceiver};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_signed_message_arrives_with_every_attribute_in_both_modes() {
    let (router, mut subscriber) =
        HttpReceiver::builder().verify(SECRET).build().expect("configured");
    let server = serve(router).await;
    for publisher in
        [server.publisher().signed(SECRET), server.publisher().signed(SECRET).structured()]
    {
        let sent = message();
        let receive = async {
            let delivery = subscriber.next().await.expect("open").expect("a delivery");
            let received = delivery.message.clone().expect("readable");
            delivery.ack().await.expect("the sender waits");
            received
        };
        let (receipt, received) = tokio::join!(publisher.publish(&sent), receive);
        assert_eq!(received, sent);
        assert_eq!(receipt.expect("confirmed").destination, Some(server.address.to_string()));
    }
}

#[tokio::test]
async fn a_router_is_nested_in_another() {
    let (router, mut subscriber) =
        HttpReceiver::builder().path("/in/events").verify(SECRET).build().expect("configured");
    let server = serve(axum::Router::new().nest("/shop", router)).await;
    let url = format!("http://{}/shop/in/events", server.address);
    let publisher = HttpPublisher::new(url).expect("a URL").allow_loopback().signed(SECRET);
    let sent = message();
    let (result, _) = tokio::join!(publisher.publish(&sent), async {
        subscriber
            .next()
            .await
            .expect("open")
            .expect("a delivery")
            .ack()
            .await
            .expect("the sender waits");
    });
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn a_delivery_says_that_its_sender_waits_and_sends_it_again() {
    let (router, mut subscriber) = HttpReceiver::builder().unsigned().build().expect("configured");
    let server = serve(router).await;
    let (publisher, sent) = (server.publisher(), message());
    let (result, ()) = tokio::join!(publisher.publish(&sent), async {
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        assert!(
            delivery.comes_back_in_order,
            "a consumer may return it when the queue of its key is full"
        );
        let (since, until) = delivery.awaited.expect("it says until when");
        assert_eq!((until - since, delivery.is_given_up()), (Duration::from_secs(8), false));
        delivery.nack(true).await.expect("the sender waits");
    });
    let error = result.expect_err("returned");
    assert!(error.to_string().contains("503") && error.asked_to_wait().is_some(), "{error:?}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let server = serve_raw(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            for response in [
                "204 No Content\r\n\r\n",
                "200 OK\r\ncontent-length: 5\r\n\r\nthank",
                "500 X\r\ncontent-length: 2\r\n\r\nno",
            ]
            .into_iter()
            .cycle()
            {
                if read_request(&mut stream).await.is_empty() {
                    break;
                }
                let response = format!("HTTP/1.1 {response}");
                stream.write_all(response.as_bytes()).await.expect("the client reads");
            }
        }
    })
    .await;
    let publisher = server.publisher();
    let mut confirmed = 0;
    for _ in 0..30 {
        confirmed += usize::from(publisher.publish(&message()).await.is_ok());
    }
    assert_eq!((confirmed, connections.load(Ordering::SeqCst)), (20, 1));
}

#[tokio::test]
async fn the_ack_decision_of_the_delivery_is_the_outcome_of_the_publish() {
    let (router, mut subscriber) = HttpReceiver::builder()
        .unsigned()
        .retry_after(Duration::from_secs(7))
        .respond_within(Duration::from_millis(300))
        .build()
        .expect("configured");
    let server = serve(router).await;
    let publisher = server.publisher();
    let sent = message();

    let (result, _) = tokio::join!(publisher.publish(&sent), async {
        subscriber
            .next()
            .await
            .expect("open")
            .expect("a delivery")
            .nack(true)
            .await
            .expect("the sender waits");
    });
    let error = result.expect_err("not handled");
    assert_eq!(
        (error.class(), error.asked_to_wait()),
        (FailureClass::Transient, Some(Duration::from_secs(7)))
    );

    let (result, _) = tokio::join!(publisher.publish(&sent), async {
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        delivery.reject("the order is für immer gone\r\n").await.expect("the sender waits");
    });
    let error = result.expect_err("rejected");
    assert_eq!(error.class(), FailureClass::Permanent);
    let text = error.to_string();
    assert_eq!(
        text,
        "the destination answered 422 Unprocessable Entity: the order is für immer gone"
    );

    let (result, _) = tokio::join!(publisher.publish(&sent), async {
        drop(subscriber.next().await.expect("open").expect("a delivery"));
    });
    assert_eq!(result.expect_err("dropped").class(), FailureClass::Transient);

    let (result, delivery) = tokio::join!(publisher.publish(&sent), subscriber.next());
    let error = result.expect_err("no ack decision");
    assert_eq!(error.class(), FailureClass::Transient);
    assert!(error.to_string().contains("504"), "{error}");
    let late = delivery.expect("open").expect("a delivery").ack().await;
    assert!(late.is_err(), "an ack that comes too late fails");
}

#[tokio::test]
async fn a_message_that_is_too_large_for_the_receiver_is_refused_for_good() {
    let (router, mut subscriber) =
        HttpReceiver::builder().unsigned().max_body(1024).build().expect("configured");
    let server = serve(router).await;
    for size in [1025, 100 * 1024, 8 * 1024 * 1024] {
        let sent = message_with(|m| m.payload = vec![b'1'; size].into());
        // Often, as a connection that is closed too early is a matter of chance.
        for _ in 0..20 {
            let error = server.publisher().publish(&sent).await.expect_err("too large");
            assert_eq!(error.class(), FailureClass::Permanent, "{size}: {}", error.full_text());
        }
    }
    let nothing = tokio::time::timeout(Duration::ZERO, subscriber.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}
