//! `outbox relay`: a relay process from one file.

use crate::{
    program::{command, run},
    world::{SOON, World},
};
use outbox_core::testing::Recorder;
use outbox_http::HttpReceiver;
use outbox_sea_orm::admin::AdminStore;
use rustix::process::Signal;
use std::{fs, net::SocketAddr};
use tests::{
    databases::{Database, TempDatabase},
    equals, on_every_database,
    processes::Process,
    wait_until,
};
use tokio::{net::TcpListener, task::JoinSet};

/// A receiver on loopback that records what it gets; dropped, it ends.
struct Billing {
    address: SocketAddr,
    received: Recorder,
    _tasks: JoinSet<()>,
}

impl Billing {
    async fn open() -> Self {
        let (router, mut subscriber) =
            HttpReceiver::builder().path("/events").unsigned().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, received) = (listener.local_addr().unwrap(), Recorder::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let records = received.clone();
        tasks.spawn(async move { records.drain(&mut subscriber).await.unwrap() });
        Self { address, received, _tasks: tasks }
    }
}

/// An address on which nobody listens.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn file(world: &World, billing: &Billing, more: &str) -> String {
    format!(
        "[outbox]\ndatabase = '{}'\nlease = '3s'\n\n[[route]]\nname = 'billing'\ntopics = ['orders']\n\
         url = 'http://{}/events'\nallow_loopback = true\n{more}",
        world.url, billing.address
    )
}

on_every_database! {
    async fn a_relay_runs_from_one_file_reads_it_again_at_a_hang_up_and_stops_in_order(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let billing = Billing::open().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        fs::write(&path, file(&world, &billing, "")).unwrap();
        let name = path.to_str().unwrap();
        let checked = run(command(&["relay", name, "--check"])).exits(0);
        assert!(checked.out.contains("1 routes"), "{}", checked.out);

        let log = folder.path().join("log");
        let mut relay = Process::start_logged(&mut command(&["relay", name]), &log);
        world.place("order-1", "a chair").await;
        wait_until(SOON, "the first event is published", async || equals(billing.received.count(), 1)).await;

        // A file with a mistake is refused, and the relay goes on with the former one.
        fs::write(&path, file(&world, &billing, "retries = 3\n")).unwrap();
        relay.signal(Signal::HUP);
        wait_until(SOON, "the mistake is told", async || {
            fs::read_to_string(&log).unwrap().contains("unknown field `retries`")
        })
        .await;
        world.place("order-2", "a table").await;
        wait_until(SOON, "the second event is published", async || equals(billing.received.count(), 2)).await;

        fs::write(&path, file(&world, &billing, "[route.retry]\nmax_attempts = 3\n")).unwrap();
        relay.signal(Signal::HUP);
        wait_until(SOON, "a relay with the new file runs", async || {
            equals(fs::read_to_string(&log).unwrap().matches("the relay starts").count(), 2)
        })
        .await;
        world.place("order-3", "a lamp").await;
        wait_until(SOON, "the third event is published", async || equals(billing.received.count(), 3)).await;
        let status = relay.terminate(SOON).await;
        assert!(status.success(), "{status}: {}", fs::read_to_string(&log).unwrap());
        assert_eq!(world.outbox.stats().await.unwrap().pending, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_process_serves_its_metrics_and_its_health() {
    // The client wants a provider of TLS, though it speaks none here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let billing = Billing::open().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    let listen = free_address();
    fs::write(&path, file(&world, &billing, &format!("\n[metrics]\nlisten = '{listen}'\n")))
        .unwrap();
    let mut relay = Process::start(&mut command(&["relay", path.to_str().unwrap()]));
    world.place("order-1", "a chair").await;
    wait_until(SOON, "the event is published", async || equals(billing.received.count(), 1)).await;

    let get = async |path: &str| {
        let response = reqwest::get(format!("http://{listen}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    wait_until(SOON, "the relay is ready", async || equals(get("/ready").await.0, 200)).await;
    assert_eq!(get("/live").await.0, 200);
    let (_, metrics) = get("/metrics").await;
    let sent =
        metrics.lines().find(|line| line.starts_with("messaging_client_sent_messages_total"));
    assert!(sent.is_some_and(|line| line.contains("billing") && line.ends_with(" 1")), "{metrics}");
    assert!(relay.terminate(SOON).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_metrics_that_is_taken_is_told() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let billing = Billing::open().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    fs::write(&path, file(&world, &billing, &format!("\n[metrics]\nlisten = '{listen}'\n")))
        .unwrap();
    let ran = run(command(&["relay", path.to_str().unwrap()])).exits(2);
    assert!(ran.err.contains(&format!("[metrics] cannot be served on {listen}")), "{}", ran.err);
    assert!(!ran.err.contains("the relay starts"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_serves_the_metrics_where_it_can_before_the_former_relay_stops() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let billing = Billing::open().await;
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join("relay.toml"), folder.path().join("log"));
    let write = |listen: SocketAddr, more: &str| {
        let part = format!("{more}\n[metrics]\nlisten = '{listen}'\n");
        fs::write(&path, file(&world, &billing, &part)).unwrap();
    };
    let logged = async |text: &str, times: usize| {
        wait_until(SOON, text, async || {
            equals(fs::read_to_string(&log).unwrap().matches(text).count(), times)
        })
        .await;
    };
    let is_ready = async |listen: SocketAddr| {
        let response = reqwest::get(format!("http://{listen}/ready")).await;
        response.is_ok_and(|response| response.status().as_u16() == 200)
    };
    let ready = async |listen: SocketAddr| {
        wait_until(SOON, "the relay is ready", async || equals(is_ready(listen).await, true)).await;
    };
    let (first, second) = (free_address(), free_address());
    write(first, "");
    let mut relay = Process::start_logged(&mut command(&["relay", path.to_str().unwrap()]), &log);
    ready(first).await;

    // An address that is taken is refused, and the relay goes on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    write(listen, "");
    relay.signal(Signal::HUP);
    logged(&format!("its former file: [metrics] cannot be served on {listen}"), 1).await;
    assert!(is_ready(first).await);

    // The same address serves the next relay.
    write(first, "timeout = '9s'");
    relay.signal(Signal::HUP);
    logged("the relay starts", 2).await;
    ready(first).await;

    write(second, "");
    relay.signal(Signal::HUP);
    ready(second).await;
    assert!(!is_ready(first).await, "nothing listens there any more");
    assert!(relay.terminate(SOON).await.success());
}

#[test]
fn a_relay_logs_no_password_of_its_database_at_any_level() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    // A port that nothing listens on.
    let text = "[outbox]\ndatabase = 'postgres://me:secret@127.0.0.1:1/orders'\n\
                [[route]]\nname = 'a'\nurl = 'http://a/events'\n";
    fs::write(&path, text).unwrap();
    let mut relay = command(&["relay", path.to_str().unwrap()]);
    relay.env("RUST_LOG", "trace");
    let ran = run(relay).exits(3);
    assert!(ran.err.contains("cannot be opened") && !ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    let text = "[outbox]\ndatabase = 'sqlite::memory:'\n\
                [[route]]\nname = 'a'\nurl = 'gopher://me:secret@a'\n\
                [[route]]\nname = 'b'\nurl = 'http://b/events'\nexchange = 'orders'\n\
                [[route]]\nname = 'c'\nurl = 'me:secret@mq'\n\
                [[route]]\nname = 'd'\nurl = 'me:secret@mq://h'\nexchange = 'orders'\n";
    fs::write(&path, text).unwrap();
    let ran = run(command(&["relay", path.to_str().unwrap(), "--check"])).exits(2);
    for told in [
        "route `a`: no transport of this program takes gopher://",
        "route `b`: `exchange` is no setting of http",
        "route `c`: the URL has no scheme",
        "route `d`: the URL has no scheme",
    ] {
        assert!(ran.err.contains(told), "{told}: {}", ran.err);
    }
    assert!(!ran.err.contains("secret"), "{}", ran.err);
}

#[test]
fn the_file_of_the_documentation_is_one_that_a_relay_takes() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");
    let docs = fs::read_to_string(docs).unwrap();
    let example = docs.split("```toml\n").find(|part| part.starts_with("[outbox]")).unwrap();
    let example = example.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    fs::write(&path, example).unwrap();
    let mut check = command(&["relay", path.to_str().unwrap(), "--check"]);
    check.env("DATABASE_URL", "sqlite::memory:").env("BROKER_PASSWORD", "secret");
    check.env("BILLING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let ran = run(check).exits(0);
    assert!(ran.out.contains("2 routes"), "{}", ran.out);
}
