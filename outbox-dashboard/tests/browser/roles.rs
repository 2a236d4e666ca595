//! Who may do what, and forged requests.

use crate::{
    browser::Browser,
    served::{self, Served},
    service::Service,
    ship::{self, saga_of},
};
use axum::{Router, response::Html, routing::get};
use outbox_core::admin::ActStore;
use outbox_dashboard::{Access, Permission, Role};
use serde_json::json;
use tests::databases::Database;
use tokio::net::TcpListener;

const PASSWORD: &str = "correct horse battery";

/// Each act: what it needs, and the request.
fn acts(saga: &str) -> Vec<(Permission, String, &'static str)> {
    let saga = |act: &str| format!("/sagas/{saga}/{act}?db=orders");
    vec![
        (Permission::Redrive, "/letters/plan".into(), "act=redrive&route=billing&db=orders"),
        (Permission::Discard, "/letters/plan".into(), "act=discard&route=billing&db=orders"),
        (Permission::Purge, "/letters/plan".into(), "act=purge&route=billing&db=orders"),
        (Permission::Redrive, "/letters/1/redrive?db=orders".into(), "why=w"),
        (Permission::Discard, "/letters/1/discard?db=orders".into(), "why=w"),
        (Permission::Purge, "/letters/1/purge?db=orders".into(), "why=w"),
        (
            Permission::Resend,
            "/letters/1/resend?db=orders".into(),
            "why=w&payload=%7B%7D&confirm=1",
        ),
        (Permission::ShowContent, "/letters/1/content?db=orders".into(), "why=w"),
        (Permission::Control, "/controls".into(), "do=pause&scope=topic&name=t&why=w&db=orders"),
        (Permission::Control, "/controls".into(), "do=resume&scope=topic&name=t&why=w&db=orders"),
        (
            Permission::Control,
            "/controls".into(),
            "do=rate&scope=route&name=r&per_second=9&why=w&db=orders",
        ),
        (Permission::SagaResume, saga("resume"), "why=w"),
        (Permission::SagaRetryFrom, saga("retry-from"), "why=w&step=hand-over"),
        (Permission::SagaSkip, saga("skip"), "why=w&step=hand-over"),
        (Permission::SagaCancel, saga("cancel"), "why=w"),
    ]
}

/// Posts from the page, as a form of it would, and gives the status.
async fn post(browser: &Browser, path: &str, body: &str) -> u64 {
    let script = "const done = arguments[2];
        fetch(new URL(arguments[0], location.origin), { method: 'POST', body: arguments[1], redirect: 'manual',
            headers: { 'content-type': 'application/x-www-form-urlencoded' } })
            .then(r => done(r.type === 'opaqueredirect' ? 303 : r.status), e => done(String(e)))";
    let status = browser.run_async(script, vec![json!(path), json!(body)]).await;
    status.as_u64().unwrap_or_else(|| panic!("{path}: {status}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_no_act_and_is_refused_each_and_one_act_is_no_other() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    ship::tell(&service.outbox).await;
    let saga = saga_of(&service.outbox, "order-7").await.to_string();
    let served = Served::to(
        served::over([("orders", &service)]),
        Access::basic([
            ("rita", PASSWORD, Role::Reader),
            ("carl", PASSWORD, Role::acts([Permission::Control])),
        ]),
    )
    .await;
    browser.goto(&served.url_as("rita", "wrong horse battery", "/letters")).await;
    assert!(!browser.text().await.contains("billing"), "without the password nothing is shown");

    let plain = served.url("/letters");
    browser.goto(&served.url_as("rita", PASSWORD, "/letters")).await;
    browser.goto(&plain).await;
    browser.wait_for_text("# from billing").await;
    browser.wait_for_text_in(".who", "rita").await;
    for path in [
        "/letters?route=billing",
        "/letters/1?db=orders",
        "/routes",
        &format!("/sagas/{saga}?db=orders"),
    ] {
        browser.goto(&served.url(path)).await;
        assert_eq!(browser.count("form[method=post]").await, 0, "{path} has a form for a reader");
    }
    for (permission, path, body) in acts(&saga) {
        assert_eq!(post(&browser, &path, body).await, 403, "{permission} {path}");
    }
    assert_eq!(service.outbox.audit(None, 1).await.unwrap(), [], "nothing was done");

    // Another login, in a browser that knows no other.
    let other = Browser::open().await;
    other.goto(&served.url_as("carl", PASSWORD, "/letters")).await;
    other.goto(&plain).await;
    for (permission, path, body) in acts(&saga) {
        let status = post(&other, &path, body).await;
        let allowed = permission == Permission::Control;
        assert_eq!(status == 403, !allowed, "{permission} {path}: {status}");
    }
    let done = service.outbox.audit(None, 10).await.unwrap();
    assert!(done.iter().all(|row| row.by == "carl"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_posts_nothing_and_frames_nothing() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..2).await;
    let served = Served::start(served::over([("orders", &service)])).await;
    let evil = format!(
        "<form id=f method=post action='{}'><input name=why value=w></form>\
         <iframe id=i src='{}'></iframe>",
        served.url("/letters/1/discard?db=orders"),
        served.url("/letters"),
    );
    // Another port is another origin, and another name another site.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/", get(move || async move { Html(evil) }));
    let other = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    for host in ["127.0.0.1", "localhost"] {
        browser.goto(&format!("http://{host}:{port}/")).await;
        let framed = "try { return document.querySelector('#i').contentDocument === null } catch { return true }";
        assert_eq!(browser.run(framed, Vec::new()).await, true);
        browser.run("document.querySelector('#f').submit()", Vec::new()).await;
        browser.wait_for_text("came from another page").await;
    }
    assert_eq!(service.outbox.audit(None, 1).await.unwrap(), [], "nothing was done");
    // From its own page the same form does it.
    browser.goto(&served.url("/letters/1?db=orders")).await;
    browser.fill("#why-1", "a duplicate").await;
    browser.press("Discard").await;
    browser.wait_for_text("discarded").await;
    other.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_plain_http_at_a_name_of_the_network_the_forms_of_the_page_work_and_no_others() {
    let (browser, service) =
        tokio::join!(Browser::open(), Service::open(Database::Postgres, "/orders"));
    service.bury(1..3).await;
    let access = Access::basic([("ann", PASSWORD, Role::Operator)]);
    let served = Served::to(served::over([("orders", &service)]), access).await;
    let with_login = served.url_by_name("/letters").replace("//", &format!("//ann:{PASSWORD}@"));
    browser.goto(&with_login).await;
    browser.goto(&served.url_by_name("/letters/1?db=orders")).await;
    // The browser says nothing of where a request comes from but its origin.
    assert_eq!(browser.run("return window.isSecureContext", Vec::new()).await, false);
    browser.fill("#why-1", "a duplicate").await;
    browser.press("Discard").await;
    browser.wait_for_text("discarded").await;
    let acts = service.outbox.audit(None, 10).await.unwrap();
    assert_eq!(acts.iter().map(|act| act.by.as_str()).collect::<Vec<_>>(), ["ann"]);

    let form = served.url_by_name("/letters/2/discard?db=orders");
    let evil = format!("<form id=f method=post action='{form}'><input name=why value=w></form>");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/", get(move || async move { Html(evil) }));
    let other = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    browser.goto(&format!("http://outbox.test:{port}/")).await;
    browser.run("document.querySelector('#f').submit()", Vec::new()).await;
    browser.wait_for_text("came from another page").await;
    assert_eq!(service.outbox.audit(None, 10).await.unwrap().len(), 1, "nothing more was done");
    other.abort();
}
