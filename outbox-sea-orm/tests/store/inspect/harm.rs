//! Texts that were made to harm, damaged rows, and a database without tables.

use super::*;
use crate::outbox::{LEASE, owner_of_all};
use outbox_core::admin::{AdminStore, DeadLetterFilter, ListStore, OperatorNote, Page};
use serde_json::json;

/// A history of one error, as a row may have it.
fn history(text: &str) -> Value {
    Value::from(json!([{ "attempt": 1, "class": "transient", "text": text, "at": 1 }]).to_string())
}

/// Fails where a text could harm a terminal, or is endless.
fn is_harmless(shown: &impl std::fmt::Debug) {
    // Debug escapes what is unsafe, so the escape itself is looked for.
    let text = format!("{shown:?}");
    assert!(text.len() < 32 * 1024, "{} bytes", text.len());
    for unsafe_part in ["\\u{1b}", "\\u{7}", "\\u{202e}", "\\0"] {
        assert!(!text.contains(unsafe_part), "{unsafe_part} in {text}");
    }
}

async fn everything_is_harmless(outbox: &Outbox, subjects: &[Subject]) {
    for subject in subjects {
        let facts = outbox.facts(subject).await.unwrap().expect("it is known");
        is_harmless(&explain(&facts));
        is_harmless(&outbox.history(subject, 100).await.unwrap());
    }
    is_harmless(&outbox.letter_groups(&DeadLetterFilter::all()).await.unwrap());
    is_harmless(&outbox.deferred(None, Page { after: None, limit: 100 }).await.unwrap());
    is_harmless(&outbox.overview().await.unwrap());
    for subject in subjects {
        let (_, id) =
            subject.to_string().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        is_harmless(&outbox.find(&id).await.unwrap());
    }
}

on_every_database! {
    async fn escapes_and_endless_errors_in_stored_texts_do_no_harm(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let waiting = emit(&outbox, 7, EnqueueOptions::new()).await;
        let deferred = defer(&outbox, "9", Some(SOON)).await;
        let saga = stuck_saga(&outbox).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let stored = crate::outbox::read_all(&*store.reader).await;
        assert_eq!(stored.len(), 1);
        let sql = format!(
            "INSERT INTO outbox_retries (partition_no, event_id, route, state, attempts_started, attempts_finished, due_at, \
             failing_us, errors, redriven) VALUES ({}, {}, 'billing', 'waiting', 0, 1, 1, 0, '[]', ?)",
            stored[0].partition, stored[0].id
        );
        run(&outbox, &sql, vec![Value::from(false)]).await;
        let letters = crate::bytes::bury_all(&store, &fence, true).await;
        let letter = outbox.dead_letters(&DeadLetterFilter::all(), None, 1).await.unwrap().swap_remove(0);
        assert_eq!((letter.id, letter.message.unwrap().id), (letters[0], waiting));
        let again = emit(&outbox, 7, EnqueueOptions::new()).await;
        let subjects = [
            Subject::Message(waiting),
            Subject::Message(again),
            Subject::Message(deferred),
            Subject::Saga(saga),
            Subject::Key("7".into()),
        ];
        for text in [EVIL.to_owned(), EVIL.repeat(2_000), "x".repeat(1 << 20)] {
            for table in ["outbox_deferred", "outbox_dead_letters"] {
                run(&outbox, &format!("UPDATE {table} SET errors = ?"), vec![history(&text)]).await;
            }
            let record = json!({ "failed": { "step": "charge", "attempt": 1, "error": text, "wait_us": 1 } });
            run(&outbox, "UPDATE outbox_saga_log SET body = ? WHERE kind = 'failed' OR seq > 1", vec![Value::from(record.to_string())]).await;
            everything_is_harmless(&outbox, &subjects).await;
        }
        outbox.discard(&letters, &OperatorNote::new(EVIL, EVIL.repeat(1_000))).await.unwrap();
        everything_is_harmless(&outbox, &subjects).await;
    }

    async fn a_row_that_does_not_decode_hides_nothing(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let saga = stuck_saga(&outbox).await;
        let deferred = defer(&outbox, "9", Some(SOON)).await;
        for (table, column) in [
            ("outbox_deferred", "errors"),
            ("outbox_sagas", "progress"),
            ("outbox_saga_log", "body"),
        ] {
            run(&outbox, &format!("UPDATE {table} SET {column} = 'no JSON'"), Vec::new()).await;
        }
        let told = sentence(&outbox, &Subject::Saga(saga)).await;
        assert!(told.contains("is stuck since ") && told.contains("(its progress cannot be read)"), "{told}");
        assert!(!outbox.history(&Subject::Saga(saga), 100).await.unwrap().entries.is_empty());
        assert!(sentence(&outbox, &Subject::Message(deferred)).await.contains("is deferred for handler `send`"));
    }

    async fn a_database_without_tables_says_so_and_what_to_do(temp: &TempDatabase) {
        let db = temp.connect().await;
        db.execute_unprepared("CREATE TABLE other (id INT)").await.unwrap();
        let error = Outbox::new(db).await.unwrap_err().to_string();
        assert!(error.contains("its tables are missing") && error.contains("run the migration"), "{error}");

        let outbox = installed(temp).await;
        outbox.connection().execute_unprepared("DROP TABLE outbox_live").await.unwrap();
        let error = outbox.overview().await.unwrap_err().to_string();
        assert!(error.contains("outbox_live") && error.contains("run the migration"), "{error}");
    }
}
