//! What a receiver refuses, with which status, and that nothing of it is handed out.

use crate::{
    support::{OTHER_SECRET, SECRET, serve},
    wire::{ID, Request, now, read_response, receiver},
};
use axum::{body::Body, middleware};
use http_body_util::BodyExt;
use outbox_core::{
    event::Message,
    transport::{Delivery, Subscriber, cloudevents::PlainJson},
};
use outbox_http::{HttpReceiver, HttpSubscriber, ReceiverBuilder, Secret};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

fn verifying() -> ReceiverBuilder {
    HttpReceiver::builder().verify(SECRET)
}

/// Asserts that the subscriber gives nothing: the responses are there, so that an accepted request
/// would be pending by now.
async fn assert_nothing_handed_out(subscriber: &mut HttpSubscriber) {
    let next = tokio::time::timeout(Duration::ZERO, subscriber.next()).await;
    assert!(next.is_err(), "nothing is handed out, but: {next:?}");
}

/// Sends each request and expects its status, with nothing handed out.
async fn are_refused(
    builder: ReceiverBuilder,
    cases: impl IntoIterator<Item = (&'static str, Request, u16)>,
) {
    let (server, mut subscriber) = receiver(builder).await;
    for (what, request, status) in cases {
        let response = request.send(&server).await;
        assert_eq!(response.status, status, "{what}: {}", response.text);
        assert_nothing_handed_out(&mut subscriber).await;
    }
}

async fn next(subscriber: &mut HttpSubscriber) -> Delivery {
    subscriber.next().await.expect("open").expect("a delivery")
}

/// Sends a request that is taken in and acknowledged.
async fn is_taken(builder: ReceiverBuilder, request: Request) -> Message {
    let (server, mut subscriber) = receiver(builder).await;
    let sent = async {
        let response = request.send(&server).await;
        // At once: one that is refused is never delivered.
        assert_eq!(response.status, 204, "{}", response.text);
    };
    let taken = async {
        let delivery = next(&mut subscriber).await;
        let message = delivery.message.clone().expect("readable");
        delivery.ack().await.expect("the sender waits");
        message
    };
    tokio::join!(sent, taken).1
}

#[tokio::test]
async fn right_requests_are_taken_in_both_modes() {
    let unsigned = || HttpReceiver::builder().unsigned();
    for request in [Request::binary(), Request::structured()] {
        for message in [
            is_taken(verifying(), request.clone().signed()).await,
            is_taken(unsigned(), request).await,
        ] {
            assert_eq!(
                (message.id.to_string().as_str(), message.event_type.as_str()),
                (ID, "order.placed")
            );
            assert_eq!(&message.payload[..], b"{\"n\":1}");
        }
    }
}

#[tokio::test]
async fn the_examples_of_the_http_binding_are_read() {
    let unsigned = || HttpReceiver::builder().unsigned();
    let request = Request::binary()
        .and("ce-plain", "Euro%20%E2%82%AC%20%F0%9F%98%80")
        .and("ce-lower", "%e2%82%ac")
        .and("ce-needless", "%41")
        .and("ce-once", "%2541")
        .and("ce-quoted", "\"a \\\"b\\\" \\\\ c\"")
        .and("ce-raw", "Zoë")
        .and("ce-percent", "100%");
    let message = is_taken(unsigned(), request).await;
    for (name, value) in [
        ("plain", "Euro € 😀"),
        ("lower", "€"),
        ("needless", "A"),
        ("once", "%41"),
        ("quoted", "a \"b\" \\ c"),
        ("raw", "Zoë"),
        ("percent", "100%"),
    ] {
        assert_eq!(message.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(is_taken(unsigned().topic("hooks"), Request::binary()).await.topic, "hooks");
    assert_eq!(
        is_taken(unsigned().topic("hooks"), Request::binary().and("ce-topic", "said")).await.topic,
        "said"
    );
}

#[tokio::test]
async fn plain_json_is_taken_where_that_is_configured_with_no_header_that_was_not_named() {
    let plain =
        || PlainJson::new("x-event", "/legacy").id_header("webhook-id").key_header("x-order");
    let request = || {
        let base =
            Request::binary().without("ce-specversion").without("ce-id").without("ce-source");
        let base = base.without("ce-type").and("x-event", "invoice.sent").and("x-order", "7");
        base.and("authorization", "canary").and("tenant", "acme").and("webhook-id", "I-1")
    };
    let message = is_taken(HttpReceiver::builder().unsigned().plain_json(plain()), request()).await;
    assert_eq!(
        (message.event_type.as_str(), message.source.as_str(), message.key.as_deref()),
        ("invoice.sent", "/legacy", Some("7"))
    );
    let kept: Vec<_> = message.headers.iter().collect();
    assert_eq!((kept, &message.payload[..]), (vec![("originalid", "I-1")], &b"{\"n\":1}"[..]));
    // An event is still an event.
    is_taken(
        HttpReceiver::builder().unsigned().plain_json(plain()),
        Request::binary().and("x-event", "other"),
    )
    .await;
    are_refused(
        HttpReceiver::builder().unsigned().plain_json(plain()),
        [
            ("no type", request().without("x-event"), 400),
            ("no id", request().without("webhook-id"), 400),
            ("no JSON", request().body("n: 1"), 400),
            ("two types", request().and("x-event", "other"), 400),
        ],
    )
    .await;
    are_refused(HttpReceiver::builder().unsigned(), [("not configured", request(), 400)]).await;
    let both = HttpReceiver::builder().unsigned().plain_json(plain()).structured_only().build();
    assert!(both.expect_err("one excludes the other").to_string().contains("structured_only"));
    let signed =
        verifying().plain_json(plain()).build().expect_err("its headers are under no signature");
    assert!(signed.to_string().contains("say what it is with webhook"), "{signed}");
}

#[tokio::test]
async fn what_is_unsigned_or_signed_wrongly_is_refused() {
    let right = || Request::binary().signed();
    let signature = |value: &str| right().with("webhook-signature", value);
    let real = Secret::parse(SECRET).expect("a secret").sign(ID, now(), &Request::binary().body);
    let many = vec!["v1,AAAA"; 16].join(" ") + " " + &real;
    are_refused(
        verifying(),
        [
            ("no signature at all", Request::binary(), 401),
            ("no id", right().without("webhook-id"), 401),
            ("no timestamp", right().without("webhook-timestamp"), 401),
            ("no signature", right().without("webhook-signature"), 401),
            ("an empty signature", signature(""), 401),
            ("another key", Request::binary().signed_by(OTHER_SECRET, ID, now()), 401),
            ("another body", right().body("{\"n\":2}"), 401),
            ("an empty body", right().body(""), 401),
            ("a longer body", right().body("{\"n\":1} "), 401),
            ("another timestamp", right().with("webhook-timestamp", &(now() + 1).to_string()), 401),
            ("another id", right().with("webhook-id", "01890a5d-ac96-774b-bcce-b302099a8058"), 401),
            ("a signature without content", signature("v1,"), 401),
            ("a signature of another version", signature(&real.replace("v1,", "v2,")), 401),
            ("an asymmetric signature", signature(&real.replace("v1,", "v1a,")), 401),
            ("a signature without version", signature(&real.replace("v1,", "")), 401),
            ("half a signature", signature(&real[..23]), 401),
            ("a signature that is no base64", signature("v1,####"), 401),
            ("a signature with a byte more", signature(&format!("{real}AAAA")), 401),
            ("a signature behind more than are read", signature(&many), 401),
            ("two ids", right().and("webhook-id", ID), 401),
            ("two timestamps", right().and("webhook-timestamp", "1"), 401),
            ("an empty id", Request::binary().signed_by(SECRET, "", now()), 401),
            ("an id with a dot", Request::binary().signed_by(SECRET, "a.b", now()), 401),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_signature_among_others_fits() {
    let request = Request::binary().signed();
    let real = request.headers.last().expect("a signature").1.clone();
    for value in [
        format!("v1a,AAAA v2,BBBB v1,#### v1, {real}"),
        format!("{real} {real}"),
        format!(" {real} "),
    ] {
        is_taken(verifying(), request.clone().with("webhook-signature", &value)).await;
    }
    is_taken(
        verifying(),
        request.clone().with("webhook-signature", "v1,AAAA").and("webhook-signature", &real),
    )
    .await;
}

#[tokio::test]
async fn a_stale_or_unreadable_timestamp_is_refused() {
    let at = |timestamp: u64| Request::binary().signed_by(SECRET, ID, timestamp);
    let written = |timestamp: &str| at(now()).with("webhook-timestamp", timestamp);
    are_refused(
        verifying(),
        [
            ("too old", at(now() - 302), 401),
            ("too far ahead", at(now() + 310), 401),
            ("the beginning of time", at(0), 401),
            ("the end of time", at(u64::MAX), 401),
            ("no number", written("yesterday"), 401),
            ("nothing", written(""), 401),
            ("a sign", written(&format!("+{}", now())), 401),
            ("a fraction", written(&format!("{}.0", now())), 401),
            ("milliseconds", written(&format!("{}000", now())), 401),
            ("more digits than a number has", written("99999999999999999999999999"), 401),
        ],
    )
    .await;
    are_refused(
        verifying().tolerance(Duration::from_secs(10)),
        [("too old for this one", at(now() - 60), 401)],
    )
    .await;
    is_taken(verifying(), at(now() - 290)).await;
    is_taken(verifying(), at(now() + 290)).await;
    is_taken(verifying().tolerance(Duration::from_secs(1000)), at(now() - 900)).await;
}

#[tokio::test]
async fn a_recorded_request_cannot_come_as_another_message() {
    const OTHER: &str = "01890a5d-ac96-774b-bcce-000000000000";
    let recorded = Request::binary().signed();
    are_refused(
        verifying(),
        [
            ("another ce-id", recorded.clone().with("ce-id", OTHER), 401),
            (
                "another ce-id that claims to be the first",
                recorded.clone().with("ce-id", OTHER).and("ce-originalid", ID),
                401,
            ),
            (
                "an event signed under another id",
                Request::binary().with("ce-id", OTHER).signed(),
                400,
            ),
            (
                "an id signed for another message",
                Request::structured().signed_by(SECRET, OTHER, now()),
                400,
            ),
        ],
    )
    .await;
    // The same request again is the same message again, for the inbox to suppress.
    let (server, mut subscriber) = receiver(verifying()).await;
    for _ in 0..2 {
        let (response, id) = tokio::join!(recorded.send(&server), async {
            let delivery = next(&mut subscriber).await;
            let id = delivery.message.as_ref().expect("readable").id.to_string();
            delivery.ack().await.expect("the sender waits");
            id
        });
        assert_eq!((response.status, id.as_str()), (204, ID));
    }
}

#[tokio::test]
async fn a_strangers_id_is_the_webhooks_id() {
    let request = Request::binary().with("ce-id", "evt_1").signed_by(SECRET, "evt_1", now());
    let message = is_taken(verifying(), request).await;
    assert_eq!(message.headers.get("originalid"), Some("evt_1"));
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let limited = || HttpReceiver::builder().unsigned().max_body(100).max_headers(20, 2_000);
    let mut announced = Request::binary().and("content-length", "101");
    announced.length = false;
    let mut chunked = Request::binary().and("transfer-encoding", "chunked");
    chunked.length = false;
    let mut endless = Request::binary().and("content-length", "99999999999999999999");
    endless.length = false;
    let chunks = |bytes: usize| format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "1".repeat(bytes));
    let mut many = Request::binary();
    for n in 0..20 {
        many = many.and(&format!("x-{n}"), "");
    }
    are_refused(
        limited(),
        [
            ("a body that is announced too large", announced.body("x".repeat(101)), 413),
            ("a body that grows too large", chunked.clone().body(chunks(101)), 413),
            ("a length that is no number", endless, 400),
            ("too many headers", many, 431),
            ("too many bytes of headers", Request::binary().and("x-long", &"x".repeat(2_000)), 431),
        ],
    )
    .await;
    is_taken(limited(), Request::binary().body("1".repeat(100))).await;
    is_taken(limited(), chunked.body(chunks(100))).await;
    let mut hundred = Request::binary();
    for n in 0..120 {
        hundred = hundred.and(&format!("x-{n}"), "");
    }
    are_refused(verifying(), [("more headers than the server reads", hundred, 431)]).await;
    const MOST: usize = 3 * 512 * 1024;
    let more = Request::binary().body("1".repeat(MOST + 1)).signed();
    are_refused(verifying(), [("more than 1.5 MiB by default", more, 413)]).await;
    is_taken(verifying(), Request::binary().body("1".repeat(MOST)).signed()).await;
}

#[tokio::test]
async fn other_media_are_refused() {
    let media = |value: &str| Request::structured().with("content-type", value).signed();
    are_refused(
        verifying(),
        [
            ("a batch", media("application/cloudevents-batch+json"), 415),
            ("another format", media("application/cloudevents+xml"), 415),
            ("no format", media("application/cloudevents"), 415),
            ("another charset", media("application/cloudevents+json; charset=latin1"), 415),
            ("a compressed body", Request::binary().and("content-encoding", "gzip").signed(), 415),
        ],
    )
    .await;
    are_refused(
        verifying().structured_only(),
        [("binary mode where it is not wanted", Request::binary().signed(), 415)],
    )
    .await;
    is_taken(verifying().structured_only(), Request::structured().signed()).await;
    is_taken(verifying(), media("Application/CloudEvents+JSON;charset=\"utf-8\"")).await;
    is_taken(verifying(), Request::binary().and("content-encoding", "identity").signed()).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let binary = |name: &str, value: &str| Request::binary().with(name, value).signed();
    let json = |body: &str| Request::structured().body(body).signed();
    are_refused(
        verifying(),
        [
            ("no CloudEvent", Request::binary().without("ce-specversion").signed(), 400),
            ("no id", Request::binary().without("ce-id").signed(), 400),
            ("no source", Request::binary().without("ce-source").signed(), 400),
            ("no type", Request::binary().without("ce-type").signed(), 400),
            ("an older version", binary("ce-specversion", "0.3"), 400),
            ("a time that is none", binary("ce-time", "now"), 400),
            ("an overlong encoding", binary("ce-type", "%C0%A0"), 400),
            ("an encoded line break", binary("ce-type", "a%0D%0Ab"), 400),
            ("an encoded NUL", binary("ce-tenant", "%00"), 400),
            ("a name that no attribute has", binary("ce-my-own", "x"), 400),
            ("an attribute twice", Request::binary().and("ce-type", "x").signed(), 400),
            (
                "two content types",
                Request::binary().and("content-type", "text/plain").signed(),
                400,
            ),
            ("no JSON", json("{"), 400),
            ("no object", json("[]"), 400),
            ("nothing", json(""), 400),
            (
                "JSON that is no UTF-8",
                Request::structured().body(vec![b'{', 0xff, b'}']).signed(),
                400,
            ),
            (
                "a member twice",
                json(r#"{"specversion":"1.0","id":"a","id":"b","source":"s","type":"t"}"#),
                400,
            ),
            ("no type in JSON", json(r#"{"specversion":"1.0","id":"a","source":"s"}"#), 400),
        ],
    )
    .await;
    let mut get = Request::binary().signed();
    get.method = "GET";
    let mut elsewhere = Request::binary().signed();
    elsewhere.path = "/other".into();
    are_refused(verifying(), [("another method", get, 405), ("another path", elsewhere, 404)])
        .await;
}

#[tokio::test]
async fn a_refusal_says_why_and_quotes_nothing() {
    let (server, _subscriber) = receiver(verifying()).await;
    let response = Request::binary().with("ce-time", "canary-value").signed().send(&server).await;
    assert!(
        response.text.contains("the attribute `time` is no RFC 3339 time"),
        "{}",
        response.text
    );
    assert!(response.text.contains("outbox-reason: the%20attribute"), "{}", response.text);
    assert!(!response.text.contains("canary-value"), "{}", response.text);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (server, mut subscriber) =
        receiver(verifying().respond_within(Duration::from_millis(200))).await;
    let stream = Request::binary().signed().open(&server).await;
    let response = read_response(stream).await;
    assert_eq!(response.status, 408, "{}", response.text);
    assert_nothing_handed_out(&mut subscriber).await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_not_handed_out() {
    let (server, mut subscriber) = receiver(HttpReceiver::builder().unsigned()).await;
    let mut stream = Request::binary().open(&server).await;
    stream.write_all(b"{\"n\"").await.expect("the server reads");
    stream.shutdown().await.expect("the server reads");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    assert_nothing_handed_out(&mut subscriber).await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_asked_to_come_later() {
    let builder = verifying().max_in_flight(1).retry_after(Duration::from_secs(9));
    let (server, mut subscriber) = receiver(builder).await;
    let (first, second) = (Request::binary().signed(), Request::structured().signed());
    let busy = async {
        let held = next(&mut subscriber).await;
        let refused = second.send(&server).await;
        held.ack().await.expect("the sender waits");
        refused
    };
    let (taken, refused) = tokio::join!(first.send(&server), busy);
    assert_eq!((taken.status, refused.status), (204, 503));
    assert!(refused.text.contains("retry-after: 9"), "{}", refused.text);
    assert_nothing_handed_out(&mut subscriber).await;
}

#[tokio::test]
async fn a_stopped_subscriber_gives_the_pending_requests_and_accepts_no_more() {
    let (server, mut subscriber) = receiver(verifying()).await;
    let request = Request::binary().signed();
    let stop = async {
        let first = next(&mut subscriber).await;
        subscriber.stop();
        let refused = request.send(&server).await;
        assert_eq!(refused.status, 503, "{}", refused.text);
        first.ack().await.expect("the sender waits");
        assert!(subscriber.next().await.expect("no failure").is_none(), "closed");
    };
    let (response, ()) = tokio::join!(request.send(&server), stop);
    assert_eq!(response.status, 204);
    drop(subscriber);
    assert_eq!(request.send(&server).await.status, 503);
}

/// Tells a channel when it is dropped.
struct Left(mpsc::UnboundedSender<()>);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn the_receiver_drops_a_request_whose_sender_has_gone() {
    let (left, mut leaving) = mpsc::unbounded_channel();
    let (entered, mut entering) = mpsc::unbounded_channel();
    let (router, mut subscriber) = verifying().max_in_flight(1).build().expect("configured");
    let watched =
        middleware::from_fn(move |request: axum::extract::Request, next: middleware::Next| {
            let (entered, left) = (entered.clone(), Left(left.clone()));
            let read = move |frame| {
                entered.send(()).expect("the test listens");
                frame
            };
            async move {
                let _left = left;
                next.run(request.map(|body| Body::new(body.map_frame(read)))).await
            }
        });
    let server = serve(router.layer(watched)).await;
    let request = Request::binary().signed();
    let mut impatient = request.open(&server).await;
    impatient.write_all(&request.body).await.expect("the server reads");
    // The receiver reads the body and takes the permit in one step.
    entering.recv().await.expect("the request has come");
    assert_eq!(
        request.send(&server).await.status,
        503,
        "the only permit is taken, and no handler decides"
    );
    leaving.recv().await.expect("the refused request has left");
    drop(impatient);
    leaving.recv().await.expect("the server has noticed");
    assert_nothing_handed_out(&mut subscriber).await;
    let (response, _) =
        tokio::join!(request.send(&server), async { next(&mut subscriber).await.ack().await });
    assert_eq!(response.status, 204, "its permit is free again");
}
