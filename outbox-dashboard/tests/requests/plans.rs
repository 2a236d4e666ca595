//! Plans: made, shown, applied with their progress, cancelled.

use crate::{client::Client, world::World};
use outbox_core::admin::AuditOutcome;
use sea_orm::ConnectionTrait;
use tests::{
    databases::{Database, TempDatabase},
    equals, on_every_database, wait_until,
};

const ALL_OF_BILLING: [(&str, &str); 2] = [("act", "redrive"), ("route", "billing")];

/// Loads the page of a plan until it says this.
async fn until_it_says(client: &Client, page: &str, text: &str) {
    wait_until(crate::world::SOON, "the page says it", async || {
        let answer = client.get(page).await;
        if answer.body.contains(text) { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

on_every_database! {
    async fn all_letters_of_a_filter_are_planned_and_then_redriven_with_one_row_of_the_audit(temp: &TempDatabase) {
        let world = World::with_letters(temp, 12).await;
        let client = world.client();
        let (page, plan) = client.submit("/letters/plan", &ALL_OF_BILLING).await;
        plan.says(200, &["12 letters", "would be redriven", "letter 10", "Canary", "Why (for the audit)"]);
        assert!(!plan.body.contains("letter 11"), "the first ten are named: {}", plan.body);
        assert_eq!((world.dead_and_pending().await, world.audit().await), ((12, 0), Vec::new()), "a plan does nothing");

        let apply = page.replace('?', "/apply?");
        client.post(&apply, &[]).await.says(400, &["A reason is missing"]);
        let (_, _) = client.submit(&apply, &[("why", "repaired"), ("watch", "0"), ("canary", "1")]).await;
        until_it_says(&client, &page, "done</span>").await;
        client.get(&page).await.says(200, &["12 letters</b> redriven", "By <bdi>loopback</bdi>", "repaired", "Plan again"]);
        assert_eq!(world.dead_and_pending().await, (0, 12));
        let audit = world.audit().await;
        let [row] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.act.as_str(), row.by.as_str(), row.reason.as_str()), ("redrive", "loopback", "repaired"));
        assert_eq!((row.done, row.skipped, row.outcome), (12, 0, AuditOutcome::Done));

        let again = client.post(&apply, &[("why", "once more")]).await;
        again.says(409, &["has ended as done: redrove 12 letters", "The plan as it stands"]);
        assert_eq!(world.audit().await.len(), 1, "nothing is done twice");
    }

    async fn a_canary_that_waits_is_cancelled_from_another_request_and_the_rest_stays_open(temp: &TempDatabase) {
        let world = World::with_letters(temp, 5).await;
        let client = world.client();
        let (page, _) = client.submit("/letters/plan", &ALL_OF_BILLING).await;
        let form = [("why", "carefully"), ("canary", "1"), ("watch", "3600")];
        let (_, running) = client.submit(&page.replace('?', "/apply?"), &form).await;
        running.says(200, &["1 letters</b> redriven, 4 to go", "<progress value=\"1\" max=\"5\"", "Cancel after the present chunk"]);
        assert_eq!(world.dead_and_pending().await, (4, 1), "one letter, then it watches");

        // A second tab that applies it too joins the one that is under way.
        let (_, joined) = client.submit(&page.replace('?', "/apply?"), &[("why", "impatient")]).await;
        joined.says(200, &["1 letters</b> redriven, 4 to go", "carefully"]);
        let (_, cancelled) = client.submit(&page.replace('?', "/cancel?"), &[]).await;
        cancelled.says(200, &["cancelled</span>", "4 stay open"]);
        let audit = world.audit().await;
        let [row, cancel] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.done, row.outcome, row.reason.as_str()), (1, AuditOutcome::Cancelled, "carefully"));
        assert_eq!((cancel.act.as_str(), cancel.by.as_str(), cancel.plan), ("cancel plan", "loopback", row.plan));
        client.get("/audit").await.says(200, &["cancel plan", "no reason was asked for"]);
        client.post(&page.replace('?', "/cancel?"), &[]).await.says(409, &["has ended as cancelled"]);
    }

    async fn a_plan_that_another_process_applies_is_shown_joined_and_ended_here(temp: &TempDatabase) {
        use outbox_core::admin::{Act, ActStore, DeadLetterFilter, OperatorNote};
        let world = World::with_letters(temp, 3).await;
        let filter = DeadLetterFilter::all().route("billing");
        let plan = world.outbox.plan(Act::Discard, &filter, false).await.unwrap();
        world.outbox.apply_chunk(plan.id, 1, &OperatorNote::new("bob", "by the command line")).await.unwrap();

        let (client, page) = (world.client(), format!("/plans/{}?db=orders", plan.id));
        client.get(&page).await.says(200, &["1 letters</b> discarded, 2 to go", "This process does not apply the plan", "By <bdi>bob</bdi>", "Go on with 2 letters"]);
        let (_, cancelled) = client.submit(&page.replace('?', "/cancel?"), &[("why", "bob is on leave")]).await;
        cancelled.says(200, &["cancelled</span>", "2 stay open"]);
        assert_eq!(world.dead_and_pending().await.0, 2);
        let rows = world.audit().await.into_iter().map(|row| (row.act, row.by, row.reason)).collect::<Vec<_>>();
        let row = |act: &str, by: &str, why: &str| (act.to_owned(), by.to_owned(), why.to_owned());
        assert_eq!(rows, [row("discard", "bob", "by the command line"), row("cancel plan", "loopback", "bob is on leave")]);
    }
}

#[tokio::test]
async fn a_cancellation_that_the_database_refuses_stops_the_plan_that_runs_here() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 5).await;
    let client = world.client();
    let (page, _) = client.submit("/letters/plan", &ALL_OF_BILLING).await;
    let form = [("why", "carefully"), ("canary", "1"), ("watch", "3600")];
    client.submit(&page.replace('?', "/apply?"), &form).await;
    let refuses = "CREATE TRIGGER refusing BEFORE INSERT ON outbox_audit WHEN NEW.act = 'cancel plan' \
                   BEGIN SELECT RAISE(ABORT, 'the audit is full'); END";
    world.outbox.connection().execute_unprepared(refuses).await.unwrap();
    let refused = client.post(&page.replace('?', "/cancel?"), &[]).await;
    let is_error = refused.status.is_client_error() || refused.status.is_server_error();
    assert!(is_error, "{}: {}", refused.status, refused.body);
    wait_until(crate::world::SOON, "the plan has stopped", async || {
        let outcomes = world.audit().await.into_iter().map(|row| row.outcome);
        equals(outcomes.collect::<Vec<_>>(), [AuditOutcome::Cancelled])
    })
    .await;
    assert_eq!(world.dead_and_pending().await, (4, 1), "the rest stays open");
}

#[tokio::test]
async fn letters_that_others_resolved_since_the_plan_are_skipped_and_said() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 3).await;
    let client = world.client();
    let (page, _) = client.submit("/letters/plan", &ALL_OF_BILLING).await;
    client.submit("/letters/2/discard", &[("why", "a duplicate")]).await;
    world.place("order-9", "too late for the plan").await;
    world.bury(3).await;
    client.submit(&page.replace('?', "/apply?"), &[("why", "repaired")]).await;
    until_it_says(&client, &page, "done</span>").await;
    client.get(&page).await.says(200, &["2 letters</b> redriven", "1 left as they were"]);
    wait_until(crate::world::SOON, "the letter after the plan is open", async || {
        equals(world.dead_and_pending().await, (1, 2))
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_is_wrong_is_refused_before_it_is_stored() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    for (form, status, says) in [
        (&[("act", "redrive")][..], 409, "the filter has no condition"),
        (&[("route", "billing")], 400, "the field `act` is missing"),
        (
            &[("act", "dance"), ("route", "billing")],
            400,
            "`act` is `redrive`, `discard` or `purge`",
        ),
        (&[("act", "redrive"), ("reason", "sad")], 400, "such as `rejected`"),
        (&[("act", "redrive"), ("older-than", "x")], 400, "a span of time"),
    ] {
        let answer = client.post("/letters/plan", form).await;
        answer.says(status, &[says]);
    }
    let (_, all) = client.submit("/letters/plan", &[("act", "purge"), ("all", "1")]).await;
    all.says(200, &["1 letters", "purged", "nothing brings them back"]);
    let (_, none) =
        client.submit("/letters/plan", &[("act", "discard"), ("route", "no-such")]).await;
    none.says(200, &["No open letter matches"]);
    client.get("/plans/99?db=orders").await.says(404, &["There is no plan 99", "Plan again"]);
    let answer = client.post("/plans/99/apply", &[("why", "x")]).await;
    answer.says(404, &["There is no plan 99"]);
}
