//! Each stage of a rollout: before, side by side, after; and the rollback.

use super::{
    bench::{Act, Bench, Release},
    books::Books,
};
use std::time::Duration;
use tests::{
    servers::{Server, mariadb, postgres, rabbitmq},
    wait_until,
};

/// The limit for the end of all sagas, with leases of a killed instance that expire.
const SETTLED: Duration = Duration::from_secs(150);

use Act::{Kill, Start, Stop};
use Release::{Next, This};

/// Forward, back, and forward again: with every mix of releases in between, and none of an order left behind.
const SHORT: [Act; 14] = [
    Start(This),
    Start(This),
    Start(Next),
    Stop(This),
    Start(Next),
    Stop(This),
    // The rollback.
    Start(This),
    Stop(Next),
    Stop(Next),
    Start(This),
    // The second rollout.
    Start(Next),
    Stop(This),
    Stop(This),
    Start(Next),
];

/// The same with crashes.
const LONG: [Act; 12] = [
    Start(This),
    Kill(Next),
    Start(Next),
    Kill(This),
    Start(This),
    Kill(Next),
    Kill(Next),
    Start(Next),
    Start(Next),
    Kill(This),
    Start(Next),
    Kill(Next),
];

async fn rehearse(server: &Server, acts: impl IntoIterator<Item = Act>) {
    let broker = rabbitmq::start().await;
    let mut bench = Bench::new(&server.url(), &broker.url());
    for act in acts {
        bench.act(act).await;
    }
    let accepted = bench.close().await;
    let mut options = sea_orm::ConnectOptions::new(server.url());
    options.sqlx_logging(false);
    let books = Books(sea_orm::Database::connect(options).await.unwrap());
    wait_until(SETTLED, "every order has ended", async || books.are_settled().await).await;
    books.balance().await;
    let orders = books.number("SELECT COUNT(*) FROM shop_orders").await;
    assert!(orders >= i64::try_from(accepted).unwrap(), "{orders} orders, {accepted} accepted");
    for version in [1, 2] {
        let sagas = format!("SELECT COUNT(*) FROM orders_outbox_sagas WHERE version = {version}");
        assert!(books.number(&sagas).await > 20, "both releases have taken orders");
    }
    bench.stop_all().await;
}

/// Connections of three instances of four services, of which each has two pools and a relay.
const CONNECTIONS: &str = "max_connections=500";

#[tokio::test]
async fn a_rollout_and_its_way_back_bury_nothing_undo_nothing_and_need_nobody() {
    let database = postgres::start_with(&["-c", CONNECTIONS]).await;
    if std::env::var_os("OUTBOX_LONG").is_none() {
        return rehearse(&database, SHORT).await;
    }
    let acts = || SHORT.into_iter().chain(LONG);
    rehearse(&database, acts()).await;
    rehearse(&mariadb::start_with(&["--max-connections=500"]).await, acts()).await;
}
