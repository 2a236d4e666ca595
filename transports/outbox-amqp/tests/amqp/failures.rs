//! Which failure is which: every row of the table, and the outcomes of a batch.

use crate::support::{
    SOON, client, failure, full, message_with, name, numbered, publisher, queue, subscriber, url,
};
use futures_util::future::join_all;
use lapin::{ExchangeKind, options::ExchangeDeclareOptions};
use outbox_amqp::{AmqpPublisher, Exchange, Topology};
use outbox_core::{
    event::Message,
    failure::FailureClass::{self, Permanent, Transient, Unavailable},
    transport::{Limits, PublishError, Publisher, Receipt, publish_all},
};
use std::time::Duration;
use tokio::net::TcpListener;

type Outcome = Result<Receipt, PublishError>;

fn class(outcome: &Outcome) -> Option<FailureClass> {
    outcome.as_ref().err().map(PublishError::class)
}

#[tokio::test]
async fn what_the_server_acknowledges_is_confirmed_with_its_delivery_tag() {
    let name = name("ack");
    let publisher = publisher().queue(&name).declare(Topology::new().queue(queue(&name)));
    for tag in 1..=3 {
        let receipt = publisher.publish(&full()).await.expect("confirmed");
        assert_eq!(receipt.position, Some(tag), "the channel is used again");
    }
}

#[tokio::test]
async fn a_message_or_a_routing_key_that_is_too_long_can_never_go() {
    let name = name("long");
    let topology = Topology::new().queue(queue(&name));
    let small = publisher()
        .queue(&name)
        .declare(topology.clone())
        .with_limits(Limits::default().max_payload(100));
    let error = small
        .publish(&message_with(|m| m.payload = vec![b'x'; 101].into()))
        .await
        .expect_err("too long");
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (Permanent, "the message has 101 bytes, of at most 100")
    );
    small
        .publish(&message_with(|m| m.payload = vec![b'x'; 100].into()))
        .await
        .expect("the longest");

    let keyed = publisher().routing_key(|_| "k".repeat(256)).declare(topology);
    let error = failure(&keyed).await;
    assert_eq!(error.class(), Permanent);
    assert!(error.to_string().contains("routing key has 256 bytes"), "{error}");
}

#[tokio::test]
async fn headers_that_fit_in_no_frame_travel_in_the_body() {
    let name = name("bomb");
    let topology = Topology::new().queue(queue(&name));
    let publisher = publisher().queue(&name).declare(topology.clone());
    let sent = message_with(|m| {
        for n in 0..100 {
            m.headers.insert(format!("own{n}"), "ü".repeat(1_000)).expect("legal");
        }
    });
    publisher.publish(&sent).await.expect("200 KB of headers are confirmed");
    let delivery = crate::support::next(&mut subscriber(&name).declare(topology)).await;
    assert_eq!(delivery.message.as_ref().map(|m| &m.headers), Ok(&sent.headers));
    delivery.ack().await.expect("accepted");
}

#[tokio::test]
async fn a_message_that_no_queue_takes_may_go_later_and_the_error_names_no_route() {
    let error = failure(&publisher().queue(name("nobody"))).await;
    assert_eq!(error.class(), Transient);
    assert!(error.to_string().starts_with("returned 312 NO_ROUTE"), "{error}");
}

#[tokio::test]
async fn a_full_queue_refuses_and_the_message_may_go_later() {
    let name = name("full");
    let topology = Topology::new().queue(queue(&name).max_length(3));
    let publisher = publisher().queue(&name).declare(topology);
    let mut refused = None;
    // The limit is a soft one: the queue tells its publishers a little late.
    for n in 1..=200 {
        if let Err(error) = publisher.publish(&numbered(n, "k")).await {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("the queue is full");
    assert_eq!(error.class(), Transient);
    assert!(error.to_string().contains("basic.nack"), "{error}");
}

#[tokio::test]
async fn a_missing_exchange_makes_the_destination_unavailable_until_it_is_declared() {
    let (exchange, name) = (name("exchange"), name("q"));
    let publisher_only = publisher().exchange(&exchange);
    let error = failure(&publisher_only).await;
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("404 NOT_FOUND - no exchange"), "{error}");

    let topology = Topology::new()
        .exchange(Exchange::topic(&exchange))
        .queue(queue(&name).bind(&exchange, "order.*"));
    let declaring = publisher().exchange(&exchange).declare(topology);
    declaring.publish(&full()).await.expect("declared at the first connection");
    publisher_only.publish(&full()).await.expect("the other finds it too");
    client(&url()).await.delete_exchange(&exchange).await;
    assert_eq!(failure(&declaring).await.class(), Unavailable);
    declaring.publish(&full()).await.expect("declared again");
    client(&url()).await.delete_exchange(&exchange).await;
}

#[tokio::test]
async fn access_that_is_refused_makes_the_destination_unavailable() {
    let stranger = url().replace("guest:guest", "guest:canary-password");
    let error = failure(&AmqpPublisher::new(stranger).expect("a URL").queue("q")).await;
    assert_eq!(error.class(), Unavailable);
    assert!(
        error.to_string().contains("403 ACCESS_REFUSED") && !error.full_text().contains("canary"),
        "{error}"
    );

    // No client may publish to an internal exchange.
    let (internal, client) = (name("internal"), client(&url()).await);
    let options = ExchangeDeclareOptions { internal: true, ..Default::default() };
    let declared = client.channel.exchange_declare(
        internal.as_str().into(),
        ExchangeKind::Topic,
        options,
        Default::default(),
    );
    declared.await.expect("declared");
    let error = failure(&publisher().exchange(&internal)).await;
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("403 ACCESS_REFUSED"), "{error}");
    client.delete_exchange(&internal).await;
}

#[tokio::test]
async fn a_vhost_that_does_not_exist_makes_the_destination_unavailable() {
    let error =
        failure(&AmqpPublisher::new(format!("{}/no-such-vhost", url())).expect("a URL").queue("q"))
            .await;
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("NOT_ALLOWED"), "{error}");
}

#[tokio::test]
async fn a_declaration_that_differs_makes_the_destination_unavailable_and_says_what() {
    let name = name("differs");
    let first = publisher().queue(&name).declare(Topology::new().queue(queue(&name)));
    first.publish(&full()).await.expect("confirmed");
    let second =
        publisher().queue(&name).declare(Topology::new().queue(queue(&name).max_length(5)));
    let error = failure(&second).await;
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("x-max-length"), "{error}");
}

#[tokio::test]
async fn an_address_without_a_listener_makes_the_destination_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error =
        failure(&AmqpPublisher::new(format!("amqp://{address}")).expect("a URL").queue("q")).await;
    assert_eq!(error.class(), Unavailable);
    let error =
        failure(&AmqpPublisher::new("amqp://no-such-host.invalid").expect("a URL").queue("q"))
            .await;
    assert_eq!(error.class(), Unavailable);
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_unavailable_in_time_and_its_socket_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let publisher = AmqpPublisher::new(format!("amqp://{address}"))
        .expect("a URL")
        .timeout(Duration::from_millis(200));
    let (error, (mut stream, _)) =
        tokio::join!(failure(&publisher), async { listener.accept().await.expect("a connection") });
    assert_eq!(error.class(), Unavailable);
    assert!(error.to_string().contains("did not accept the connection within 200ms"), "{error}");
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    tokio::time::timeout(SOON, read).await.expect("the connection is ended").expect("orderly");
}

#[tokio::test]
async fn a_batch_tells_the_returned_from_the_confirmed_whatever_their_order() {
    let (exchange, name) = (name("exchange"), name("q"));
    let topology = Topology::new()
        .exchange(Exchange::direct(&exchange))
        .queue(queue(&name).bind(&exchange, "yes"));
    let routed = |message: &Message| message.sequence.is_some_and(|n| n.0 % 3 != 0);
    let key = move |message: &Message| if routed(message) { "yes" } else { "no" }.to_owned();
    let publisher = publisher().exchange(&exchange).routing_key(key).declare(topology.clone());
    let batches: Vec<Vec<Message>> = (0..8)
        .map(|batch| (1..=100).map(|n| numbered(n + batch * 7, &format!("{batch}-{n}"))).collect())
        .collect();
    // Many batches at once, so that returns and confirms of all mix on the wire.
    let outcomes = join_all(batches.iter().map(|batch| publish_all(&publisher, batch))).await;
    for (message, outcome) in batches.iter().flatten().zip(outcomes.iter().flatten()) {
        let expected = (!routed(message)).then_some(Transient);
        assert_eq!(class(outcome), expected, "{:?}: {outcome:?}", message.sequence);
    }
    let confirmed = batches.iter().flatten().filter(|message| routed(message)).count();
    let client = client(&url()).await;
    let waiting = async || {
        usize::try_from(client.waiting(&name).await).is_ok_and(|waiting| waiting == confirmed)
    };
    tests::wait_until(SOON, "what is confirmed is in the queue", waiting).await;
    client.delete_exchange(&exchange).await;
}

#[tokio::test]
async fn a_publish_that_is_given_up_leaves_the_channel_and_others_go_on() {
    let name = name("given-up");
    let publisher = publisher().queue(&name).declare(Topology::new().queue(queue(&name)));
    publisher.publish(&full()).await.expect("confirmed");
    for n in 1..=20 {
        let cut =
            tokio::time::timeout(Duration::from_micros(n * 50), publisher.publish(&full())).await;
        drop(cut);
        publisher.publish(&full()).await.expect("the next is confirmed");
    }
}
