//! Addresses inside are not reached, whatever form or name leads to them.

use crate::support::{message, serve_raw};
use outbox_core::{failure::FailureClass, transport::Publisher};
use outbox_http::{ConfigFault, HttpPublisher, Resolver, forbidden};
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::io::AsyncWriteExt;

#[test]
fn every_block_that_is_not_public_is_forbidden_from_its_first_to_its_last_address() {
    for (what, addresses) in [
        ("unspecified", &["0.0.0.0", "0.255.255.255", "::"][..]),
        (
            "private",
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
            ],
        ),
        ("private", &["fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:ec2::254"]),
        ("shared by a carrier (CGNAT)", &["100.64.0.0", "100.127.255.255", "100.100.100.200"]),
        ("loopback", &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
        (
            "link-local",
            &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::", "febf:ffff::1"],
        ),
        ("reserved for protocols", &["192.0.0.0", "192.0.0.255", "2001:1::", "2001:1ff:ffff::"]),
        (
            "for documentation",
            &["192.0.2.1", "198.51.100.255", "203.0.113.0", "2001:db8::1", "3fff:fff::"],
        ),
        ("a 6to4 relay", &["192.88.99.1"]),
        ("for benchmarks", &["198.18.0.0", "198.19.255.255"]),
        ("multicast", &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1"]),
        (
            "reserved",
            &["240.0.0.0", "255.255.255.255", "1::", "1fff:ffff::", "4000::", "5f00::1", "fe00::"],
        ),
        ("IPv4-mapped", &["::ffff:127.0.0.1", "::ffff:8.8.8.8"]),
        ("IPv4-compatible", &["::2", "::127.0.0.1"]),
        (
            "translated to IPv4 (NAT64)",
            &["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::", "64:ff9b:1:ffff::1"],
        ),
        ("for discarding", &["100::", "100::ffff"]),
        ("a Teredo tunnel", &["2001::", "2001:0:ffff::"]),
        ("a 6to4 tunnel", &["2002::", "2002:7f00:1::", "2002:ffff:ffff::"]),
        ("private (site-local)", &["fec0::", "feff::1"]),
    ] {
        for text in addresses {
            let address: IpAddr = text.parse().expect(text);
            assert_eq!(forbidden(address), Some(what), "{text}");
        }
    }
}

#[test]
fn the_public_addresses_beside_the_blocks_are_free() {
    for text in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.101.0",
        "203.0.112.255",
        "223.255.255.255",
        "8.8.8.8",
        "2001:200::",
        "2001:db9::",
        "2001:4860:4860::8888",
        "2003::",
        "2606:4700::1111",
        "2a00::1",
        "3ffe:ffff::",
        "3fff:1000::",
    ] {
        let address: IpAddr = text.parse().expect(text);
        assert_eq!(forbidden(address), None, "{text}");
    }
}

#[test]
fn a_literal_address_is_refused_in_every_form_that_a_url_has_for_it() {
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
        "169.254.169.254",
        "0xa9fea9fe",
        "10.0.0.1",
        "192.168.1.1",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
    ] {
        for url in [format!("http://{host}/x"), format!("https://user:pw@{host}:8443/x")] {
            let error = HttpPublisher::new(&url).expect(&url).build().expect_err(&url);
            assert!(matches!(error.faults(), [ConfigFault::Address { .. }]), "{url}: {error}");
        }
    }
    for host in [
        "93.184.215.14",
        "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]",
        "localhost.example",
        "127.0.0.1.example",
    ] {
        assert!(
            HttpPublisher::new(format!("http://{host}/x")).expect(host).build().is_ok(),
            "{host}"
        );
    }
}

#[test]
fn only_the_allowed_subnet_is_opened() {
    let allowed = |url: &str, subnet: &str| {
        HttpPublisher::new(url).expect(url).allow_subnet(subnet).build().is_ok()
    };
    assert!(allowed("http://10.1.2.3/", "10.1.0.0/16"));
    assert!(!allowed("http://10.2.2.3/", "10.1.0.0/16"));
    assert!(!allowed("http://127.0.0.1/", "10.1.0.0/16"));
    assert!(allowed("http://[::ffff:10.1.2.3]/", "10.1.0.0/16"));
    assert!(!allowed("http://[::ffff:10.2.2.3]/", "10.1.0.0/16"));
    assert!(allowed("http://[fd00::1]/", "fd00::/8"));
    assert!(!allowed("http://[::1]/", "127.0.0.0/8"));
    let loopback = |url: &str| HttpPublisher::new(url).expect(url).allow_loopback().build().is_ok();
    assert!(
        loopback("http://127.0.0.2/") && loopback("http://[::1]/") && !loopback("http://10.0.0.1/")
    );
}

/// Gives prepared results, one for each call.
struct Prepared(Mutex<VecDeque<Vec<IpAddr>>>);

impl Prepared {
    fn new(results: &[&[&str]]) -> Self {
        let parse = |addresses: &&[&str]| {
            addresses.iter().map(|text| text.parse().expect("an address")).collect()
        };
        Self(Mutex::new(results.iter().map(parse).collect()))
    }
}

#[async_trait::async_trait]
impl Resolver for Prepared {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(host, "hooks.example");
        let addresses = self.0.lock().expect("no panic under the lock").pop_front();
        addresses.ok_or_else(|| io::Error::other("called too often"))
    }
}

/// Counts connections, and results each request with 204 and the end of its connection.
async fn counting() -> (crate::support::Server, Arc<AtomicUsize>) {
    let hits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hits);
    let server = serve_raw(move |mut stream| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            crate::support::read_request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
                .await
                .expect("the client reads");
        }
    })
    .await;
    (server, hits)
}

fn to_name(address: SocketAddr, resolver: Prepared) -> HttpPublisher {
    let url = format!("http://hooks.example:{}/", address.port());
    HttpPublisher::new(url).expect("a URL").resolver(resolver)
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_before_any_connection() {
    let (server, hits) = counting().await;
    for addresses in [
        &["127.0.0.1"][..],
        &["93.184.215.14", "127.0.0.1"],
        &["127.0.0.1", "93.184.215.14"],
        &["2606:4700::1111", "::ffff:127.0.0.1"],
        &["::1"],
        &["64:ff9b::7f00:1"],
    ] {
        let publisher = to_name(server.address, Prepared::new(&[addresses]));
        let error = publisher.publish(&message()).await.expect_err("refused");
        assert_eq!(
            error.class(),
            FailureClass::Unavailable,
            "no message is lost to a name server's mistake"
        );
        assert!(
            error.full_text().contains("refused unless its subnet is allowed"),
            "{}",
            error.full_text()
        );
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_allowed_subnet_is_reached_by_name_and_nothing_beside_it() {
    let (server, hits) = counting().await;
    let publisher = to_name(
        server.address,
        Prepared::new(&[&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.1", "10.0.0.1"]]),
    );
    let publisher = publisher.allow_subnet("127.0.0.1/32");
    assert!(publisher.publish(&message()).await.is_ok());
    assert!(publisher.publish(&message()).await.is_err(), "an address beside the subnet");
    assert!(publisher.publish(&message()).await.is_err(), "one of two addresses is not allowed");
    assert_eq!(hits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_is_judged_again_for_each_new_connection() {
    let (server, hits) = counting().await;
    let publisher = to_name(
        server.address,
        Prepared::new(&[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]]),
    );
    let publisher = publisher.allow_loopback();
    let results = [
        publisher.publish(&message()).await.is_ok(),
        publisher.publish(&message()).await.is_ok(),
        publisher.publish(&message()).await.is_ok(),
    ];
    assert_eq!(results, [true, false, true], "the name led elsewhere once");
    assert_eq!(hits.load(Ordering::SeqCst), 2);
}
