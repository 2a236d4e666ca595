//! `bench`: figures, and tables that are gone afterwards.

use crate::{
    program::{command, on, run},
    world::{SOON, World},
};
use outbox_sea_orm::{Outbox, admin::AdminStore};
use rustix::process::Signal;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use std::fs;
use tests::{
    Proxy,
    databases::{Database, TempDatabase},
    equals, on_every_database,
    processes::Process,
    wait_until,
};

const SMALL: [&str; 5] = ["bench", "--events", "100", "--writers", "2"];

/// Whether a query about the tables of a measurement finds a row; `false` before there are tables.
async fn finds(db: &DatabaseConnection, from: &str) -> bool {
    let sql = format!("SELECT 1 FROM outbox_bench_outbox_{from} LIMIT 1");
    let statement = Statement::from_string(db.get_database_backend(), sql);
    db.query_one_raw(statement).await.is_ok_and(|row| row.is_some())
}

on_every_database! {
    async fn a_database_is_measured_by_tables_that_are_dropped_and_its_outbox_is_not_touched(
        temp: &TempDatabase
    ) {
        let world = World::open(temp).await;
        world.place("order-1", "x").await;
        let with_json = [&["--json"][..], &SMALL].concat();
        let answer = on(&world.url, &with_json).exits(0).json();
        let figures = &answer["result"];
        for counted in ["written", "drained"] {
            assert_eq!(figures[counted], 100, "{answer}");
        }
        assert_eq!(figures["delivered"], 200, "{answer}");
        for measured in
            ["writes_per_second", "drained_per_second", "write_p50_ms", "delivery_p50_ms"]
        {
            assert!(figures[measured].as_f64().unwrap() > 0.0, "{measured}: {answer}");
        }
        assert!(
            figures["write_p99_ms"].as_f64() >= figures["write_p50_ms"].as_f64(),
            "{answer}"
        );
        let left = Outbox::builder(temp.connect().await).namespace("outbox_bench").build().await;
        assert!(left.is_err(), "its tables are gone");
        assert_eq!(world.outbox.stats().await.unwrap().pending, 1);
        let text = on(&world.url, &SMALL).exits(0).out;
        for line in ["100 events of 200 bytes, 2 writers", "transactions/s", "end to end"] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    async fn a_signal_stops_the_relay_of_a_measurement_before_its_tables_are_dropped(
        temp: &TempDatabase
    ) {
        let db = temp.connect().await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let arguments = ["--database", temp.url(), "bench", "--events", "1000"];
        let mut bench = Process::start_logged(&mut command(&arguments), &log);
        wait_until(SOON, "its relay runs", async || {
            equals(finds(&db, "partitions WHERE owner IS NOT NULL").await, true)
        })
        .await;
        bench.signal(Signal::INT);
        let status = bench.wait(SOON).await;
        let log = fs::read_to_string(&log).unwrap();
        assert_eq!((status.code(), &*log), (Some(5), "cancelled; the tables are dropped\n"));
        let left = Outbox::builder(db).namespace("outbox_bench").build().await;
        assert!(left.is_err(), "its tables are gone");
    }

    async fn tables_of_a_measurement_that_was_killed_are_kept_until_somebody_says_so(
        temp: &TempDatabase
    ) {
        let killed = Outbox::builder(temp.connect().await).namespace("outbox_bench");
        killed.source("/outbox-bench").install().await.unwrap();
        let ran = on(temp.url(), &SMALL).exits(2);
        assert!(ran.err.contains("--replace"), "{}", ran.err);
        on(temp.url(), &[&SMALL[..], &["--replace"]].concat()).exits(0);
    }

    async fn a_database_of_production_is_measured_only_when_somebody_says_yes(temp: &TempDatabase) {
        temp.connect().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let text = format!(
            "[contexts.live]\nproduction = true\ndatabases = [{{ name = 'shop', url = '{}' }}]\n",
            temp.url()
        );
        fs::write(&path, text).unwrap();
        let with = |more: &[&str]| {
            let config = ["--config", path.to_str().unwrap(), "--context", "live"];
            run(command(&[&config[..], more, &SMALL].concat()))
        };
        let ran = with(&[]).exits(4);
        assert!(ran.err.contains("--yes"), "{}", ran.err);
        with(&["--yes"]).exits(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_measurement_failed_is_told_also_where_its_tables_cannot_be_dropped() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let (db, proxy) = (temp.connect().await, Proxy::before(temp.url()).await);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let url = proxy.url(temp.url());
    let arguments = ["--database", &url, "bench", "--events", "100000", "--limit", "1m"];
    let mut bench = Process::start_logged(&mut command(&arguments), &log);
    wait_until(SOON, "events are written", async || equals(finds(&db, "events").await, true)).await;
    proxy.cut();
    let status = bench.wait(SOON).await;
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(status.code(), Some(3), "{log}");
    for told in ["the measurement failed: ", "the tables outbox_bench_* are left"] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[test]
fn a_measurement_that_would_fill_the_disk_is_refused() {
    let arguments = ["bench", "--events", "100000", "--bytes", "65536"];
    let ran = on("sqlite:///nowhere/a.db", &arguments).exits(2);
    assert!(ran.err.contains("more than 256 MiB"), "{}", ran.err);
}
