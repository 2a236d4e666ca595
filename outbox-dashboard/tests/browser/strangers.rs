//! What strangers wrote is shown and not obeyed, however much of it there is.

use crate::{
    browser::Browser,
    served::{self, Served},
    service::{Mood, Service},
};
use outbox_core::admin::{ControlAction, ControlScope, ControlStore};
use outbox_sea_orm::admin::OperatorNote;
use std::time::{Duration, Instant};
use tests::databases::Database;

/// A text that would run as a script in each place of a page where text may stand.
const CANARY: &str = "</title></textarea></script>\"'><img src=x onerror=window.ran=1>\
    <script>window.ran=1</script><svg onload=window.ran=1>";
/// What turns the direction of text, what a terminal obeys, and what nobody sees.
const TRICKS: &str = "a\u{202e}b\u{2066}c\u{200f}d\u{feff}e";
/// All that people see or hear of a page but fields, which hold what was typed.
const SEEN: &str = "return document.documentElement.innerText + document.title +
    [...document.querySelectorAll('*')].flatMap(e => ['title', 'aria-label', 'alt', 'placeholder']
        .map(name => e.getAttribute(name) ?? '')).join('')";
/// The columns of a letter that strangers fill.
const COLUMNS: [&str; 6] =
    ["topic", "event_type", "aggregate_type", "message_key", "content_type", "source"];

/// Fills each column of the letters that strangers fill.
async fn fill(service: &Service) {
    for column in COLUMNS {
        // 255 characters at most.
        let text = format!("{column} {TRICKS} {CANARY}");
        let sql = format!("UPDATE outbox_dead_letters SET {column} = $1 WHERE letter_id = 1");
        service.sql(&sql, vec![text.into()]).await;
    }
    let content = serde_json::json!({ "note": format!("content {CANARY} {TRICKS} \u{1b}[2J") });
    let payload = content.to_string().into_bytes();
    let sql = "UPDATE outbox_dead_letters SET payload = $1 WHERE letter_id = 1";
    service.sql(sql, vec![payload.into()]).await;
    let headers = serde_json::json!({ "x-note": format!("header {CANARY} {TRICKS}") });
    let sql = "UPDATE outbox_dead_letters SET headers = $1 WHERE letter_id = 1";
    service.sql(sql, vec![headers.to_string().into()]).await;
    let sql =
        "UPDATE outbox_dead_letters SET errors = REPLACE(errors, '503', $1) WHERE letter_id = 1";
    let error = serde_json::to_string(&format!("error {CANARY} {TRICKS} \u{1b}]0;owned\u{7}"));
    let error = error.unwrap();
    service.sql(sql, vec![error[1..error.len() - 1].to_owned().into()]).await;
    let note = OperatorNote::new(format!("operator {CANARY}"), format!("reason {CANARY} {TRICKS}"));
    let pause = ControlAction::Pause;
    service
        .outbox
        .set_control(ControlScope::Topic, "newsletters", pause, None, &note)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_of_a_stranger_runs_or_turns_the_page_around() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..3).await;
    fill(&service).await;
    let (_relay, _destination) = service.relay(Mood::IsDown).await;
    service.place(&format!("key {TRICKS} {}", &CANARY[..60]), CANARY).await;
    let served = Served::start(served::over([("orders", &service)])).await;

    let key = format!("key {TRICKS} {}", &CANARY[..60]);
    let search = url::form_urlencoded::byte_serialize(key.as_bytes()).collect::<String>();
    let canary = url::form_urlencoded::byte_serialize(CANARY.as_bytes()).collect::<String>();
    let mut shown = String::new();
    for path in [
        "/letters".to_owned(),
        "/letters?route=billing".to_owned(),
        "/letters/1?db=orders".to_owned(),
        "/letters/2?db=orders".to_owned(),
        format!("/?q={search}"),
        format!("/?q={canary}"),
        format!("/letters?topic={canary}"),
        format!("/sagas?name={canary}"),
        format!("/letters?db={canary}"),
        format!("/no-such-page{canary}"),
        "/overview".to_owned(),
        "/routes".to_owned(),
        "/waiting".to_owned(),
        "/audit".to_owned(),
        "/doctor".to_owned(),
    ] {
        browser.goto(&served.url(&path)).await;
        let ran = browser.run("return window.ran === undefined", Vec::new()).await;
        assert_eq!(ran, true, "a script of a stranger ran on {path}");
        let elements = "img, svg[onload], script:not([src]), [onerror]";
        assert_eq!(browser.count(elements).await, 0, "{path}");
        let text = browser.run(SEEN, Vec::new()).await.as_str().unwrap().to_owned();
        let bad = |c: &char| {
            matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200f}' | '\u{feff}')
                || (c.is_control() && !"\n\r\t".contains(*c))
        };
        let found: Vec<char> = text.chars().filter(bad).collect();
        assert!(found.is_empty(), "{path} has {found:?}");
        // Where the browser refused a script, one stood on the page.
        let complaints = browser.complaints().await;
        let refused: Vec<&String> = complaints
            .iter()
            .filter(|text| !text.contains("404") && !text.contains("400"))
            .collect();
        assert!(refused.is_empty(), "{path}: {refused:?}");
        shown.push_str(&browser.text().await);
    }
    for said in [
        "topic a",
        "event_type a",
        "message_key a",
        "content ",
        "header ",
        "error ",
        "reason ",
        "operator ",
    ] {
        assert!(shown.contains(said), "{said} is shown:\n{shown}");
    }
    assert!(shown.contains("<script>window.ran=1</script>"), "as text:\n{shown}");
    assert!(shown.contains("\\u{202e}"), "as an escape:\n{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_of_ten_mebibytes_costs_its_page_nothing() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    let sql = "UPDATE outbox_dead_letters SET payload = convert_to('{\"note\":\"' || repeat('lorem ', 1747626) || '\"}', 'UTF8')";
    service.sql(sql, Vec::new()).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    for path in ["/letters", "/letters?route=billing", "/letters/1?db=orders", "/?q=order-1"] {
        let begun = Instant::now();
        browser.goto(&served.url(path)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{path} took {took:?}");
        let length =
            browser.run("return document.documentElement.outerHTML.length", Vec::new()).await;
        assert!(length.as_u64().unwrap() < 256 * 1024, "{path} has {length} characters");
        browser.wait_for_text("from billing").await;
    }
    browser.goto(&served.url("/letters/1?db=orders")).await;
    let text = browser.text().await;
    assert!(
        text.contains("lorem") && text.contains("64 KiB"),
        "{}",
        &text[..text.len().min(2_000)]
    );
}
