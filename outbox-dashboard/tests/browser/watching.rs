//! An open page keeps up with its databases, and says so where one is gone; keys; no scripts.

use crate::{
    browser::{Browser, ENTER, SOON},
    served::{self, Served},
    service::{Mood, Service},
    ship::{self, saga_of},
};
use outbox_sea_orm::{
    admin::OperatorNote,
    prelude::*,
    saga::{Operation, SagaAdmin},
};
use sea_orm::ConnectOptions;
use serde_json::json;
use tests::{databases::Database, servers, wait_until};

/// Marks the document, to tell later whether it is still the same one.
async fn mark(browser: &Browser) {
    browser.run("window.marked = true", Vec::new()).await;
}

/// Expects that the document was not loaded again since it was marked.
async fn expect_same_document(browser: &Browser) {
    assert_eq!(browser.run("return window.marked === true", Vec::new()).await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_shows_what_fails_meanwhile_without_being_loaded_again() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    let (relay, destination) = service.relay(Mood::Works).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/letters?route=billing")).await;
    browser.wait_for_text_in("#live", "live").await;
    mark(&browser).await;
    assert!(!browser.text().await.contains("503 from billing"));
    destination.set(Mood::Fails);
    service.place("order-1", "a chair").await;
    browser.wait_for_text("503 from billing").await;
    expect_same_document(&browser).await;

    // One that somebody looks for changes its sentence.
    browser.goto(&served.url("/follow?q=order-2")).await;
    browser.wait_for_text_in("#live", "live").await;
    mark(&browser).await;
    service.place("order-2", "a table").await;
    browser.wait_for_text("dead letter").await;
    expect_same_document(&browser).await;
    relay.shutdown(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keyboard_alone_searches_goes_through_rows_and_opens_one() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..4).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/overview")).await;
    browser.type_keys("/").await;
    let focused = "return document.activeElement.id";
    assert_eq!(browser.run(focused, Vec::new()).await, "q");
    browser.type_keys(&format!("order-2{ENTER}")).await;
    browser.wait_for_text("503 from billing").await;
    assert!(browser.url().await.as_str().contains("q=order-2"), "{}", browser.url().await);

    browser.goto(&served.url("/letters?route=billing")).await;
    browser.type_keys("?").await;
    browser.wait_for_text_in("#keys", "next and previous row").await;
    browser.press("Close").await;
    browser.run("document.activeElement.blur()", Vec::new()).await;
    for key in ["j", "j", "k", ENTER] {
        browser.type_keys(key).await;
    }
    wait_until(SOON, "the row's page is open", async || {
        browser.url().await.path().starts_with("/letters/")
    })
    .await;
    // What is focused is seen.
    browser.type_keys("\u{e004}").await;
    let ring = "const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.outlineWidth";
    let ring = browser.run(ring, Vec::new()).await;
    assert!(!ring.as_str().unwrap().starts_with("none"), "{ring}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_is_told_on_the_open_page_which_shows_the_others() {
    let (browser, mut server, billing) = tokio::join!(
        Browser::open(),
        servers::postgres::start(),
        Service::open(Database::Sqlite, "/billing"),
    );
    billing.bury(1..2).await;
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false).acquire_timeout(std::time::Duration::from_secs(2));
    let orders = sea_orm::Database::connect(options).await.unwrap();
    let orders = Outbox::builder(orders).source("/orders").install().await.unwrap();
    let both = served::over([("billing", &billing)]).database("orders", orders);
    let served = Served::start(both).await;
    browser.goto(&served.url("/overview")).await;
    browser.wait_for_text_in("#live", "live").await;
    mark(&browser).await;
    server.kill().await;
    browser.wait_for_text("cannot be asked").await;
    expect_same_document(&browser).await;
    browser.goto(&served.url("/letters")).await;
    let text = browser.text().await;
    assert!(text.contains("# from billing") && text.contains("orders"), "{text}");
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    browser.goto(&served.url("/overview")).await;
    mark(&browser).await;
    server.start().await;
    // A reader whose database was slow to fail pauses for longer.
    wait_until(2 * SOON, "the page says that it is back", async || {
        !browser.text().await.contains("cannot be asked")
    })
    .await;
    expect_same_document(&browser).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_says_when_it_is_stale_and_gets_the_parts_of_a_database_that_is_back() {
    let (browser, mut server, billing) = tokio::join!(
        Browser::open(),
        servers::postgres::start(),
        Service::open(Database::Sqlite, "/billing"),
    );
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false).acquire_timeout(std::time::Duration::from_secs(2));
    let orders = sea_orm::Database::connect(options).await.unwrap();
    let orders = Outbox::builder(orders).source("/orders").install().await.unwrap();
    ship::tell(&orders).await;
    let saga = saga_of(&orders, "order-7").await;
    let both = served::over([("billing", &billing)]).database("orders", orders);
    let served = Served::start(both).await;
    browser.goto(&served.url(&format!("/sagas/{saga}?db=orders"))).await;
    browser.wait_for_text_in("#live", "live").await;
    mark(&browser).await;
    server.kill().await;
    browser.wait_for_text_in("#live", "stale: A database is away").await;
    expect_same_document(&browser).await;
    assert!(browser.text().await.contains("hand-over"), "what was shown stays");

    browser.goto(&served.url("/sagas")).await;
    mark(&browser).await;
    let part_of_orders = "[data-live='sagas-orders']";
    assert_eq!(browser.count(part_of_orders).await, 0);
    server.start().await;
    wait_until(2 * SOON, "the page has a part for the database", async || {
        browser.count(part_of_orders).await == 1
    })
    .await;
    browser.wait_for_text("order-7").await;
    expect_same_document(&browser).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_that_are_no_longer_possible_leave_the_open_page() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    ship::tell(&service.outbox).await;
    let saga = saga_of(&service.outbox, "order-11").await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url(&format!("/sagas/{saga}?db=orders"))).await;
    browser.wait_for_text_in("#live", "live").await;
    mark(&browser).await;
    assert_eq!(browser.count("#acts form").await, 1);
    let note = OperatorNote::new("bob", "the customer has cancelled");
    assert!(service.outbox.operate(saga, &Operation::Cancel, &note).await.unwrap());
    browser.wait_for_text("the customer has cancelled").await;
    wait_until(SOON, "nothing can be done any more", async || browser.count("#acts").await == 0)
        .await;
    expect_same_document(&browser).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_and_act_works_without_scripts() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..3).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.goto(&served.url("/")).await;
    browser.fill("#q", &format!("order-1{ENTER}")).await;
    browser.wait_for_text("503 from billing").await;
    for tab in ["Overview", "Routes", "Sagas", "Waiting", "Audit", "Doctor", "Dead letters"] {
        browser.press(tab).await;
        browser.wait_for_text_in("[aria-current=page]", tab).await;
    }
    assert_eq!(browser.run("return window.marked === undefined", Vec::new()).await, true);
}
