//! What stands beside a body: taken as it was signed, or not at all.

use crate::{
    support::{OTHER_SECRET, SECRET, Server, message_with, read_request, serve_raw},
    wire::{ID, Request, now, receiver},
};
use outbox_core::{
    event::Message,
    transport::{Publisher, Subscriber},
};
use outbox_http::{HttpPublisher, HttpReceiver, HttpSubscriber, ReceiverBuilder, Secret};
use std::time::Duration;
use tokio::{io::AsyncWriteExt, sync::mpsc};

fn verifying() -> ReceiverBuilder {
    HttpReceiver::builder().verify(SECRET)
}

/// A command of a saga with every attribute that an event may have.
fn command() -> Message {
    message_with(|parts| {
        for (name, value) in [
            ("sagaid", "01890a5d-ac96-774b-bcce-b302099a8057"),
            ("sagastep", "charge"),
            ("sagaround", "1"),
            ("sagaphase", "do"),
            ("replyto", "orders.replies"),
            ("empty", ""),
            ("odd", "a,b:3;\"c\" %41 \\ é"),
        ] {
            parts.headers.insert(name, value).expect("legal");
        }
    })
}

/// Records the request by which a publisher sends a message.
async fn recorded(
    message: &Message,
    refine: impl FnOnce(HttpPublisher) -> HttpPublisher,
) -> Request {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let server = serve_raw(move |mut stream| {
        let seen = seen.clone();
        async move {
            let request = read_request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n")
                .await
                .expect("the client reads");
            seen.send(request).expect("the test listens");
        }
    })
    .await;
    refine(server.publisher()).publish(message).await.expect("confirmed");
    let text = requests.recv().await.expect("a request");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let headers = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(n, _)| *n != "content-length");
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Request { method: "POST", path: "/events".into(), headers, body: body.into(), length: true }
}

/// Sends a request; gives the status, and the message where it was handed out.
async fn sent(
    request: &Request,
    server: &Server,
    subscriber: &mut HttpSubscriber,
) -> (u16, Option<Message>) {
    let response = request.send(server);
    tokio::pin!(response);
    tokio::select! {
        response = &mut response => {
            let next = tokio::time::timeout(Duration::ZERO, subscriber.next()).await;
            assert!(next.is_err(), "what is refused is not handed out: {next:?}");
            (response.status, None)
        }
        delivery = subscriber.next() => {
            let delivery = delivery.expect("open").expect("a delivery");
            let message = delivery.message.clone().expect("readable");
            delivery.ack().await.expect("the sender waits");
            (response.await.status, Some(message))
        }
    }
}

#[tokio::test]
async fn a_recorded_request_is_refused_with_any_attribute_changed_taken_away_added_or_repeated() {
    let command = command();
    let request = recorded(&command, |publisher| publisher.signed(SECRET)).await;
    let (server, mut subscriber) = receiver(verifying()).await;
    assert_eq!(
        sent(&request, &server, &mut subscriber).await,
        (204, Some(command.clone())),
        "it is taken as it was"
    );
    let names: Vec<String> = request.headers.iter().map(|(name, _)| name.clone()).collect();
    let of_event = |name: &&String| name.starts_with("ce-") || *name == "content-type";
    let attributes: Vec<&String> = names.iter().filter(of_event).collect();
    for name in [
        "id",
        "source",
        "type",
        "eventversion",
        "partitionkey",
        "topic",
        "sagaid",
        "sagastep",
        "replyto",
    ] {
        assert!(
            attributes.contains(&&format!("ce-{name}")),
            "{name} is among them: {attributes:?}"
        );
    }
    for name in attributes {
        let value =
            &request.headers.iter().find(|(other, _)| other == name).expect("it is there").1;
        for (what, spoiled) in [
            ("changed", request.clone().with(name, &format!("{value}x"))),
            ("emptied", request.clone().with(name, "")),
            ("taken away", request.clone().without(name)),
            ("repeated", request.clone().and(name, value)),
            (
                "renamed",
                request
                    .clone()
                    .without(name)
                    .and(&format!("{name}x").replace("content-typex", "ce-x"), value),
            ),
        ] {
            if what == "emptied" && value.is_empty() {
                continue;
            }
            assert_eq!(
                sent(&spoiled, &server, &mut subscriber).await,
                (401, None),
                "{name} {what}"
            );
        }
    }
    for (name, value) in
        [("ce-added", "x"), ("ce-", "x"), ("ce-sagaround", "2"), ("ce-deliverat", "")]
    {
        let spoiled = request.clone().and(name, value);
        assert_eq!(sent(&spoiled, &server, &mut subscriber).await, (401, None), "{name} added");
    }
    // Two values that change places are two other attributes.
    let swapped = request.clone().with("ce-source", "order.placed").with("ce-type", "/shop");
    assert_eq!(sent(&swapped, &server, &mut subscriber).await, (401, None));
}

#[tokio::test]
async fn a_recorded_request_in_structured_mode_is_refused_with_any_attribute_changed() {
    let command = command();
    let request = recorded(&command, |publisher| publisher.signed(SECRET).structured()).await;
    let (server, mut subscriber) = receiver(verifying()).await;
    assert_eq!(
        sent(&request, &server, &mut subscriber).await,
        (204, Some(command.clone())),
        "it is taken as it was"
    );
    let event: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&request.body).expect("JSON");
    for name in event.keys().filter(|name| *name != "data") {
        for value in [Some("x"), None] {
            let mut spoiled = event.clone();
            spoiled.remove(name);
            spoiled.extend(value.map(|value| (name.clone(), value.into())));
            let spoiled = request.clone().body(serde_json::to_vec(&spoiled).expect("JSON"));
            assert_eq!(
                sent(&spoiled, &server, &mut subscriber).await,
                (401, None),
                "{name} {value:?}"
            );
        }
    }
    // Attributes in headers say nothing about an event that has its own.
    let beside = request.clone().and("ce-source", "/stranger").and("ce-replyto", "stranger");
    assert_eq!(sent(&beside, &server, &mut subscriber).await, (204, Some(command)));
    let as_binary =
        request.clone().with("content-type", "application/json").and("ce-source", "/stranger");
    assert_eq!(
        sent(&as_binary, &server, &mut subscriber).await,
        (401, None),
        "read in the other mode"
    );
}

#[tokio::test]
async fn a_signature_of_attributes_fits_its_own_request_only() {
    let (server, mut subscriber) = receiver(verifying()).await;
    let (right, at) = (Request::binary().signed(), now());
    let of = |request: &Request| {
        let found = request.headers.iter().find(|(name, _)| name == "outbox-signature");
        found.expect("it is signed").1.clone()
    };
    let real = of(&right);
    let lent = |from: Request| right.clone().with("outbox-signature", &of(&from));
    let key = Secret::parse(SECRET).expect("a secret");
    let many = vec!["v1,AAAA"; 16].join(" ") + " " + &real;
    for (what, request) in [
        ("none", right.clone().without("outbox-signature")),
        ("an empty one", right.clone().with("outbox-signature", "")),
        ("of another body", lent(Request::binary().body("{\"n\":2}").signed())),
        ("of another instant", lent(Request::binary().signed_by(SECRET, ID, at - 60))),
        (
            "of another id",
            lent(Request::binary().signed_by(SECRET, "01890a5d-ac96-774b-bcce-b302099a8058", at)),
        ),
        ("of another key", lent(Request::binary().signed_by(OTHER_SECRET, ID, at))),
        ("the standard's", right.clone().with("outbox-signature", &key.sign(ID, at, b"{\"n\":1}"))),
        ("for the standard's", right.clone().with("webhook-signature", &real)),
        ("of another version", right.clone().with("outbox-signature", &real.replace("v1,", "v2,"))),
        ("half of it", right.clone().with("outbox-signature", &real[..20])),
        ("no base64", right.clone().with("outbox-signature", "v1,####")),
        ("no text", right.clone().with("outbox-signature", "v1,é")),
        ("behind more than are read", right.clone().with("outbox-signature", &many)),
    ] {
        assert_eq!(sent(&request, &server, &mut subscriber).await, (401, None), "{what}");
    }
    let long = right.clone().with("outbox-signature", &"v1,AAAA ".repeat(4_000));
    assert_eq!(
        sent(&long, &server, &mut subscriber).await,
        (431, None),
        "a longer one than headers may be"
    );
    for request in [
        right.clone().with("outbox-signature", &format!("v2,BBBB v1,AAAA {real}")),
        right.clone().with("outbox-signature", "v1,AAAA").and("outbox-signature", &real),
    ] {
        assert_eq!(sent(&request, &server, &mut subscriber).await.0, 204, "one among others fits");
    }
}

#[tokio::test]
async fn what_no_header_value_holds_is_refused_signed_or_not() {
    let (server, mut subscriber) = receiver(verifying()).await;
    for (what, request) in [
        ("no UTF-8", Request::binary().and("ce-tenant", "%FF%FE").signed()),
        ("a line end", Request::binary().and("ce-tenant", "a%0Ab").signed()),
        ("a name with a dash", Request::binary().and("ce-my-own", "x").signed()),
        ("an envelope's name", Request::binary().and("ce-data", "x").signed()),
        ("twice", Request::binary().and("ce-tenant", "a").and("ce-tenant", "b").signed()),
        ("too long", Request::binary().with("ce-type", &"x".repeat(256)).signed()),
    ] {
        assert_eq!(sent(&request, &server, &mut subscriber).await, (400, None), "{what}");
    }
    let (taken, message) =
        sent(&Request::binary().and("ce-tenant", "").signed(), &server, &mut subscriber).await;
    assert_eq!((taken, message.expect("handed out").headers.get("tenant")), (204, Some("")));
}

#[tokio::test]
async fn a_content_type_with_space_around_it_arrives_as_it_is_signed() {
    let (server, mut subscriber) = receiver(verifying()).await;
    let sent = message_with(|m| m.content_type = " application/json; charset=\"utf-8\" ".into());
    let publisher = server.publisher().signed(SECRET);
    let (result, content_type) = tokio::join!(publisher.publish(&sent), async {
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        let content_type = delivery.message.as_ref().expect("readable").content_type.clone();
        delivery.ack().await.expect("the sender waits");
        content_type
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(content_type, "application/json; charset=\"utf-8\"");
}

#[tokio::test]
async fn a_webhook_is_what_its_receiver_says_whatever_its_headers_say() {
    let webhook = || verifying().webhook("billing.webhook", "https://billing.example");
    let (server, mut subscriber) = receiver(webhook()).await;
    let bare = Request { headers: vec![("host".into(), "localhost".into())], ..Request::binary() };
    let stranger = recorded(&command(), |publisher| publisher).await;
    for (what, request) in [
        ("without any attribute", bare.clone()),
        ("with every attribute that there is", stranger.body("{\"n\":1}")),
        ("with a body of another form", bare.clone().and("content-type", "text/plain")),
        (
            "with attributes that nobody can read",
            bare.and("ce-type", "%FF").and("ce-type", "é").and("content-type", "é"),
        ),
    ] {
        let request = request.body_signed_by(SECRET, "msg_1", now());
        let (status, message) = sent(&request, &server, &mut subscriber).await;
        let message = message.unwrap_or_else(|| panic!("{what} is taken, not answered {status}"));
        assert_eq!(
            (message.event_type.as_str(), message.source.as_str()),
            ("billing.webhook", "https://billing.example")
        );
        assert_eq!(
            (message.event_version, message.key.as_deref(), &*message.topic),
            (1, None, "billing.webhook"),
            "{what}"
        );
        assert_eq!(
            (&*message.content_type, &message.payload[..]),
            ("application/json", &b"{\"n\":1}"[..]),
            "{what}"
        );
        assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("originalid", "msg_1")], "{what}");
        assert_eq!(message.created_at.as_micros() % 1_000_000, 0, "the signed instant");
    }
    let event = Request::binary().signed();
    assert_eq!(sent(&event, &server, &mut subscriber).await, (415, None), "an outbox's event");
    let unsigned = Request::binary();
    assert_eq!(
        sent(&unsigned, &server, &mut subscriber).await,
        (401, None),
        "a body that is not signed"
    );
    let structured = Request::structured().body_signed_by(SECRET, ID, now());
    assert_eq!(
        sent(&structured, &server, &mut subscriber).await,
        (415, None),
        "an outbox's event in structured mode"
    );
}

#[test]
fn the_form_of_signed_attributes_is_the_documented_one() {
    let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
    let attributes = [
        ("specversion", "1.0"),
        ("id", ID),
        ("source", "/shop"),
        ("type", "order.placed"),
        ("partitionkey", "Zoë, 7"),
        ("tenant", ""),
        ("datacontenttype", "application/json"),
    ];
    // Computed with the Python of the crate's documentation.
    let signed = secret.sign_attributes(ID, 1_700_000_000, b"{\"n\":1}", attributes);
    assert_eq!(signed, "v1,jZHWMb29WD/rNRJ4eJA35p499iUPzIL4mKsggUTsfKc=");
    let reversed =
        secret.sign_attributes(ID, 1_700_000_000, b"{\"n\":1}", attributes.into_iter().rev());
    assert_eq!(reversed, signed, "in any order");
    assert_eq!(
        secret.sign_attributes("a", 0, b"", []),
        "v1,0nS8qN2NsDz12+SrB8F48URaj2nDx+sjzAp2L2Yo7UI="
    );
}
