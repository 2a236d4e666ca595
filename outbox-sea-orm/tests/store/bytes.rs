//! Bounded by count is not bounded: every list that a statement takes or gives is cut by bytes too.

use crate::outbox::{LEASE, owner_of_all, read_all, writing};
use bytes::Bytes;
use outbox_core::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote, Progress, redrive_all},
    event::{
        EncodeError, EventId, EventMeta, Headers, LetterId, Message, MessageId, MessageParts,
        NewEvent, OutboxEvent, Timestamp,
    },
    failure::{AttemptError, DeadLetter, DeadReason, FailureClass},
    outbox::{
        ClaimQuery, ConsumerStore, DeferredDelivery, DetachedLetter, Fence, History, NewLetter,
        OutboxStats, RelayStore, RetrierStore, RouteRow, RouteState, RouteUpdate, Store,
        StoreError, StoredEvent,
    },
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{
    DeliverAt, EnqueueOptions, Outbox, OutboxError, Retention, StoreOptions, open_relay_store,
};
use sea_orm::ConnectionTrait;
use std::{sync::Arc, time::Duration};
use tests::{databases::TempDatabase, on_every_database};

/// As large as an outbox takes.
const LARGE: usize = 960 * 1024;
/// So many are more than MariaDB takes in one packet (16 MiB), and more than four results.
const MANY: usize = 18;
/// Most payload bytes of one result or transaction.
const RESULT: usize = 4 * 1024 * 1024;

fn large(n: usize) -> NewEvent {
    let payload = vec![u8::try_from(n).unwrap(); LARGE];
    NewEvent {
        payload: payload.into(),
        content_type: "application/octet-stream".into(),
        ..event(&format!("key-{n}"))
    }
}

fn received(n: usize) -> Message {
    let NewEvent { message_id, event_type, topic, content_type, payload, key, .. } = large(n);
    Message::new(MessageParts {
        id: message_id,
        source: "/shop".into(),
        topic,
        event_type,
        event_version: 1,
        aggregate_type: None,
        key,
        content_type,
        payload,
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        sequence: None,
        retry: None,
    })
}

async fn installed(temp: &TempDatabase) -> Outbox {
    let builder = Outbox::builder(temp.connect().await).source("/shop").partitions(PARTITIONS);
    builder
        .retention(Retention::Keep(Duration::ZERO))
        .dead_letter_retention(Duration::ZERO)
        .install()
        .await
        .unwrap()
}

/// Opens a relay's store that keeps nothing longer than it must, and owns all partitions.
async fn relay(outbox: &Outbox) -> (RelayStore, Fence) {
    let (_, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
    let options = StoreOptions::new(LEASE)
        .retention(Retention::Keep(Duration::ZERO))
        .letter_retention(Duration::ZERO);
    (open_relay_store(outbox.connection(), outbox.schema(), &options).await.unwrap(), fence)
}

fn is_whole(stored: &StoredEvent) -> bool {
    stored.body.as_ref().is_ok_and(|message| message.payload.len() == LARGE)
}

async fn rows(outbox: &Outbox, table: &str) -> usize {
    let query = sea_orm::Statement::from_string(
        outbox.connection().get_database_backend(),
        format!("SELECT count(*) FROM {table}"),
    );
    let row = outbox.connection().query_one_raw(query).await.unwrap().unwrap();
    usize::try_from(row.try_get_by_index::<i64>(0).unwrap()).unwrap()
}

/// Buries every event on the route `billing`; gives the letters in order.
pub(crate) async fn bury_all(store: &RelayStore, fence: &Fence, parks: bool) -> Vec<LetterId> {
    let update = |event: &StoredEvent| RouteUpdate {
        partition: event.partition,
        id: event.id,
        rows: vec![RouteRow {
            errors: vec![AttemptError::new(1, FailureClass::Permanent, "no".repeat(500)); 10],
            state: RouteState::Dead,
            // As a relay knows of a redrive that it has read.
            redriven: event.rows.iter().any(|row| row.redriven),
            ..RouteRow::waiting("billing".into())
        }],
        letters: vec![NewLetter { route: "billing".into(), reason: DeadReason::Rejected, parks }],
    };
    let updates: Vec<RouteUpdate> = read_all(&*store.reader).await.iter().map(update).collect();
    let settled = store.settler.record(fence, &updates).await.unwrap();
    let mut letters: Vec<LetterId> =
        settled.letters.into_iter().map(|(_, _, letter)| letter).collect();
    letters.sort_unstable();
    letters
}

on_every_database! {
    async fn every_statement_that_takes_a_list_is_cut_by_bytes(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let db = outbox.connection();
        let schema = outbox.schema();
        let (store, fence) = relay(&outbox).await;
        let events: Vec<NewEvent> = (0..MANY).map(large).collect();

        let tx = writing(db).await;
        schema.append(&tx, "/shop", &events).await.expect("events are appended");
        tx.commit().await.unwrap();
        let stored = read_all(&*store.reader).await;
        assert!(stored.len() == MANY && stored.iter().all(is_whole));
        let places: Vec<_> = stored.iter().map(|e| (e.partition, e.id)).collect();
        store.settler.finish(&fence, &places).await.expect("events are finished and kept");
        assert_eq!((rows(&outbox, "outbox_events").await, rows(&outbox, "outbox_archive").await), (0, MANY));

        let mut batches = Vec::new();
        loop {
            match store.janitor.prune(500).await.expect("finished events are deleted") {
                0 => break,
                gone => batches.push(usize::try_from(gone).unwrap()),
            }
        }
        assert!(batches.iter().sum::<usize>() == MANY && batches.iter().all(|gone| gone * LARGE <= RESULT), "{batches:?}");

        let later: Vec<(NewEvent, DeliverAt)> =
            (0..MANY).map(|n| (large(n), DeliverAt::In(Duration::ZERO))).collect();
        schema.schedule(db, "/shop", &later).await.expect("events are scheduled");
        let mut batches = Vec::new();
        loop {
            match store.janitor.promote_scheduled(&fence, 500).await.expect("scheduled events are promoted") {
                0 => break,
                moved => batches.push(usize::try_from(moved).unwrap()),
            }
        }
        assert!(batches.iter().sum::<usize>() == MANY && batches.iter().all(|n| n * LARGE <= RESULT), "{batches:?}");

        let carried = |event: &StoredEvent| DetachedLetter {
            partition: event.partition,
            id: EventId(event.id.0 + 1_000_000),
            message: event.body.clone().unwrap(),
            letter: NewLetter { route: "once".into(), reason: DeadReason::NotRetried, parks: false },
            errors: Vec::new(),
        };
        let carried: Vec<DetachedLetter> = read_all(&*store.reader).await.iter().map(carried).collect();
        let once = store.settler.write_detached_letters(&carried).await.expect("letters that carry their events are written");
        assert_eq!(once.len(), MANY);
        assert_eq!(store.settler.write_detached_letters(&carried).await.unwrap(), once, "again, and nothing is written");
        assert_eq!(bury_all(&store, &fence, false).await.len(), MANY);
    }

    async fn every_answer_that_gives_a_list_is_cut_by_bytes(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = relay(&outbox).await;
        let events: Vec<NewEvent> = (0..MANY).map(large).collect();
        outbox.schema().append(outbox.connection(), "/shop", &events).await.unwrap();
        let letters = bury_all(&store, &fence, false).await;
        assert_eq!(letters.len(), MANY);

        // Listeners.
        let (mut left, mut read) = (letters.clone(), Vec::new());
        while !left.is_empty() {
            let some = store.settler.letters(&left).await.unwrap();
            let bytes: usize = some.iter().map(|letter| letter.message.as_ref().unwrap().payload.len()).sum();
            assert!(bytes <= RESULT, "{bytes} in one result");
            let last = some.last().expect("the first is always given").id;
            read.extend(some.into_iter().map(|letter| letter.id));
            left.retain(|id| *id > last);
        }
        assert_eq!(read, letters);

        // Operators.
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = outbox.dead_letters(&DeadLetterFilter::all(), after, 100).await.unwrap();
            let Some(last) = page.last().map(|letter| letter.id) else { break };
            let bytes: usize = page.iter().map(|letter| letter.message.as_ref().unwrap().payload.len()).sum();
            assert!(bytes <= RESULT, "{bytes} in one page");
            after = Some(last);
            seen.extend(page.into_iter().map(|letter| letter.id));
        }
        assert_eq!(seen, letters);
        let why = OperatorNote::new("ann", "repaired");
        let progress = redrive_all(&outbox, &DeadLetterFilter::all(), &why, |_| {}).await.expect("letters are redriven");
        assert_eq!(usize::try_from(progress.redriven).unwrap(), MANY);
        assert!(read_all(&*store.reader).await.iter().all(is_whole));

        // Consumers.
        for n in 0..MANY {
            let tx = Store::begin(&outbox).await.unwrap();
            let message = received(n);
            let history = History::default();
            let put = DeferredDelivery { consumer: "c", handler: "h", message: &message, due_in: Some(Duration::ZERO), history };
            assert!(outbox.defer(&tx, &put).await.unwrap());
            outbox.commit(tx).await.unwrap();
        }
        let (handlers, me) = ([Arc::from("h")], Arc::from("me"));
        let mut claimed = 0;
        while claimed < MANY {
            let query = ClaimQuery { consumer: "c", handlers: &handlers, by: &me, lease: LEASE, limit: 100 };
            let some = outbox.claim(&query).await.unwrap();
            assert!(!some.is_empty() && some.len() * LARGE <= RESULT, "{} are claimed at once", some.len());
            assert!(some.iter().all(|stored| stored.message.as_ref().is_ok_and(|m| m.payload.len() == LARGE)));
            claimed += some.len();
        }
        assert_eq!(claimed, MANY);
    }

    async fn a_payload_at_the_limit_is_saved_and_one_byte_more_is_refused_by_name(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let too_long = |error: &OutboxError, expected: &str| {
            let text = error.to_string();
            assert!(matches!(error, OutboxError::Limit(_)) && text.contains(expected), "{text}");
        };
        let with_headers = |bytes: usize| {
            let mut headers = Headers::new();
            headers.insert("note", "n".repeat(bytes - "note".len())).unwrap();
            NewEvent { headers, ..event("a") }
        };
        let sized = |bytes: usize| NewEvent { payload: vec![b'1'; bytes].into(), ..event("a") };
        for (at_the_limit, one_more, named) in [
            (sized(LARGE), sized(LARGE + 1), "983041 bytes of payload; this outbox takes at most 983040"),
            (with_headers(65_536), with_headers(65_537), "65537 bytes of headers; this outbox takes at most 65536"),
        ] {
            let tx = outbox.begin().await.unwrap();
            Store::append(&outbox, &tx, &[at_the_limit]).await.unwrap();
            let refused = Store::append(&outbox, &tx, &[one_more]).await.unwrap_err();
            let source = std::error::Error::source(&refused).map_or_else(|| refused.to_string(), ToString::to_string);
            assert!(source.contains(named), "{source}");
            tx.commit().await.unwrap();
        }
        // Another limit, by every way in.
        let small = Outbox::builder(temp.connect().await).source("/shop").max_payload(10).build().await.unwrap();
        let (ten, eleven) = (Sized(10), Sized(11));
        let named = "11 bytes of payload; this outbox takes at most 10";
        let tx = small.begin().await.unwrap();
        tx.emit(ten).unwrap();
        too_long(&tx.emit(eleven).unwrap_err(), named);
        small.enqueue(&tx, &ten).await.unwrap();
        too_long(&small.enqueue(&tx, &eleven).await.unwrap_err(), named);
        too_long(&small.enqueue_many(&tx, &[ten, eleven]).await.unwrap_err(), named);
        too_long(&small.enqueue_unchecked(&tx, &eleven).await.unwrap_err(), named);
        let later = EnqueueOptions::new().deliver_in(Duration::from_secs(1));
        too_long(&tx.emit_with(eleven, later).unwrap_err(), named);
        tx.commit().await.unwrap();
        assert_eq!(rows(&outbox, "outbox_events").await, 4);

        let (store, fence) = relay(&small).await;
        let letter = bury_all(&store, &fence, false).await[0];
        let why = OperatorNote::new("ann", "edited");
        let refused = small.resend(letter, Bytes::from_static(b"12345678901"), &why).await.unwrap_err();
        assert!(std::error::Error::source(&refused).unwrap().to_string().contains(named), "{refused:?}");
        assert!(small.resend(letter, Bytes::from_static(b"1234567890"), &why).await.unwrap().is_some());
        assert!(Outbox::builder(temp.connect().await).max_payload(0).build().await.is_err());
    }

    async fn letters_of_a_destination_that_refuses_again_are_redriven_once(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = relay(&outbox).await;
        outbox.schema().append(outbox.connection(), "/shop", &[event("a"), event("b"), event("c")]).await.unwrap();
        let letters = bury_all(&store, &fence, false).await;
        let refusing = Refusing { outbox: outbox.clone(), store, fence };
        let why = OperatorNote::new("ann", "repaired, I think");
        let tell = |progress: Progress| assert!(progress.redriven <= 3, "its own new letters are redriven again");
        assert_eq!(redrive_all(&refusing, &DeadLetterFilter::all(), &why, tell).await.unwrap().redriven, 3);
        let undecided = outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap();
        assert!(undecided.len() == 3 && undecided.iter().all(|letter| letter.id > letters[2]), "{undecided:?}");
    }
}

/// An event of so many bytes.
#[derive(Clone, Copy)]
struct Sized(usize);

impl OutboxEvent for Sized {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("sized").key(Some("a"))
    }

    fn payload(&self) -> Result<Bytes, EncodeError> {
        Ok(vec![b'1'; self.0].into())
    }
}

/// An operator's surface beside a relay whose destination refuses everything at once.
struct Refusing {
    outbox: Outbox,
    store: RelayStore,
    fence: Fence,
}

#[async_trait::async_trait]
impl AdminStore for Refusing {
    async fn stats(&self) -> Result<OutboxStats, StoreError> {
        self.outbox.stats().await
    }

    async fn newest_letter(&self) -> Result<Option<LetterId>, StoreError> {
        self.outbox.newest_letter().await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.outbox.dead_letters(filter, after, limit).await
    }

    async fn redrive(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        let redriven = self.outbox.redrive(letters, note).await?;
        bury_all(&self.store, &self.fence, false).await;
        Ok(redriven)
    }

    async fn discard(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        self.outbox.discard(letters, note).await
    }

    async fn purge(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError> {
        self.outbox.purge(letters, note).await
    }

    async fn resend(
        &self,
        letter: LetterId,
        payload: Bytes,
        note: &OperatorNote,
    ) -> Result<Option<MessageId>, StoreError> {
        self.outbox.resend(letter, payload, note).await
    }
}
