//! What operators do with dead letters and sagas, click by click.

use crate::{
    browser::{Browser, SOON},
    served::{self, Served},
    service::{Mood, Service},
    ship::{saga_of, state_of},
};
use outbox_core::{
    admin::{ActStore, AuditOutcome},
    saga::SagaState,
};
use outbox_sea_orm::admin::AdminStore;
use tests::{databases::Database, equals, wait_until};

/// Letters of one group: more than any page counts.
const MANY: u32 = 200_000;

/// Gives the newest row of the audit: the act, who did it and why, how many, and how it ended.
async fn last_act(service: &Service) -> (String, String, String, u64, AuditOutcome) {
    let row = service.outbox.audit(None, 1).await.unwrap().pop().expect("an act is in the audit");
    (row.act, row.by, row.reason, row.done, row.outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_is_planned_stopped_by_its_canary_and_done_when_the_destination_works() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..13).await;
    let (relay, destination) = service.relay(Mood::Fails).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/letters")).await;
    browser.open_row("billing").await;
    browser.press("Plan to redrive all").await;
    browser.wait_for_text("12 letters").await;
    assert_eq!(service.outbox.stats().await.unwrap().dead, 12, "a plan does nothing");
    assert!(browser.url().await.path().starts_with("/plans/"), "{}", browser.url().await);

    browser.fill("#why", "they say it works").await;
    browser.press("Redrive 12 letters").await;
    browser.wait_for_text("the canary went no further").await;
    service.waits_for_letters(12).await;
    let (act, by, why, done, outcome) = last_act(&service).await;
    assert_eq!((act.as_str(), by.as_str()), ("redrive", "loopback"));
    assert_eq!((why.as_str(), done, outcome), ("they say it works", 1, AuditOutcome::Stopped));

    destination.set(Mood::Works);
    browser.press("Plan again, with the letters that are open now").await;
    browser.wait_for_text("12 letters").await;
    browser.fill("#why", "now it does").await;
    browser.fill("#watch", "0").await;
    browser.press("Redrive 12 letters").await;
    browser.wait_for_text("done").await;
    service.waits_for_letters(0).await;
    wait_until(SOON, "all are delivered", async || {
        equals(service.outbox.stats().await.unwrap().pending, 0)
    })
    .await;
    relay.shutdown(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_letters_are_counted_in_bounds_and_an_act_on_them_is_cancelled() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    multiply(&service).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/letters")).await;
    let text = browser.text().await;
    assert!(text.contains('+'), "a count that ends at a bound says so: {text}");
    assert!(!text.contains("200,001") && !text.contains("200001"), "it is counted: {text}");
    browser.open_row("billing").await;
    let rows = browser.count("tbody tr").await;
    assert!((1..=200).contains(&rows), "a page has {rows} rows");
    browser.press("Plan to discard all").await;
    browser.fill("#why", "a test of the destination").await;
    browser.click("form.act button.primary").await;
    browser.wait_for_text("to go").await;
    wait_until(SOON, "some are discarded", async || {
        service.outbox.audit(None, 1).await.unwrap().pop().is_some_and(|row| row.done > 0)
    })
    .await;
    browser.press("Cancel after the present chunk").await;
    browser.wait_for_text("cancelled").await;
    assert_eq!(last_act(&service).await.0, "cancel plan");
    let of_plan = service.outbox.audit(None, 2).await.unwrap().pop().unwrap();
    assert_eq!((&*of_plan.act, of_plan.outcome), ("discard", AuditOutcome::Cancelled));
    let done = of_plan.done;
    assert!(0 < done && done < u64::from(MANY), "{done} were discarded");
    browser.goto(&served.url("/audit")).await;
    browser.wait_for_text("a test of the destination").await;
}

/// Copies the only letter, without its key: nothing waits behind the copies.
async fn multiply(service: &Service) {
    let columns = "partition_no, source, topic, event_type, event_version, aggregate_type, \
        content_type, payload, headers, created_at, expires_at, route, reason, attempts, errors, dead_at";
    let sql = format!(
        "INSERT INTO outbox_dead_letters (origin, event_id, message_id, parks, {columns}) \
         SELECT origin, 1000000 + n, gen_random_uuid(), FALSE, {columns} \
         FROM outbox_dead_letters, generate_series(1, {MANY}) AS n"
    );
    service.sql(&sql, Vec::new()).await;
    service.sql("ANALYZE outbox_dead_letters", Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_tabs_that_act_on_one_letter_the_second_hears_that_it_was_late() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    let tabs = browser.tabs().await;
    for tab in &tabs {
        browser.switch_to(tab).await;
        browser.goto(&served.url("/letters/1?db=orders")).await;
        browser.fill("#why-1", "a duplicate").await;
    }
    browser.switch_to(&tabs[0]).await;
    browser.press("Discard").await;
    browser.wait_for_text("discarded").await;
    browser.switch_to(&tabs[1]).await;
    browser.press("Redrive").await;
    browser.wait_for_text("discarded").await;
    let text = browser.text().await;
    assert!(text.contains("loopback"), "who was first is told: {text}");
    let acts = service.outbox.audit(None, 10).await.unwrap();
    assert_eq!(acts.len(), 1, "{acts:?}");
    assert_eq!(service.outbox.stats().await.unwrap().pending, 0, "nothing was redriven");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_edited_compared_and_sent_again_and_a_topic_is_paused() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/letters/1?db=orders")).await;
    browser.press("Edit and resend").await;
    browser.fill("#payload", "{\"order\":\"order-1\",\"note\":\"mended\"}").await;
    browser.fill("#why", "the note was wrong").await;
    browser.press("Compare").await;
    browser.wait_for_text("two chairs").await;
    browser.wait_for_text("mended").await;
    assert_eq!(service.outbox.stats().await.unwrap().dead, 1, "a comparison sends nothing");
    browser.press("Send it as a new event").await;
    browser.wait_for_text("resent").await;
    let stats = service.outbox.stats().await.unwrap();
    assert_eq!((stats.dead, stats.pending), (0, 1));

    browser.goto(&served.url("/routes")).await;
    browser
        .fill_form(
            "select[name=scope]",
            &[("scope", "topic"), ("name", "orders"), ("why", "they migrate")],
        )
        .await;
    browser.click("form:has(select[name=scope]) button[value=pause]").await;
    browser.wait_for_text("they migrate").await;
    let (act, ..) = last_act(&service).await;
    assert_eq!(act, "pause");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_saga_is_drawn_told_and_skipped() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    crate::ship::tell(&service.outbox).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    browser.goto(&served.url("/sagas")).await;
    browser.open_row("order-7").await;
    let saga = saga_of(&service.outbox, "order-7").await;
    assert!(browser.url().await.path().ends_with(&saga.to_string()), "{}", browser.url().await);
    let drawn = browser.text_of_svg().await;
    for step in ["pack", "label", "invoice", "charge", "hand-over"] {
        assert!(drawn.contains(step), "{step} is drawn: {drawn}");
    }
    let text = browser.text().await;
    assert!(text.contains("the carrier is closed"), "the timeline tells it: {text}");
    browser.fill("#why-saga", "handed over by hand").await;
    browser.press("Skip hand-over: it counts as done").await;
    wait_until(SOON, "the saga goes on", async || {
        state_of(&service.outbox, "order-7").await != SagaState::Stuck
    })
    .await;
    browser.wait_for_text("handed over by hand").await;
    let (act, by, why, ..) = last_act(&service).await;
    assert!(act.contains("skip"), "{act}");
    assert_eq!((by.as_str(), why.as_str()), ("loopback", "handed over by hand"));
}
