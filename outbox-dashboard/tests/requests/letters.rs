//! One letter: redriven, discarded, purged, once.

use crate::world::{SOON, World};
use outbox_core::admin::AuditOutcome;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;
use tests::{
    databases::{Database, TempDatabase},
    equals, on_every_database, wait_until,
};

on_every_database! {
    async fn a_letter_is_redriven_once_and_the_second_tab_hears_by_whom(temp: &TempDatabase) {
        let world = World::with_letters(temp, 2).await;
        let client = world.client();
        let form = [("why", "billing is repaired")];
        let (to, _) = client.submit("/letters/1/redrive?db=orders", &form).await;
        assert_eq!(to, "/letters/1?db=orders");
        assert_eq!(world.dead_and_pending().await, (1, 1));

        for act in ["redrive", "discard"] {
            let late = client.post(&format!("/letters/1/{act}"), &[("why", "me too")]).await;
            late.says(409, &["Letter 1 was redriven by loopback at ", "billing is repaired", "Nothing was changed"]);
        }
        assert_eq!(world.dead_and_pending().await, (1, 1), "nothing is done twice");
        let audit = world.audit().await;
        let [row] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.act.as_str(), row.by.as_str(), row.reason.as_str()), ("redrive", "loopback", "billing is repaired"));
        assert_eq!((row.done, row.outcome, row.target.as_str()), (1, AuditOutcome::Done, "letter 1"));
    }

    async fn a_letter_is_discarded_and_then_its_content_deleted(temp: &TempDatabase) {
        let world = World::with_letters(temp, 1).await;
        let client = world.client();
        client.submit("/letters/1/discard", &[("why", "a duplicate")]).await;
        client.submit("/letters/1/purge", &[("why", "it has a name in it")]).await;
        assert_eq!(world.dead_and_pending().await, (0, 0));
        let acts: Vec<String> = world.audit().await.into_iter().map(|row| row.act).collect();
        assert_eq!(acts, ["discard", "purge"]);
        client.get("/letters/1/resend").await.says(409, &["Letter 1 was discarded by loopback"]);
    }
}

#[tokio::test]
async fn an_act_needs_a_reason_a_letter_and_a_database_that_exist() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    for (path, form, status, says) in [
        ("/letters/1/redrive", &[("why", " ")][..], 400, "A reason is missing"),
        ("/letters/1/redrive", &[], 400, "A reason is missing"),
        (
            "/letters/1/redrive?db=stock",
            &[("why", "x")],
            404,
            "no database of this dashboard is named",
        ),
        ("/letters/9/redrive", &[("why", "x")], 404, "There is no dead letter 9"),
        ("/letters/x/redrive", &[("why", "x")], 404, "A dead letter has a number"),
        ("/letters/-1/discard", &[("why", "x")], 404, "A dead letter has a number"),
        ("/letters/1/bury", &[("why", "x")], 404, "There is no such page"),
    ] {
        client.post(path, form).await.says(status, &[says]);
    }
    client.get("/letters/1/redrive").await.says(405, &["is not asked that way"]);
    let no_form = client.post_json("/letters/1/redrive", &serde_json::json!({ "why": "x" })).await;
    no_form.says(415, &["That form cannot be read"]);
    let huge = "x".repeat(600 * 1024);
    let answer = client.post("/letters/1/resend", &[("payload", &huge), ("why", "x")]).await;
    answer.says(413, &["That form cannot be read", "outbox dead-letters resend"]);
    assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_on_letters_goes_on_to_its_end_when_its_client_hangs_up() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = World::open(&temp).await;
    // More than one transaction copies.
    for _ in 0..12 {
        world.place("order-0", &"x".repeat(400 * 1024)).await;
    }
    world.bury(12).await;
    // The second transaction waits.
    let held = world.outbox.connection().begin().await.unwrap();
    let last = "SELECT letter_id FROM outbox_dead_letters WHERE letter_id = 12 FOR UPDATE";
    held.execute_unprepared(last).await.unwrap();
    let client = world.client();
    let document =
        json!({ "letters": (1..=12).collect::<Vec<_>>(), "why": "all of them are duplicates" });
    let asked = tokio::spawn(async move {
        client.post_json("/api/dead-letters/discard", &document).await;
    });
    wait_until(SOON, "the first transaction is done", async || {
        equals(world.audit().await.len(), 1)
    })
    .await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled(), "the client has hung up");
    held.rollback().await.unwrap();
    wait_until(SOON, "all are discarded, and the audit says so", async || {
        let audit = world.audit().await;
        equals((audit[0].done, audit[0].outcome), (12, AuditOutcome::Done))
    })
    .await;
}
