//! What was saved is found, and nothing else.

use super::{
    PARTITIONS, StoreFixture, WINDOW, all_partitions, event, owner_of_all, partition_of_key,
    read_after, read_all, row, save, saved,
};
use crate::{
    event::{EventId, Headers, NewEvent},
    failure::{DeadReason, RetryPolicy},
    outbox::{NewLetter, PartitionRead, ReadPlan, RouteState, RouteUpdate},
};
use std::time::Duration;

/// Contents that a database, a driver or a careless line of code might change.
fn strange() -> Vec<NewEvent> {
    let payloads: [&[u8]; 6] = [
        b"",
        b"\0",
        &[0xff, 0xfe, 0x00, 0xc0],
        b"{\"a\":1,\"a\":2.0e0}",
        b"'; DROP TABLE outbox_events; --",
        b"\\x00",
    ];
    let keys = ["a ", " a", "\u{1f980} \u{e4}", "'\"`\\%_", "{events}?$1", "a"];
    let mut events: Vec<NewEvent> = payloads
        .iter()
        .zip(keys)
        .map(|(payload, key)| NewEvent { payload: payload.to_vec().into(), ..event(key) })
        .collect();
    events.push(NewEvent { key: None, aggregate_type: None, event_version: u16::MAX, ..event("") });
    events.push(NewEvent { payload: vec![0xa5; 1024 * 1024].into(), ..event("large") });
    let mut headers = Headers::new();
    for (name, value) in [
        ("tenant", "\u{e4} \"quoted\" \\ \u{1f980}"),
        ("empty", ""),
        ("outboxretry", "no policy at all"),
    ] {
        headers.insert(name, value).expect("the header is legal");
    }
    events.push(NewEvent {
        headers,
        content_type: "text/plain; charset=utf-8".into(),
        ..event("headers")
    });
    events
}

/// Payloads, keys and headers come back byte for byte.
pub async fn what_was_saved_is_read_unchanged<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let saved = strange();
    save(&fixture, &saved).await;
    let read = read_all(&store).await;
    assert_eq!(read.len(), saved.len());
    for (saved, read) in saved.iter().zip(&read) {
        let message = read.body.as_ref().expect("the row decodes");
        assert_eq!(message.sequence, Some(read.id));
        assert_eq!(message.id, saved.message_id);
        assert_eq!((&message.key, &message.aggregate_type), (&saved.key, &saved.aggregate_type));
        assert_eq!(
            (&message.event_type, message.event_version),
            (&saved.event_type, saved.event_version)
        );
        assert_eq!((&message.topic, &message.content_type), (&saved.topic, &saved.content_type));
        assert!(message.payload == saved.payload, "the payload of {:?} was changed", saved.key);
        assert_eq!(message.headers, saved.headers);
        assert!(!message.source.is_empty());
        assert_eq!((message.expires_at, read.expires_in, message.retry), (None, None, None));
        if let Some(key) = &saved.key {
            assert_eq!(read.partition, partition_of_key(key));
        }
    }
}

/// A policy and a time to live travel with the event, and are no header of it.
pub async fn an_event_of_its_own_policy_and_time_to_live_keeps_both<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let retry = RetryPolicy::attempts(3, Duration::from_millis(250));
    let hour = Duration::from_hours(1);
    let mut headers = Headers::new();
    headers.insert("tenant", "t-1").expect("the header is legal");
    let lasting =
        NewEvent { ttl: Some(hour), retry: Some(retry), headers: headers.clone(), ..event("a") };
    save(&fixture, &[lasting, NewEvent { ttl: Some(Duration::ZERO), ..event("a") }]).await;
    let read = read_all(&store).await;
    let message = read[0].body.as_ref().expect("the row decodes");
    assert_eq!((message.retry, &message.headers), (Some(retry), &headers));
    let expires_at = message.expires_at.expect("it has a time to live");
    assert_eq!(expires_at.since(message.created_at), hour);
    let left = read[0].expires_in.expect("it has a time to live");
    assert!(left <= hour && left > hour - Duration::from_mins(5), "{left:?}");
    assert_eq!(read[1].expires_in, Some(Duration::ZERO), "what is past is zero");
}

/// What was rolled back was never there.
pub async fn nothing_of_a_rolled_back_transaction_is_read<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let mut tx = fixture.begin().await;
    fixture.append(&mut tx, &[event("a"), event("b")]).await;
    drop(tx);
    save(&fixture, &[event("c")]).await;
    let keys: Vec<_> = read_all(&store)
        .await
        .into_iter()
        .map(|e| e.body.expect("the row decodes").key.clone())
        .collect();
    assert_eq!(keys, [Some("c".to_owned())]);
}

/// An event whose id was given first and whose transaction committed last is found by looking back.
pub async fn ids_committed_out_of_order_are_both_found<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let info = store.leases.info().await.expect("the outbox is known");
    assert_eq!(info.partitions, PARTITIONS);
    if !info.ids_commit_out_of_order {
        // One writer: there is no second transaction to open. Ids commit as they are given.
        let places = saved(&fixture, &store, "a", 2).await;
        assert!(places[0].1 < places[1].1);
        return;
    }
    let (mut early, mut late) = (fixture.begin().await, fixture.begin().await);
    fixture.append(&mut early, &[event("a")]).await;
    fixture.append(&mut late, &[event("a")]).await;
    fixture.commit(late).await;
    let found = read_all(&store).await;
    assert_eq!(found.len(), 1, "the other is not committed");
    let position = found[0].id;

    fixture.commit(early).await;
    let part = partition_of_key("a");
    let read = read_after(&store, position, true).await.swap_remove(usize::from(part.0));
    assert!(read.past.is_empty());
    let unknown: Vec<EventId> = read.window.into_iter().filter(|id| *id != position).collect();
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0] < position);
    let fetched = store
        .reader
        .fetch(&[(part, unknown[0]), (part, EventId(i64::MAX))], u32::MAX)
        .await
        .expect("a fetch succeeds");
    assert_eq!(
        fetched.iter().map(|e| e.id).collect::<Vec<_>>(),
        unknown,
        "absent ids are left out"
    );
    assert!(fetched[0].body.is_ok());
}

/// The window is read where a read is asked to, and where it finds something; up to the position, and no further back than
/// it is long.
pub async fn a_read_looks_back_where_it_is_asked_or_finds_something<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let places = saved(&fixture, &store, "a", 5).await;
    let ids: Vec<EventId> = places.iter().map(|(_, id)| *id).collect();
    let read = async |after: EventId, look_back, window| {
        let partitions =
            vec![PartitionRead { partition: places[0].0, after, limit: 10, look_back }];
        store
            .reader
            .read(&ReadPlan { partitions, window, payload_limit: u32::MAX })
            .await
            .expect("a read succeeds")
            .swap_remove(0)
    };
    let quiet = read(ids[4], false, WINDOW).await;
    assert!(quiet.past.is_empty() && quiet.window.is_empty());
    assert_eq!(read(ids[4], true, WINDOW).await.window, ids);
    assert_eq!(read(ids[2], false, WINDOW).await.window, ids[..3]);
    assert_eq!(read(ids[2], false, 2).await.window, ids[1..3]);
    assert_eq!(read(ids[2], true, 0).await.window, []);
}

/// A read that was cut says so, and the next one goes on behind it.
pub async fn a_read_says_where_its_limit_cut_it<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let places = saved(&fixture, &store, "a", 7).await;
    let (mut found, mut after, mut cuts) = (Vec::new(), EventId(0), Vec::new());
    loop {
        let partitions =
            vec![PartitionRead { partition: places[0].0, after, limit: 3, look_back: false }];
        let plan = ReadPlan { partitions, window: WINDOW, payload_limit: u32::MAX };
        let read = store.reader.read(&plan).await.expect("a read succeeds").swap_remove(0);
        cuts.push(read.full);
        found.extend(read.past.iter().map(|e| (e.partition, e.id)));
        let Some(last) = read.past.last() else { break };
        after = last.id;
    }
    assert_eq!(found, places);
    assert_eq!(cuts, [true, true, false, false]);
}

/// An id is never given twice: a relay that is past it would never read the second event.
pub async fn an_empty_table_does_not_begin_ids_again<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let mut highest = EventId(0);
    for _ in 0..3 {
        let places = saved(&fixture, &store, "a", 3).await;
        assert!(places[0].1 > highest, "{} after {highest}", places[0].1);
        highest = places[2].1;
        store.settler.finish(&fence, &places).await.expect("a settle succeeds");
        assert_eq!(fixture.counts().await, (0, 0));
    }
}

/// Pages, whole and of ids alone, cover a stretch without gap or overlap.
pub async fn pages_and_ids_go_through_a_partition<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let places = saved(&fixture, &store, "a", 9).await;
    save(&fixture, &all_keys_but("a")).await;
    let (partition, ids) = (places[0].0, places.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    for limit in [1, 2, 4, 100] {
        let (mut whole, mut lean, mut from) = (Vec::new(), Vec::new(), ids[1]);
        loop {
            let page = store
                .reader
                .page(partition, from, ids[7], limit, u32::MAX)
                .await
                .expect("a page is read");
            let page_of_ids =
                store.reader.ids(partition, from, ids[7], limit).await.expect("a page is read");
            let Some(last) = page.last() else {
                assert!(page_of_ids.is_empty());
                break;
            };
            from = EventId(last.id.0 + 1);
            whole.extend(page.iter().map(|e| e.id));
            lean.extend(page_of_ids);
        }
        assert_eq!((&whole, &lean), (&ids[1..8].to_vec(), &ids[1..8].to_vec()), "limit {limit}");
    }
}

/// Keys of the partitions that one key is not in.
fn all_keys_but(key: &str) -> Vec<NewEvent> {
    let others = (0..64)
        .map(|n| format!("other-{n}"))
        .filter(|k| partition_of_key(k) != partition_of_key(key));
    others.map(|k| event(&k)).collect()
}

/// Whatever is remembered of an event comes with it, by every way of reading, also when it is more than one read takes.
pub async fn events_are_joined_with_what_is_remembered_however_much_it_is<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 6).await;
    let (partition, routes) = (places[0].0, 300);
    for (partition, id) in &places[..5] {
        let rows =
            (0..routes).map(|n| row(&format!("route-{n:03}"), RouteState::Waiting)).collect();
        let update = RouteUpdate { partition: *partition, id: *id, rows, letters: Vec::new() };
        store.settler.record(&fence, &[update]).await.expect("a record succeeds");
    }
    let complete = |events: &[crate::outbox::StoredEvent]| {
        for e in events {
            let expected = if e.id == places[5].1 { 0 } else { routes };
            assert_eq!(e.rows.len(), expected, "event {}", e.id);
        }
    };
    let (mut found, mut after) = (Vec::new(), EventId(0));
    loop {
        let partitions = vec![PartitionRead { partition, after, limit: 100, look_back: false }];
        let plan = ReadPlan { partitions, window: WINDOW, payload_limit: u32::MAX };
        let read = store.reader.read(&plan).await.expect("a read succeeds").swap_remove(0);
        complete(&read.past);
        let Some(last) = read.past.last() else {
            assert!(!read.full);
            break;
        };
        after = last.id;
        found.extend(read.past.into_iter().map(|e| (e.partition, e.id)));
    }
    assert_eq!(found, places);
    let page = store
        .reader
        .page(partition, places[0].1, places[5].1, 100, u32::MAX)
        .await
        .expect("a page is read");
    let fetched = store.reader.fetch(&places, u32::MAX).await.expect("a fetch succeeds");
    for events in [page, fetched] {
        complete(&events);
        assert_eq!(events.iter().map(|e| (e.partition, e.id)).collect::<Vec<_>>(), places);
    }
}

/// A row that does not decode is told as such, its neighbours are read, and it is buried with what is known of it.
pub async fn rows_that_do_not_decode_are_isolated<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let places = saved(&fixture, &store, "a", 3).await;
    fixture.spoil(places[1].1).await;
    let page = store
        .reader
        .page(places[0].0, places[0].1, places[2].1, 10, u32::MAX)
        .await
        .expect("a page is read");
    let fetched = store.reader.fetch(&places, u32::MAX).await.expect("a fetch succeeds");
    for events in [read_all(&store).await, page, fetched] {
        let decoded: Vec<bool> = events.iter().map(|e| e.body.is_ok()).collect();
        assert_eq!(decoded, [true, false, true]);
        assert!(!events[1].body.as_ref().expect_err("it does not decode").is_empty());
    }
    let letters =
        vec![NewLetter { route: "".into(), reason: DeadReason::Undecodable, parks: false }];
    let update = RouteUpdate { partition: places[1].0, id: places[1].1, rows: Vec::new(), letters };
    let settled = store.settler.record(&fence, &[update]).await.expect("a record succeeds");
    let letter = store
        .settler
        .letters(&[settled.letters[0].2])
        .await
        .expect("letters are read")
        .swap_remove(0);
    assert!(letter.message.is_none());
    assert_eq!((letter.event_id, letter.reason), (places[1].1, DeadReason::Undecodable));
    let left: Vec<_> = read_all(&store).await.iter().map(|e| (e.partition, e.id)).collect();
    assert_eq!(left, [places[0], places[2]]);
    assert_eq!(read_after(&store, places[2].1, true).await.len(), all_partitions().len());
}
