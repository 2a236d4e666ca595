//! Why something stands still, from end to end; what a text names; the history of a message.

use super::*;
use crate::outbox::{LEASE, owner_of_all};
use outbox_core::{
    admin::{
        AdminStore, DeadLetterFilter, HistoryEntry, HistoryKind, Live, OperatorNote, RelayLive,
        RouteLive,
    },
    event::NewEvent,
    testing::store::event,
};
use std::collections::BTreeSet;

fn ann() -> OperatorNote {
    OperatorNote::new("ann", "not wanted")
}

async fn dead_letter(outbox: &Outbox) -> outbox_core::event::LetterId {
    let mut letters = Vec::new();
    wait_until(SOON, "the event is a dead letter", async || {
        letters = outbox.dead_letters(&DeadLetterFilter::all(), None, 1).await.unwrap();
        letters.len() == 1
    })
    .await;
    letters.swap_remove(0).id
}

on_every_database! {
    async fn an_event_is_explained_from_its_save_to_the_decision_about_its_dead_letter(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let id = emit(&outbox, 7, EnqueueOptions::new()).await;
        let later = emit(&outbox, 7, EnqueueOptions::new()).await;
        let subject = Subject::Message(id);
        let waits = sentence(&outbox, &subject).await;
        assert!(waits.starts_with(&format!("Event {id} waits: its partition ")), "{waits}");
        assert!(waits.ends_with("has no owner, and no relay is live: start one. 1 later event of key 7 waits behind it."), "{waits}");

        let relay = refusing_relay(&outbox, 2).await;
        let failed = format!("Event {id} waits for route `billing`: 1 attempt failed (503  [2J ]0;owned), the next one is due in ");
        let told = answers(&outbox, &subject, &failed).await;
        assert!(!told.contains(char::is_control) && !told.contains('\u{202e}'), "{told}");
        let behind = sentence(&outbox, &Subject::Message(later)).await;
        assert!(behind.starts_with(&format!("Event {later} waits behind event {id} of key 7, which waits for route `billing`: 1 attempt failed")), "{behind}");
        assert!(sentence(&outbox, &Subject::Key("7".into())).await.starts_with(&failed));
        relay.shutdown(SOON).await.unwrap();

        // Its second attempt is the last one.
        run(&outbox, "UPDATE outbox_retries SET due_at = 1 WHERE due_at IS NOT NULL", Vec::new()).await;
        let relay = refusing_relay(&outbox, 2).await;
        let letter = dead_letter(&outbox).await;
        let dead = answers(&outbox, &subject, &format!("Event {id} is a dead letter of route `billing` since ")).await;
        assert!(dead.contains(&format!("(letter {letter}, exhausted after 2 attempts: 503  [2J ]0;owned), and waits until somebody redrives or discards it.")), "{dead}");
        assert!(dead.ends_with("1 later event of key 7 waits behind it."), "{dead}");
        let parked = sentence(&outbox, &Subject::Message(later)).await;
        assert!(parked.contains(&format!("event {id}, which comes before it in key 7, is a dead letter there since")), "{parked}");
        relay.shutdown(SOON).await.unwrap();

        assert_eq!(outbox.discard(&[letter], &ann()).await.unwrap(), [letter]);
        let over = sentence(&outbox, &subject).await;
        assert!(over.starts_with(&format!("Event {id} waits for nothing: it was a dead letter of route `billing`")), "{over}");
        assert!(over.contains("which ann discarded at ") && over.ends_with("(not wanted): it is not delivered."), "{over}");

        let history = outbox.history(&subject, 100).await.unwrap();
        let kinds: Vec<HistoryKind> = history.entries.iter().map(|entry| entry.kind).collect();
        use HistoryKind::{Created, DeadLetter, Failed, Resolved};
        assert_eq!(kinds, [Created, Failed, Failed, DeadLetter, Resolved], "{history:#?}");
        assert!(history.entries.iter().all(|e| e.at.is_some() && e.service == "/shop" && !e.text.contains('\u{1b}')));
        assert!(history.gone.iter().any(|gone| gone.starts_with("Its event is not in the outbox")), "{history:#?}");
        let cut = outbox.history(&subject, 2).await.unwrap();
        assert!(cut.entries.len() == 2 && cut.gone.iter().any(|gone| gone == "3 later entries are left out."), "{cut:#?}");
    }

    async fn an_open_breaker_is_explained_by_what_the_relay_wrote(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let id = emit(&outbox, 7, EnqueueOptions::new()).await;
        let (_, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let open = RouteLive {
            route: "billing".into(),
            breaker: "open".into(),
            probe_in_ms: Some(3_600_000),
            open_for_ms: Some(60_000),
            ..RouteLive::default()
        };
        let live = Live::Relay(RelayLive { routes: vec![open], in_memory: 1, ..RelayLive::default() });
        let values = vec![Value::from(fence.relay.as_str()), Value::from(live.bounded_json())];
        let now = outbox.overview().await.unwrap().now.as_micros();
        let sql = format!("INSERT INTO outbox_live (id, kind, name, body, written_at) VALUES (?, 'relay', '', ?, {now})");
        run(&outbox, &sql, values).await;
        let told = sentence(&outbox, &Subject::Message(id)).await;
        assert!(told.starts_with(&format!("Event {id} waits for route `billing`: its breaker is open since ")), "{told}");
        assert!(told.ends_with("next probe in 60 min."), "{told}");

        let overview = outbox.overview().await.unwrap();
        let [relay] = &overview.relays[..] else { panic!("{overview:#?}") };
        assert!(relay.live && relay.partitions.len() == usize::from(PARTITIONS) && overview.unowned == 0);
        assert_eq!(relay.state.as_ref().unwrap().routes[0].breaker, "open");
        // What a later program writes about itself is left out, and hides nothing.
        run(&outbox, "UPDATE outbox_live SET body = '{\"kind\":\"relay\",\"routes\":7}'", Vec::new()).await;
        assert!(outbox.overview().await.unwrap().relays[0].state.is_none());
        let told = sentence(&outbox, &Subject::Message(id)).await;
        assert!(told.contains("has not written yet what it does"), "{told}");
    }

    async fn a_control_is_shown_with_who_why_and_until_when(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let id = emit(&outbox, 7, EnqueueOptions::new()).await;
        owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let now = outbox.overview().await.unwrap().now.as_micros();
        let until = now + 3_600_000_000;
        let insert = |scope: &str, until: &str| {
            format!("INSERT INTO outbox_controls (scope, name, action, rate, set_by, reason, set_at, until) VALUES ('{scope}', 'orders', 'pause', NULL, 'ann', 'broker upgrade', {now}, {until})")
        };
        run(&outbox, &insert("topic", &until.to_string()), Vec::new()).await;
        run(&outbox, &insert("saga", &now.to_string()), Vec::new()).await;
        let told = sentence(&outbox, &Subject::Message(id)).await;
        assert!(told.starts_with(&format!("Event {id} waits, as topic `orders` is paused: ann paused it at ")), "{told}");
        let controls = outbox.overview().await.unwrap().controls;
        assert_eq!(controls.0.len(), 1, "the other one has ended: {controls:?}");
        assert!(controls.0[0].ends_in.is_some_and(|left| left > Duration::from_mins(58)));
    }

    async fn a_saga_that_is_stuck_is_explained_and_found(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let saga = stuck_saga(&outbox).await;
        let told = sentence(&outbox, &Subject::Saga(saga)).await;
        assert!(told.starts_with(&format!("Saga {saga} (`place-order` version 2) is stuck at the compensation of step `charge` since ")), "{told}");
        assert!(told.contains("(the bank is closed)"), "{told}");
        for text in [saga.to_string(), " order-7 ".to_owned()] {
            let found = outbox.find(&text).await.unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((&found[0].subject, found[0].what.as_str()), (&Subject::Saga(saga), "a saga that is stuck"));
        }
        let history = outbox.history(&Subject::Saga(saga), 100).await.unwrap();
        let (first, last) = (&history.entries[0], history.entries.last().unwrap());
        assert_eq!((first.kind, first.text.as_str()), (HistoryKind::SagaStarted, "started"));
        assert_eq!(last.text, "stuck step `charge`: the bank is closed");
        let newest = outbox.history(&Subject::Saga(saga), 1).await.unwrap();
        assert!(newest.entries == [last.clone()] && newest.gone[0].starts_with("Records before number "), "{newest:?}");
        assert!(outbox.facts(&Subject::Saga(SagaId::generate())).await.unwrap().is_none());
    }

    async fn scheduled_deferred_and_received_messages_are_explained(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let hour = Duration::from_hours(1);
        let scheduled = emit(&outbox, 7, EnqueueOptions::new().deliver_in(hour)).await;
        let told = sentence(&outbox, &Subject::Message(scheduled)).await;
        assert!(told.starts_with(&format!("Event {scheduled} is scheduled for ")), "{told}");
        assert!(told.contains("in 60 min; no relay is live to put it into the outbox then: start one."), "{told}");

        let first = defer(&outbox, "7", Some(hour)).await;
        let second = defer(&outbox, "7", None).await;
        let told = sentence(&outbox, &Subject::Message(first)).await;
        let is = format!("Message {first} is deferred for handler `send` of consumer `mail`: ");
        assert_eq!(told, format!("{is}no instance of the consumer is running: start one."));
        let handlers = r#"[{"name":"send","types":[{"name":"order.placed","version":1}]}]"#;
        let now = outbox.overview().await.unwrap().now.as_micros();
        let sql = format!("INSERT INTO outbox_instances (instance_id, consumer, max_in_flight, handlers, started_at, lease_until) VALUES ('i', 'mail', 1, '{handlers}', {now}, {})", now + 600_000_000);
        run(&outbox, &sql, Vec::new()).await;
        assert_eq!(sentence(&outbox, &Subject::Message(first)).await, format!("{is}1 attempt failed (503  [2J ]0;owned), and the next one is due in 60 min."));
        let told = sentence(&outbox, &Subject::Message(second)).await;
        assert!(told.ends_with(&format!("it waits behind message {first} of key 7.")), "{told}");
        assert!(sentence(&outbox, &Subject::Key("7".into())).await.starts_with(&is));

        let handled = MessageId::generate();
        let tx = Store::begin(&outbox).await.unwrap();
        for handler in ["send", "print"] {
            let key = outbox_core::outbox::InboxKey { consumer: "mail", handler, source: "/orders", message_id: handled };
            assert!(outbox.receive(&tx, key).await.unwrap());
        }
        outbox.commit(tx).await.unwrap();
        let told = sentence(&outbox, &Subject::Message(handled)).await;
        assert_eq!(told, format!("Message {handled} waits for nothing here: handler `print` of consumer `mail` and handler `send` of consumer `mail` handled it."));
        let unknown = MessageId::generate();
        assert!(outbox.facts(&Subject::Message(unknown)).await.unwrap().is_none());
        assert!(outbox.facts(&Subject::Key("8".into())).await.unwrap().is_none());
    }

    async fn what_a_text_names_is_found_by_keys_and_windows(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let id = emit(&outbox, 7, EnqueueOptions::new()).await;
        let scheduled = emit(&outbox, 8, EnqueueOptions::new().deliver_in(SOON)).await;
        let deferred = defer(&outbox, "9", Some(SOON)).await;
        for (text, subject, what) in [
            (id.to_string(), Subject::Message(id), "an event in the outbox"),
            (scheduled.to_string(), Subject::Message(scheduled), "a scheduled event"),
            (deferred.to_string(), Subject::Message(deferred), "a deferred delivery"),
            ("7".into(), Subject::Key("7".into()), "a key with events in the outbox"),
            ("orders/7".into(), Subject::Key("7".into()), "a key with events in the outbox"),
            ("order/7".into(), Subject::Key("7".into()), "a key with events in the outbox"),
            ("9".into(), Subject::Key("9".into()), "a key with deferred deliveries"),
        ] {
            let found = outbox.find(&text).await.unwrap();
            let found: Vec<_> = found.iter().map(|f| (&f.subject, f.what.as_str(), f.name.as_str())).collect();
            assert_eq!(found, [(&subject, what, "orders order.placed")], "{text}");
        }
        for nothing in ["", "  ", "invoices/7", "no such", "a\0b", &"k".repeat(300), "' OR 1 = 1 --"] {
            assert!(outbox.find(nothing).await.unwrap().is_empty(), "{nothing}");
        }
        let relay = refusing_relay(&outbox, 1).await;
        let letter = dead_letter(&outbox).await;
        relay.shutdown(SOON).await.unwrap();
        let found = outbox.find(&id.to_string()).await.unwrap();
        assert_eq!(found.iter().map(|f| f.what.clone()).collect::<Vec<_>>(), [format!("an open dead letter, {letter}")]);
        assert_eq!(outbox.find("7").await.unwrap().last().unwrap().what, "a key with dead letters");
    }

    async fn the_history_of_a_key_has_the_attempts_of_all_its_events(temp: &TempDatabase) {
        // More events than one statement asks about.
        const EVENTS: usize = 300;
        let outbox = installed(temp).await;
        let events: Vec<NewEvent> = (0..EVENTS).map(|_| event("7")).collect();
        outbox.schema().append(outbox.connection(), "/shop", &events).await.unwrap();
        let routes = "(SELECT 'billing' AS route UNION ALL SELECT 'ledger') r";
        let sql = format!(
            "INSERT INTO outbox_retries (partition_no, event_id, route, state, attempts_started, attempts_finished, due_at, \
             failing_us, errors, redriven) SELECT e.partition_no, e.event_id, r.route, 'waiting', 0, 1, 1, 0, ?, ? \
             FROM outbox_events e CROSS JOIN {routes}"
        );
        let errors = serde_json::json!([{ "attempt": 1, "class": "transient", "text": "503", "at": 1 }]);
        run(&outbox, &sql, vec![errors.to_string().into(), false.into()]).await;
        let history = outbox.history(&Subject::Key("7".into()), 1_000).await.unwrap();
        let failed = |entry: &&HistoryEntry| entry.kind == HistoryKind::Failed;
        let failed: Vec<&HistoryEntry> = history.entries.iter().filter(failed).collect();
        let messages: BTreeSet<_> = failed.iter().map(|entry| entry.message).collect();
        assert_eq!((failed.len(), messages.len()), (2 * EVENTS, EVENTS));
        assert!(!history.gone.iter().any(|gone| gone.contains("attempts")), "{:?}", history.gone);
    }

    async fn one_event_among_thousands_of_a_partition_is_found_by_the_time_of_its_id(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (db, schema) = (outbox.connection(), outbox.schema());
        let mut wanted = Vec::new();
        for n in 0..16 {
            let events: Vec<_> = (0..250).map(|_| event("one")).collect();
            schema.append(db, "/shop", &events).await.unwrap();
            if n % 5 == 0 {
                wanted.push(emit(&outbox, 7, EnqueueOptions::new()).await);
                let among = event("one");
                schema.append(db, "/shop", std::slice::from_ref(&among)).await.unwrap();
                wanted.push(among.message_id);
            }
        }
        for id in wanted {
            let facts = outbox.facts(&Subject::Message(id)).await.unwrap().unwrap();
            assert_eq!(facts.event.map(|event| event.message), Some(id));
        }
        let unknown = outbox.facts(&Subject::Message(MessageId::generate())).await.unwrap().unwrap();
        let told = explain(&unknown).sentence;
        assert!(told.starts_with("Nothing is stored of message ") && told.ends_with("searched around the time that the id carries."), "{told}");
        let key = outbox.facts(&Subject::Key("one".into())).await.unwrap().unwrap();
        assert!(key.behind.count >= 4_000 && !key.behind.or_more, "{}", key.behind);
    }
}
