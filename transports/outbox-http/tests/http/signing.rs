//! Signatures: the standard's own, computed elsewhere, and keys that change.

use crate::support::{OTHER_SECRET, SECRET, message, serve, serve_raw};
use outbox_core::{
    failure::FailureClass,
    transport::{Publisher, Subscriber},
};
use outbox_http::{HttpPublisher, HttpReceiver, Secret, SecretError};
use tokio::{io::AsyncWriteExt, sync::mpsc};

const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn signatures_are_those_of_the_standard() {
    let contact: &[u8] = br#"{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"1f81eb52-5198-4599-803e-771906343485"}}"#;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let longest = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
    // Computed with Python's hmac, hashlib and base64.
    for (secret, id, timestamp, body, expected) in [
        (
            STANDARD_SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            &b"{\"test\": 2432232314}"[..],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            STANDARD_SECRET,
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
            1_674_087_231,
            contact,
            "v1,ARw42xaAApl/nxRo+iPGYwSaMQaOwMo2eyH5JBRA+bQ=",
        ),
        (
            STANDARD_SECRET,
            "01890a5d-ac96-774b-bcce-b302099a8057",
            0,
            b"",
            "v1,L6eLKJF4mA3Q3zbcVR+rM6AB2BC6cBRpQy3bzOYBx+E=",
        ),
        (
            STANDARD_SECRET,
            "01890a5d-ac96-774b-bcce-b302099a8057",
            1_700_000_000,
            &all_bytes,
            "v1,dUrqzFVq6wW6XLf7DTLTjDfow9U59wp4lDYEM1KciGY=",
        ),
        (
            longest,
            "a",
            u64::MAX,
            "größe".as_bytes(),
            "v1,VwX75BKsjQacXkslJUtvKM8G0lvOC2RuyuRFlCWY+Oc=",
        ),
    ] {
        assert_eq!(
            Secret::parse(secret).expect("a secret").sign(id, timestamp, body),
            expected,
            "{id}"
        );
    }
}

#[test]
fn a_secret_is_read_with_or_without_padding_and_refused_otherwise() {
    let signed = |text: &str| Secret::parse(text).map(|secret| secret.sign("a", 1, b"b"));
    let padded = format!("whsec_{}==", "A".repeat(42));
    assert_eq!(signed(&padded), signed(padded.trim_end_matches('=')));
    assert!(signed(&padded).is_ok());
    for (text, problem) in [
        ("", SecretError::Prefix),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
        ("whsec_", SecretError::Length(0)),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La", SecretError::Length(21)),
        ("whsec_Mf-Q9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Base64),
    ] {
        assert_eq!(Secret::parse(text).map(|_| ()), Err(problem), "{text}");
    }
    let long = format!("whsec_{}", "A".repeat(88));
    assert_eq!(Secret::parse(&long).map(|_| ()), Err(SecretError::Length(66)));
}

#[tokio::test]
async fn keys_change_without_a_gap_on_both_sides() {
    const THIRD: &str = STANDARD_SECRET;
    for (signs, verifies, fits) in [
        (&[SECRET][..], &[SECRET][..], true),
        (&[SECRET], &[OTHER_SECRET, SECRET], true),
        (&[SECRET, OTHER_SECRET], &[SECRET], true),
        (&[SECRET, OTHER_SECRET], &[OTHER_SECRET], true),
        (&[SECRET, OTHER_SECRET], &[THIRD, OTHER_SECRET], true),
        (&[SECRET], &[OTHER_SECRET], false),
        (&[SECRET, OTHER_SECRET], &[THIRD], false),
        (&[], &[SECRET], false),
    ] {
        let receiver =
            verifies.iter().fold(HttpReceiver::builder(), |builder, secret| builder.verify(secret));
        let (router, mut subscriber) = receiver.build().expect("configured");
        let server = serve(router).await;
        let publisher = signs.iter().fold(server.publisher(), HttpPublisher::signed);
        let sent = message();
        let result = tokio::select! {
            result = publisher.publish(&sent) => result,
            never = async {
                let delivery = subscriber.next().await.expect("open").expect("a delivery");
                assert!(fits, "what is not signed right is not handed out");
                delivery.ack().await.expect("the sender waits");
                std::future::pending().await
            } => never,
        };
        match result {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert_eq!((fits, error.class()), (false, FailureClass::Unavailable), "{error}")
            }
        }
    }
}

#[tokio::test]
async fn a_repeat_is_signed_anew_over_the_same_bytes() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let server = serve_raw(move |mut stream| {
        let seen = seen.clone();
        async move {
            let request = crate::support::read_request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 500 X\r\nconnection: close\r\n\r\n")
                .await
                .expect("the client reads");
            seen.send(request).expect("the test listens");
        }
    })
    .await;
    let (publisher, sent) = (server.publisher().signed(STANDARD_SECRET).signed(SECRET), message());
    let secret = Secret::parse(STANDARD_SECRET).expect("a secret");
    for _ in 0..2 {
        assert!(publisher.publish(&sent).await.is_err());
        let request = requests.recv().await.expect("a request");
        let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} is missing in {head}")).to_owned()
        };
        assert_eq!(body.as_bytes(), &sent.payload[..]);
        assert_eq!(header("webhook-id"), sent.id.to_string());
        let timestamp = header("webhook-timestamp").parse().expect("seconds");
        let signatures = header("webhook-signature");
        let expected = secret.sign(&sent.id.to_string(), timestamp, body.as_bytes());
        assert_eq!(signatures.split(' ').next(), Some(expected.as_str()));
        assert_eq!(signatures.split(' ').count(), 2, "one for each key");
    }
}
