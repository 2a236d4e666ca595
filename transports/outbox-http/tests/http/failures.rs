//! Which failure is which: every row of the table of responses, and every way to get none.

use crate::support::{closed_port, message, message_with, read_request, serve_raw, serve_response};
use outbox_core::{
    failure::FailureClass::{self, Permanent, Transient, Unavailable},
    transport::{PublishError, Publisher, publish_all},
};
use outbox_http::{HttpPublisher, Resolver};
use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

async fn failure(publisher: &HttpPublisher) -> PublishError {
    publisher.publish(&message()).await.expect_err("the message was not confirmed")
}

/// Leaks a response with a status and further header lines, as the servers take static ones.
fn response(status: u16, headers: &str) -> &'static str {
    let text =
        format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n");
    Box::leak(text.into_boxed_str())
}

async fn all_are(class: FailureClass, statuses: impl IntoIterator<Item = u16>) {
    for status in statuses {
        let server = serve_response(response(status, "")).await;
        let error = failure(&server.publisher()).await;
        assert_eq!(error.class(), class, "{status}: {error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
}

#[tokio::test]
async fn every_2xx_confirms() {
    for status in [200, 201, 202, 204, 206, 299] {
        let server = serve_response(response(status, "")).await;
        assert!(server.publisher().publish(&message()).await.is_ok(), "{status}");
    }
}

#[tokio::test]
async fn responses_about_the_message_are_permanent() {
    all_are(Permanent, [300, 301, 302, 303, 304, 307, 308]).await;
    all_are(Permanent, [400, 404, 405, 409, 410, 413, 415, 422]).await;
    all_are(Permanent, [402, 406, 411, 412, 414, 416, 418, 421, 423, 424, 426, 428, 431, 451, 499])
        .await;
}

#[tokio::test]
async fn responses_that_ask_for_a_retry_are_transient() {
    all_are(Transient, [408, 425, 429, 500, 502, 503, 504]).await;
    all_are(Transient, [501, 505, 507, 511, 599]).await;
}

#[tokio::test]
async fn responses_that_refuse_the_sender_mean_the_destination_is_unavailable() {
    all_are(Unavailable, [401, 403]).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hits);
    let target = serve_raw(move |mut stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            read_request(&mut stream).await;
            stream.write_all(response(204, "").as_bytes()).await.expect("the client reads");
        }
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let server =
            serve_response(response(status, &format!("location: {}\r\n", target.url()))).await;
        let error = failure(&server.publisher()).await;
        assert!(error.to_string().contains("redirects are not followed"), "{error}");
    }
    assert_eq!(hits.load(Ordering::Relaxed), 0);
    assert!(
        target.publisher().publish(&message()).await.is_ok(),
        "the target would have responded"
    );
    assert_eq!(hits.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_wait_that_the_destination_asks_for_is_passed_on() {
    const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for (status, headers, expected) in [
        (503, "retry-after: 17\r\n", Some(17)),
        (429, "retry-after: 0\r\n", Some(0)),
        (500, "retry-after:  5 \r\n", Some(5)),
        (503, &format!("{DATE}retry-after: Sun, 06 Nov 1994 08:51:37 GMT\r\n"), Some(120)),
        (503, &format!("{DATE}retry-after: Sunday, 06-Nov-94 08:50:37 GMT\r\n"), Some(60)),
        (503, &format!("{DATE}retry-after: Sun Nov  6 08:49:47 1994\r\n"), Some(10)),
        (503, &format!("{DATE}retry-after: Sun, 06 Nov 1994 08:00:00 GMT\r\n"), Some(0)),
        (503, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(0)),
        (503, "retry-after: 99999999999999999999999\r\n", Some(86_400)),
        (503, "retry-after: soon\r\n", None),
        (503, "retry-after: -1\r\n", None),
        (503, "retry-after: \r\n", None),
        (503, "", None),
        (422, "retry-after: 17\r\n", None),
    ] {
        let server = serve_response(response(status, headers)).await;
        let error = failure(&server.publisher()).await;
        assert_eq!(error.asked_to_wait(), expected.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn a_retry_date_without_a_date_header_is_compared_with_this_hosts_clock() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(100));
    let server = serve_response(response(503, &format!("retry-after: {date}\r\n"))).await;
    let wait = failure(&server.publisher()).await.asked_to_wait().expect("a wait");
    assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn a_refused_connection_means_unavailable() {
    let url = format!("http://{}/", closed_port().await);
    let publisher = HttpPublisher::new(url).expect("a URL").allow_loopback();
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "{}", error.full_text());
}

#[tokio::test]
async fn a_connection_that_is_reset_means_unavailable() {
    // Dropped with the request unread, a connection is reset.
    let server = serve_raw(|stream| async move { drop(stream) }).await;
    let error = failure(&server.publisher()).await;
    assert_eq!(error.class(), Unavailable, "{}", error.full_text());
}

#[tokio::test]
async fn a_connection_that_ends_without_a_response_means_unavailable() {
    for head in ["", "HTTP/1.1 20", "HTTP/1.1 204 No Content\r\nx: y"] {
        let server = serve_raw(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(head.as_bytes()).await.expect("the client reads");
            stream.shutdown().await.expect("the client reads");
        })
        .await;
        let error = failure(&server.publisher()).await;
        assert_eq!(error.class(), Unavailable, "{head:?}: {}", error.full_text());
    }
}

#[tokio::test]
async fn a_response_that_is_not_http_is_transient() {
    let server = serve_response("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let error = failure(&server.publisher()).await;
    assert_eq!(error.class(), Transient, "{}", error.full_text());
}

#[tokio::test]
async fn no_response_in_time_is_transient() {
    let server = serve_raw(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let began = Instant::now();
    let error = failure(&server.publisher().timeout(Duration::from_millis(200))).await;
    assert_eq!(error.class(), Transient, "{}", error.full_text());
    assert!(began.elapsed() < Duration::from_secs(5), "the timeout is kept");
}

#[tokio::test]
async fn a_connection_that_stays_silent_means_unavailable() {
    // TLS begins with a greeting that this server never answers.
    let server = serve_raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let publisher =
        HttpPublisher::new(format!("https://{}/", server.address)).expect("a URL").allow_loopback();
    let publisher =
        publisher.trust(crate::tls::authority().pem()).connect_timeout(Duration::from_millis(200));
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "{}", error.full_text());
}

struct NoSuchName;

#[async_trait::async_trait]
impl Resolver for NoSuchName {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other("no such name"))
    }
}

struct NoAddress;

#[async_trait::async_trait]
impl Resolver for NoAddress {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_means_unavailable() {
    let publisher = || HttpPublisher::new("http://billing.example/events").expect("a URL");
    let error = failure(&publisher().resolver(NoSuchName)).await;
    assert_eq!(error.class(), Unavailable);
    assert!(error.full_text().ends_with("no such name"), "{}", error.full_text());
    assert_eq!(failure(&publisher().resolver(NoAddress)).await.class(), Unavailable);
}

#[tokio::test]
async fn an_attribute_that_no_header_can_carry_is_permanent() {
    let server = serve_response(response(204, "")).await;
    let sent = message_with(|m| m.content_type = "text/plain\r\nx-evil: 1".into());
    let error = server.publisher().publish(&sent).await.expect_err("never sent");
    assert_eq!(error.class(), Permanent);
    assert!(error.to_string().contains("datacontenttype"), "{error}");
    assert!(
        server.publisher().structured().publish(&sent).await.is_ok(),
        "a JSON text can carry it"
    );
}

#[tokio::test]
async fn an_error_quotes_the_response_body_only_on_request() {
    const WORDS: &str =
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 22\r\n\r\nthe total is\r\n\x07missing";
    let server = serve_response(WORDS).await;
    let error = failure(&server.publisher()).await;
    assert_eq!(error.full_text(), "the destination answered 400 Bad Request");
    let error = failure(&server.publisher().quote_responses()).await;
    assert_eq!(
        error.full_text(),
        "the destination answered 400 Bad Request: the total is   missing"
    );
}

#[tokio::test]
async fn an_endless_response_is_cut_off() {
    let server = serve_raw(|mut stream| async move {
        read_request(&mut stream).await;
        let head = "HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("the client reads");
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let began = Instant::now();
    let error = failure(&server.publisher().quote_responses()).await;
    assert_eq!(error.class(), Transient);
    assert!(error.to_string().len() < 400, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "the rest is not waited for");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (under_way, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = serve_raw(move |mut stream| {
        let (under_way, peak) = (Arc::clone(&under_way), Arc::clone(&peak));
        async move {
            read_request(&mut stream).await;
            peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            under_way.fetch_sub(1, Ordering::SeqCst);
            stream.write_all(response(204, "").as_bytes()).await.expect("the client reads");
        }
    })
    .await;
    let publisher = server.publisher().max_connections(3);
    let batch: Vec<_> = (0..40).map(|_| message()).collect();
    let results = publish_all(&publisher, &batch).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most} at once");
}

/// Runs itself again as a child with a proxy in its environment, as a process cannot safely change
/// its own.
#[tokio::test]
async fn no_proxy_is_taken_from_the_environment() {
    const URL: &str = "OUTBOX_HTTP_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        let publisher = HttpPublisher::new(url).expect("a URL").allow_loopback();
        publisher.publish(&message()).await.expect("confirmed by the server itself");
        return;
    }
    let server = serve_response(response(204, "")).await;
    let proxy = serve_response(response(502, "")).await;
    let name = "failures::no_proxy_is_taken_from_the_environment";
    let mut child = tokio::process::Command::new(std::env::current_exe().expect("a test binary"));
    child.args(["--exact", name]).env(URL, server.url());
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(variable, format!("http://{}", proxy.address));
    }
    let output =
        child.env_remove("NO_PROXY").env_remove("no_proxy").output().await.expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
