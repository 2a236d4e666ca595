//! What is configured wrong is reported at once, all of it, and loses no message.

use crate::support::{SECRET, message};
use outbox_core::{
    failure::FailureClass,
    transport::{Limits, Publisher},
};
use outbox_http::{ConfigFault, HttpPublisher, HttpReceiver, SecretError};
use std::time::Duration;

#[test]
fn a_publisher_reports_all_its_faults_together() {
    let publisher = HttpPublisher::new("http://10.0.0.1/")
        .expect("a URL")
        .signed("not a secret")
        .signed(SECRET)
        .signed("whsec_AAAA")
        .allow_subnet("10.0.0.0/33")
        .header("content-type", "text/plain")
        .header("x good", "1")
        .header("outbox-signature", "v1,AAAA")
        .header("x-good", "a\r\nb")
        .timeout(Duration::ZERO)
        .max_connections(0);
    let error = publisher.build().expect_err("wrong");
    let faults = error.faults();
    assert!(faults.contains(&ConfigFault::Secret { number: 1, problem: SecretError::Prefix }));
    assert!(faults.contains(&ConfigFault::Secret { number: 3, problem: SecretError::Length(3) }));
    assert!(faults.contains(&ConfigFault::Subnet("10.0.0.0/33".into())));
    assert!(faults.iter().any(|f| matches!(f, ConfigFault::Address { what: "private", .. })));
    let headers = faults.iter().filter(|f| matches!(f, ConfigFault::Header { .. })).count();
    let ranges = faults.iter().filter(|f| matches!(f, ConfigFault::Range { .. })).count();
    assert_eq!((headers, ranges >= 2), (4, true), "{faults:?}");
    let text = error.to_string();
    assert!(text.contains("number 3") && text.contains("10.0.0.0/33"), "{text}");
}

#[test]
fn a_url_that_is_none_of_http_is_refused_at_once() {
    for url in [
        "",
        "billing.example/events",
        "ftp://billing.example/",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
    ] {
        assert!(HttpPublisher::new(url).is_err(), "{url}");
    }
}

#[test]
fn a_certificate_that_is_none_is_refused() {
    let publisher = HttpPublisher::new("https://billing.example/").expect("a URL").trust("no PEM");
    let error = publisher.build().expect_err("wrong");
    assert!(matches!(error.faults(), [ConfigFault::Tls(_)]), "{error}");
}

#[tokio::test]
async fn a_publisher_that_is_wrong_loses_no_message() {
    let publisher = HttpPublisher::new("http://10.0.0.1/").expect("a URL").signed("typo");
    let error = publisher.publish(&message()).await.expect_err("wrong");
    assert_eq!(error.class(), FailureClass::Unavailable);
    assert!(error.to_string().contains("whsec_"), "{error}");
    let checked = publisher.check().expect_err("the relay hears of it when it starts");
    assert_eq!(checked.to_string(), error.to_string());
    assert_eq!(checked.class(), FailureClass::Permanent, "a relay does not start with it");
}

#[test]
fn what_is_configured_after_a_build_counts_too() {
    let publisher = HttpPublisher::new("http://127.0.0.1/")
        .expect("a URL")
        .allow_loopback()
        .build()
        .expect("right");
    let error = publisher.signed("typo").build().expect_err("wrong");
    assert_eq!(error.faults().len(), 1, "{error}");
}

#[test]
fn limits_are_what_was_set() {
    let publisher = HttpPublisher::new("https://billing.example/").expect("a URL");
    assert_eq!((publisher.limits().max_batch, publisher.limits().max_in_flight), (64, 4));
    let limits = Limits::default().max_payload(1000).max_batch(8).max_in_flight(2);
    assert_eq!(publisher.with_limits(limits).limits(), limits);
}

#[test]
fn a_receiver_says_whom_it_trusts_or_is_not_built() {
    let neither = HttpReceiver::builder().build().map(|_| ()).expect_err("wrong");
    assert_eq!(neither.faults(), [ConfigFault::Unverified]);
    let both =
        HttpReceiver::builder().verify(SECRET).unsigned().build().map(|_| ()).expect_err("wrong");
    assert_eq!(both.faults(), [ConfigFault::Contradiction]);
    let unreadable = HttpReceiver::builder().verify("typo").build().map(|_| ()).expect_err("wrong");
    assert_eq!(
        unreadable.faults(),
        [ConfigFault::Secret { number: 1, problem: SecretError::Prefix }]
    );
    assert!(HttpReceiver::builder().unsigned().build().is_ok());
    assert!(HttpReceiver::builder().verify(SECRET).build().is_ok());
}

#[test]
fn a_receiver_reports_all_its_faults_together() {
    let builder = HttpReceiver::builder().path("events/{id}").verify("whsec_!").topic("");
    let builder =
        builder.max_body(0).max_headers(0, 0).respond_within(Duration::ZERO).max_in_flight(0);
    let error = builder.build().map(|_| ()).expect_err("wrong");
    let ranges = error.faults().iter().filter(|f| matches!(f, ConfigFault::Range { .. })).count();
    assert_eq!((error.faults().len(), ranges), (8, 6), "{error}");
    assert!(error.faults().contains(&ConfigFault::Path("events/{id}".into())));
    assert!(
        error.faults().contains(&ConfigFault::Secret { number: 1, problem: SecretError::Base64 })
    );
}

#[test]
fn relays_compare_host_and_path_and_no_secret() {
    let to = |url: &str| HttpPublisher::new(url).expect("a URL").destination();
    let billing = to("https://billing.example:8443/events");
    assert!(
        billing.as_ref().is_some_and(|to| to.starts_with("billing.example:8443/#")),
        "{billing:?}"
    );
    assert_eq!(to("https://ann:canary@billing.example:8443/events?token=canary#canary"), billing);
    assert_eq!(
        HttpPublisher::new("https://billing.example:8443/events")
            .expect("a URL")
            .signed("canary")
            .destination(),
        billing
    );
    assert_ne!(to("https://billing.example:8443/event"), billing);
    assert_ne!(to("https://billing.test:8443/events"), billing);
}

#[test]
fn a_receiver_of_webhooks_says_how_they_are_signed_and_what_they_are() {
    let long = "x".repeat(256);
    let webhook = |event_type: &str, source: &str| {
        HttpReceiver::builder().verify(SECRET).webhook(event_type, source)
    };
    assert!(webhook("billing.webhook", "https://billing.example").build().is_ok());
    for (builder, rule) in [
        (HttpReceiver::builder().unsigned().webhook("a", "/b"), "needs verify"),
        (webhook("a", "/b").structured_only(), "is not taken with structured_only"),
        (webhook("", "/b"), "1 to 255 bytes"),
        (webhook("a", ""), "1 to 255 bytes"),
        (webhook("a", &long), "1 to 255 bytes"),
        (webhook("a\nb", "/b"), "without control characters"),
    ] {
        let error = builder.build().map(|_| ()).expect_err(rule);
        assert!(error.faults().len() == 1 && error.to_string().contains(rule), "{error}");
    }
}
