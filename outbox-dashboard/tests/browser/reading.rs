//! Each page is read: what stands on it, whether everybody can read it, and what it looks like.

use crate::{
    browser::Browser,
    served::{self, Served},
    service::{Mood, Service},
    ship::{self, saga_of},
};
use tests::databases::Database;

/// Widths of a phone, a tablet and a desk, in pixels.
const WIDTHS: [u32; 3] = [360, 768, 1440];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// A page, the name of its pictures, and what stands on it.
struct Page {
    name: &'static str,
    path: String,
    texts: Vec<&'static str>,
}

fn page(name: &'static str, path: impl Into<String>, texts: &[&'static str]) -> Page {
    Page { name, path: path.into(), texts: texts.to_vec() }
}

/// All pages over the story.
async fn pages(orders: &Service) -> Vec<Page> {
    let stuck = saga_of(&orders.outbox, "order-7").await;
    vec![
        page("home", "/", &["staging", "What stands still", "orders", "newsletters"]),
        page(
            "follow-saga",
            "/?q=order-7",
            &["ship", "stuck", "the carrier is closed", "hand-over"],
        ),
        page("follow-letter", "/?q=order-1", &["dead letter", "503 from billing"]),
        page("follow-nothing", "/?q=no-such-order", &["no-such-order"]),
        page("overview", "/overview", &["orders", "billing"]),
        page("routes", "/routes", &["billing", "mailing", "newsletters", "ann"]),
        page("letters", "/letters", &["billing", "# from billing", "exhausted"]),
        page("letters-of-route", "/letters?route=billing", &["order-1", "order.placed"]),
        page("letter", "/letters/1?db=orders", &["order-", "two chairs", "503 from billing"]),
        page("sagas", "/sagas", &["ship", "order-5", "completed", "stuck", "compensated"]),
        page(
            "saga",
            format!("/sagas/{stuck}?db=orders"),
            &["ship", "hand-over", "the carrier is closed"],
        ),
        page("waiting", "/waiting", &["order-80", "order-90", "the scanner is offline"]),
        page("audit", "/audit", &["ann", "a duplicate, refunded by hand", "discard"]),
        page("doctor", "/doctor", &["orders"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_says_what_there_is_to_everybody_and_fits_every_screen() {
    let (browser, orders, billing) = tokio::join!(
        Browser::open(),
        Service::open(Database::Postgres, "/orders"),
        Service::open(Database::Sqlite, "/billing"),
    );
    orders.tell_its_story().await;
    let (_relay, _destination) = orders.relay(Mood::IsDown).await;
    orders.place("order-99", "it waits for billing").await;
    let both = served::over([("orders", &orders), ("billing", &billing)]);
    let served = Served::start(both.saga(ship::definition().shape())).await;

    let mut faults = Vec::new();
    for Page { name, path, texts } in pages(&orders).await {
        browser.goto(&served.url(&path)).await;
        let text = browser.text().await;
        let missing = texts.iter().filter(|wanted| !text.contains(**wanted));
        faults.extend(missing.map(|wanted| format!("{path} does not say {wanted:?}:\n{text}")));
        for scheme in SCHEMES {
            for width in WIDTHS {
                browser.emulate(width, scheme).await;
                browser.picture(&format!("{name}-{width}-{scheme}")).await;
                let wide = browser.overflow().await;
                if wide > 0 {
                    faults.push(format!("{path} stands out {wide} px of {width} ({scheme})"));
                }
                if width == 768 {
                    continue;
                }
                let seen = format!("{path}, {width} px, {scheme}");
                let violations = browser.violations().await;
                faults.extend(violations.into_iter().map(|what| format!("{seen}: {what}")));
            }
        }
        let complaints = browser.complaints().await;
        faults.extend(complaints.into_iter().map(|what| format!("{path}: console: {what}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
