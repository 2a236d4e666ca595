//! What operators do: planned, confirmed, applied, audited.

use crate::{
    program::{Ran, command, on, run},
    world::{CARD, World},
};
use outbox_sea_orm::admin::AdminStore;
use sea_orm::ConnectionTrait;
use std::{fs, process::Stdio};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

async fn with_letters(temp: &TempDatabase, letters: u64) -> World {
    let world = World::open(temp).await;
    for number in 0..letters {
        world.place(&format!("order-{number}"), "x").await;
    }
    world.bury(letters, "503 from billing").await;
    world
}

/// An outbox with the letter 1, whose content is hidden, and the letter 2, whose content is not.
async fn with_a_hidden_letter(temp: &TempDatabase) -> World {
    let world = World::open(temp).await;
    world.add_card().await;
    world.bury(1, "503 for canary-4111").await;
    world.place("order-1", "x").await;
    world.bury(2, "503 from billing").await;
    world
}

/// Asks for the content of letter 1.
fn show_content(world: &World, with: &[&str]) -> Ran {
    on(&world.url, &[&["dead-letters", "show", "1", "--show-content"][..], with].concat())
}

/// Gives the rows of the audit, the newest first.
fn audit(world: &World) -> Vec<serde_json::Value> {
    let audit = on(&world.url, &["--json", "audit"]).exits(0).json();
    audit[0]["result"].as_array().unwrap().clone()
}

on_every_database! {
    async fn a_hidden_content_is_shown_to_who_says_why_and_the_audit_has_it(temp: &TempDatabase) {
        let world = with_a_hidden_letter(temp).await;
        let hidden = on(&world.url, &["dead-letters", "show", "1"]).exits(0).out;
        assert!(hidden.contains("(hidden)") && !hidden.contains(CARD), "{hidden}");
        let long = "x".repeat(1_001);
        for (with, says) in [
            (&["--why", " "][..], "a reason is missing"),
            (&[], "a reason is missing"),
            (&["--why", "two\nlines"], "a reason is one line"),
            (&["--why", long.as_str()], "1000 characters at most"),
        ] {
            let ran = show_content(&world, with).exits(2);
            assert!(ran.err.contains(says) && !ran.out.contains(CARD), "{ran:?}");
        }
        let ran = on(&world.url, &["dead-letters", "show", "1", "--why", "x"]).exits(2);
        assert!(ran.err.contains("--why is for --show-content"), "{}", ran.err);
        let of = |letter| ["dead-letters", "show", letter, "--show-content", "--why", "x"];
        let ran = on(&world.url, &of("2")).exits(4);
        assert!(ran.err.contains("the content of letter 2 is not hidden"), "{}", ran.err);
        on(&world.url, &of("9")).exits(1);
        assert_eq!(audit(&world), Vec::<serde_json::Value>::new(), "nobody saw anything");

        let shown = show_content(&world, &["--why", "ann asks which card it was"]).exits(0).out;
        assert!(shown.contains(CARD) && shown.contains("503 for canary-4111"), "{shown}");
        let rows = audit(&world);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        assert_eq!((text("by"), text("reason"), text("act")), ("ann".into(), "ann asks which card it was".into(), "show content".into()));
        let target = text("target");
        assert!(target.starts_with("letter 1, message ") && target.ends_with(" of type card.added"), "{target}");
        assert_eq!((&row["done"], &row["outcome"]), (&1.into(), &"done".into()));
        let hidden = on(&world.url, &["dead-letters", "show", "1"]).exits(0).out;
        assert!(!hidden.contains(CARD), "it was shown once: {hidden}");
    }

    async fn a_content_that_cannot_be_audited_is_not_shown(temp: &TempDatabase) {
        let world = with_a_hidden_letter(temp).await;
        world.outbox.connection().execute_unprepared("DROP TABLE outbox_audit").await.unwrap();
        let ran = show_content(&world, &["--why", "ann asks which card it was"]).exits(3);
        assert!(!ran.out.contains(CARD) && !ran.err.contains(CARD), "{ran:?}");
    }

    async fn a_redrive_is_planned_needs_a_yes_and_is_audited(temp: &TempDatabase) {
        let world = with_letters(temp, 3).await;
        let ran = on(&world.url, &["dead-letters", "redrive"]).exits(4);
        assert!(ran.err.contains("--all") || ran.err.contains("all"), "an empty filter: {}", ran.err);
        let ran = on(&world.url, &["dead-letters", "redrive", "--route", "billing", "--plan"]).exits(0);
        assert!(ran.out.contains("3 letters, the first: 1, 2, 3"), "{}", ran.out);
        let ran = on(&world.url, &["dead-letters", "redrive", "--route", "billing"]).exits(4);
        assert!(ran.err.contains("--yes"), "{}", ran.err);
        assert_eq!(world.outbox.stats().await.unwrap().dead, 3, "nothing was done");

        let all = ["--yes", "dead-letters", "redrive", "--route", "billing", "--why", "repaired"];
        let ran = on(&world.url, &all).exits(0);
        assert!(ran.out.contains("redrive: 3 letters"), "{}", ran.out);
        let stats = world.outbox.stats().await.unwrap();
        assert_eq!((stats.dead, stats.pending), (0, 3));
        let ran = on(&world.url, &all).exits(1);
        assert!(ran.err.contains("no open dead letter matches"), "{}", ran.err);

        let audit = on(&world.url, &["--json", "audit"]).exits(0).json();
        let rows = audit[0]["result"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{audit}");
        let row = &rows[0];
        assert_eq!((&row["by"], &row["reason"], &row["act"]), (&"ann".into(), &"repaired".into(), &"redrive".into()));
        assert_eq!((&row["done"], &row["outcome"]), (&3.into(), &"done".into()));
    }

    async fn letters_are_named_by_number_and_a_content_can_be_changed(temp: &TempDatabase) {
        let world = with_letters(temp, 3).await;
        on(&world.url, &["--yes", "dead-letters", "discard", "1"]).exits(0);
        on(&world.url, &["--yes", "dead-letters", "discard", "1"]).exits(1);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("content.json");
        fs::write(&file, r#"{"order":"order-1","note":"mended"}"#).unwrap();
        let arguments = ["--yes", "dead-letters", "resend", "2", "--payload", file.to_str().unwrap()];
        let ran = on(&world.url, &arguments).exits(0);
        assert!(ran.out.contains("letter 2 goes again as message "), "{}", ran.out);
        let ran = on(&world.url, &["dead-letters", "show", "2"]).exits(0);
        assert!(ran.out.contains("resolved   resent"), "{}", ran.out);
        on(&world.url, &arguments).exits(4);
        let stats = world.outbox.stats().await.unwrap();
        assert_eq!((stats.dead, stats.pending), (1, 1));
    }

    async fn a_confirmation_is_asked_on_standard_input_only_where_it_is_a_terminal(temp: &TempDatabase) {
        let world = with_letters(temp, 1).await;
        let mut asked = command(&["--database", &world.url, "dead-letters", "discard", "1"]);
        asked.stdin(Stdio::piped());
        run(asked).exits(4);
        assert_eq!(world.outbox.stats().await.unwrap().dead, 1);
    }

    async fn a_key_of_a_negative_number_is_paused_and_options_that_do_nothing_are_refused(temp: &TempDatabase) {
        let world = World::open(temp).await;
        on(&world.url, &["--yes", "pause", "key", "-7", "--for", "1h"]).exits(0);
        on(&world.url, &["--yes", "resume", "key", "-7"]).exits(0);
        on(&world.url, &["explain", "-7", "--json"]).exits(1);
        for with in [&["--topic", "orders"][..], &["--all"], &["--canary"]] {
            let all = [&["--yes", "dead-letters", "discard", "1"][..], with].concat();
            let ran = on(&world.url, &all).exits(2);
            assert!(ran.err.contains("cannot be used with"), "{}", ran.err);
        }
    }

    async fn a_route_is_paused_limited_and_resumed_with_who_and_why(temp: &TempDatabase) {
        let world = World::open(temp).await;
        on(&world.url, &["--yes", "pause", "route", "billing", "--for", "1h", "--why", "they migrate"]).exits(0);
        on(&world.url, &["--yes", "rate", "billing", "100"]).exits(0);
        on(&world.url, &["--yes", "rate", "billing", "0"]).exits(4);
        let overview = on(&world.url, &["overview"]).exits(0).out;
        assert!(overview.contains("route billing is paused until ") && overview.contains("they migrate"), "{overview}");
        assert!(overview.contains("route billing is limited to 100 events/s"), "{overview}");
        on(&world.url, &["--yes", "resume", "route", "billing"]).exits(0);
        let ran = on(&world.url, &["--yes", "resume", "route", "billing"]).exits(1);
        assert!(ran.out.contains("neither paused nor limited"), "{}", ran.out);
        let audit = on(&world.url, &["audit"]).exits(0).out;
        for act in ["pause", "rate", "resume"] {
            assert!(audit.contains(act), "{act}: {audit}");
        }
    }

    async fn a_key_is_erased_after_its_plan_and_what_still_waits_is_left(temp: &TempDatabase) {
        let world = World::open(temp).await;
        for order in ["order-1", "order-1", "order-2"] {
            world.place(order, "secret").await;
        }
        world.bury(3, "503 from billing").await;
        world.place("order-1", "secret").await;
        let plan = on(&world.url, &["--json", "erase", "order-1", "--plan"]).exits(0).json();
        let of = |answer: &serde_json::Value, table: &str, count: &str| {
            let tables = answer["tables"].as_array().or(answer.as_array()).unwrap().clone();
            let found = tables.iter().find(|it| it["table"].as_str().unwrap().ends_with(table));
            let counted = &found.unwrap()[count];
            counted["count"].as_u64().or(counted.as_u64()).unwrap()
        };
        let found = &plan["result"];
        assert_eq!((of(found, "dead_letters", "erased"), of(found, "events", "left")), (2, 1));
        let ran = on(&world.url, &["erase", "order-1"]).exits(4);
        assert!(ran.err.contains("--yes") && ran.out.contains("1 events still wait"), "{ran:?}");
        assert_eq!(world.outbox.stats().await.unwrap().dead, 3, "nothing was done");

        let ran = on(&world.url, &["--yes", "erase", "order-1", "--why", "asked for"]).exits(0);
        assert!(ran.out.contains("erased: 2 rows"), "{}", ran.out);
        let shown = on(&world.url, &["dead-letters", "show", "1"]).exits(0).out;
        assert!(!shown.contains("secret"), "{shown}");
        let stats = world.outbox.stats().await.unwrap();
        assert_eq!((stats.dead, stats.pending), (1, 1), "another key's, and what waits");
        let ran = on(&world.url, &["--yes", "erase", "order-1"]).exits(1);
        assert!(ran.err.contains("still in use"), "{}", ran.err);
        on(&world.url, &["--yes", "erase", "nobody"]).exits(1);
        on(&world.url, &["erase", "nobody", "--plan"]).exits(1);
        let audit = on(&world.url, &["audit"]).exits(0).out;
        assert!(audit.contains("erase") && audit.contains("asked for"), "{audit}");
    }

    async fn a_stuck_saga_is_shown_skipped_and_not_skipped_twice(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.get_stuck("order-7").await;
        let shown = on(&world.url, &["sagas", "show", "order-7"]).exits(0).out;
        assert!(shown.contains("stuck") && shown.contains("the carrier is closed"), "{shown}");
        let drawn = on(&world.url, &["sagas", "show", "order-7", "--mermaid"]).exits(0).out;
        assert!(drawn.starts_with("flowchart TD") && drawn.contains("hand-over"), "{drawn}");
        let ran = on(&world.url, &["--yes", "sagas", "skip", "order-7", "pack"]).exits(4);
        assert!(ran.err.contains("its state does not allow that"), "{}", ran.err);
        on(&world.url, &["--yes", "sagas", "skip", "order-7", "hand-over", "--why", "by hand"]).exits(0);
        on(&world.url, &["--yes", "sagas", "skip", "order-7", "hand-over"]).exits(4);
        let listed = on(&world.url, &["sagas", "list", "--state", "stuck"]).exits(0).out;
        assert!(listed.contains("no saga matches"), "{listed}");
    }
}

#[tokio::test]
async fn a_hidden_content_of_several_databases_is_shown_of_none_until_one_is_named() {
    let orders = TempDatabase::create(Database::Sqlite).await;
    let billing = TempDatabase::create(Database::Sqlite).await;
    let mut both = Vec::new();
    for temp in [&orders, &billing] {
        with_a_hidden_letter(temp).await;
        both.extend(["--database", temp.url()]);
    }
    both.extend(["dead-letters", "show", "1", "--show-content", "--why", "ann asks"]);
    let ran = run(command(&both)).exits(2);
    assert!(ran.err.contains("name the database to act on"), "{}", ran.err);
    assert!(!ran.out.contains(CARD) && !ran.err.contains(CARD), "{ran:?}");
}
