//! What was received, and what enters later.

use super::{StoreFixture, event, owner_of_all, partition_of_key, read_all};
use crate::{
    event::{EventId, Headers, MessageId, NewEvent, RelayId, SagaId},
    outbox::{
        BarrierStore, CommandKey, CommandOutcome, ConsumerStore, Fence, InboxKey, PartitionNo,
        RecordedCommand, Store, StoreError, StoredReply,
    },
    saga::{CommandHash, CommandPhase},
};
use std::{num::NonZeroU32, time::Duration};

/// Another transaction's row is waited for, not repeated.
pub async fn a_message_is_received_once_however_many_ask_at_once<F: StoreFixture>() {
    let fixture = F::create(false).await;
    for _ in 0..5 {
        let key = InboxKey {
            consumer: "c",
            handler: "h",
            source: "/shop",
            message_id: MessageId::generate(),
        };
        let asked =
            futures_util::future::join_all((0..8).map(|_| fixture.receive(key.clone()))).await;
        assert_eq!(asked.iter().filter(|first| **first).count(), 1);
        assert!(!fixture.receive(key).await);
    }
}

/// Every part of the key counts, to the last character.
pub async fn inbox_keys_that_differ_in_anything_are_others<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let message_id = MessageId::generate();
    let (long, longer) = ("h".repeat(127), "h".repeat(128));
    for (consumer, handler, source) in [
        ("c", "h", "/shop"),
        ("c ", "h", "/shop"),
        ("C", "h", "/shop"),
        ("c", "h\u{e4}", "/shop"),
        ("c", "ha\u{308}", "/shop"),
        ("c", "h", "/shop/"),
        ("c", "h", ""),
        ("ch", "", "/shop"),
        ("c", &long, "/shop"),
        ("c", &longer, "/shop"),
    ] {
        let key = InboxKey { consumer, handler, source, message_id };
        assert!(fixture.receive(key.clone()).await, "{key:?}");
        assert!(!fixture.receive(key.clone()).await, "{key:?}");
    }
}

/// The command that is noted.
const COMMAND: Option<CommandHash> = Some(CommandHash::from_uuid(uuid::Uuid::from_u128(u128::MAX)));

fn call(saga: SagaId, step: &str, phase: CommandPhase) -> CommandKey<'_> {
    CommandKey { consumer: "c", saga, step, round: NonZeroU32::MIN, phase }
}

/// Outcome and answer, to the byte; and what is taken back or rolled back is not known.
pub async fn a_command_is_noted_once_and_what_is_known_of_it_is_given<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let (store, saga) = (fixture.consumer().await, SagaId::generate());
    let mut headers = Headers::new();
    headers.insert("tenant", "\u{e4}cme \u{1f980}").expect("a legal header");
    let answer = StoredReply {
        event_type: "payment.charged".into(),
        event_version: u16::MAX,
        content_type: "application/octet-stream".into(),
        payload: vec![0, 255, b'\'', 0, b'"'].into(),
        headers,
    };
    let bare = |outcome| Some(RecordedCommand { outcome, reply: None, command: COMMAND });
    let whole =
        |outcome| Some(RecordedCommand { outcome, reply: Some(answer.clone()), command: COMMAND });
    let long = "s".repeat(100);
    let (doing, undoing) =
        (call(saga, &long, CommandPhase::Do), call(saga, &long, CommandPhase::Undo));
    let tx = store.begin().await.expect("a transaction opens");
    assert_eq!(
        store.record_command(&tx, doing, COMMAND, CommandOutcome::Done).await.expect("noted"),
        None
    );
    assert_eq!(
        store.record_command(&tx, undoing, COMMAND, CommandOutcome::Undone).await.expect("noted"),
        None
    );
    store.store_reply(&tx, doing, CommandOutcome::Rejected, &answer).await.expect("kept");
    let inside = store.begin_nested(&tx).await.expect("a savepoint is set");
    assert_eq!(
        store
            .record_command(&inside, doing, COMMAND, CommandOutcome::Blocked)
            .await
            .expect("answered"),
        whole(CommandOutcome::Rejected)
    );
    store.rollback(inside).await.expect("a savepoint ends");
    store.remove_command(&tx, undoing).await.expect("taken back");
    store.commit(tx).await.expect("a commit succeeds");

    let tx = store.begin().await.expect("a transaction opens");
    assert_eq!(
        store.record_command(&tx, doing, COMMAND, CommandOutcome::Done).await.expect("answered"),
        whole(CommandOutcome::Rejected)
    );
    assert_eq!(
        store.record_command(&tx, undoing, COMMAND, CommandOutcome::Undone).await.expect("noted"),
        None
    );
    store.rollback(tx).await.expect("a rollback succeeds");
    let tx = store.begin().await.expect("a transaction opens");
    assert_eq!(
        store.record_command(&tx, undoing, COMMAND, CommandOutcome::Undone).await.expect("noted"),
        None
    );
    let later = CommandKey { round: NonZeroU32::MAX, ..doing };
    assert_eq!(
        store.record_command(&tx, later, COMMAND, CommandOutcome::Blocked).await.expect("noted"),
        None
    );
    assert_eq!(
        store.record_command(&tx, later, COMMAND, CommandOutcome::Done).await.expect("answered"),
        bare(CommandOutcome::Blocked)
    );
    store.commit(tx).await.expect("a commit succeeds");
}

/// Which command a row is of is given as it was noted, also where nobody knew; another one's place is apart.
pub async fn a_row_of_a_command_says_which_it_is_of<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let (store, saga) = (fixture.consumer().await, SagaId::generate());
    let hashes =
        [CommandHash::of("payment.charge", b"{}"), CommandHash::of("payment.charge", b"7")];
    let key = call(saga, "charge", CommandPhase::Do);
    let known =
        |command| Some(RecordedCommand { outcome: CommandOutcome::Done, reply: None, command });
    for (key, first) in [
        (key, Some(hashes[0])),
        (key.disambiguated(&hashes[1]), Some(hashes[1])),
        (key.disambiguated(&hashes[0]), None),
    ] {
        let tx = store.begin().await.expect("a transaction opens");
        assert_eq!(
            store.record_command(&tx, key, first, CommandOutcome::Done).await.expect("noted"),
            None
        );
        assert_eq!(
            store
                .record_command(&tx, key, COMMAND, CommandOutcome::Blocked)
                .await
                .expect("answered"),
            known(first)
        );
        store.commit(tx).await.expect("a commit succeeds");
        let tx = store.begin().await.expect("a transaction opens");
        assert_eq!(
            store.record_command(&tx, key, None, CommandOutcome::Blocked).await.expect("answered"),
            known(first)
        );
        store.rollback(tx).await.expect("a rollback succeeds");
    }
    assert_eq!(key.disambiguated(&hashes[0]), key.disambiguated(&hashes[0]), "it is found again");
}

/// Another transaction's row is waited for, and then what it has committed is known.
pub async fn of_many_that_note_a_command_one_does<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for _ in 0..5 {
        let saga = SagaId::generate();
        let note = async || {
            for _ in 0..100 {
                match noted(&store, call(saga, "charge", CommandPhase::Do)).await {
                    Err(StoreError::Busy(_)) => {}
                    answered => return answered.expect("noted or known"),
                }
            }
            panic!("busy for ever");
        };
        let asked = futures_util::future::join_all((0..8).map(|_| note())).await;
        assert_eq!(asked.iter().filter(|known| known.is_none()).count(), 1);
        assert!(asked.iter().flatten().all(|known| known.outcome == CommandOutcome::Done));
    }
}

async fn noted<S: BarrierStore>(
    store: &S,
    key: CommandKey<'_>,
) -> Result<Option<RecordedCommand>, StoreError> {
    let tx = store.begin().await?;
    let known = store.record_command(&tx, key, COMMAND, CommandOutcome::Done).await?;
    store.commit(tx).await.map(|()| known)
}

/// A row whose time has passed goes, and a message that comes after that is new.
pub async fn old_inbox_rows_are_pruned<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let ids: Vec<MessageId> = (0..5).map(|_| MessageId::generate()).collect();
    let key = |message_id| InboxKey { consumer: "c", handler: "h", source: "/shop", message_id };
    for id in &ids {
        assert!(fixture.receive(key(*id)).await);
    }
    assert_eq!(store.janitor.prune(100).await.expect("pruning succeeds"), 0);
    fixture.age().await;
    assert!(fixture.receive(key(MessageId::generate())).await);
    assert_eq!(store.janitor.prune(3).await.expect("pruning succeeds"), 3);
    assert_eq!(store.janitor.prune(100).await.expect("pruning succeeds"), 2, "the new one stays");
    assert!(fixture.receive(key(ids[0])).await);
}

/// Due events get their places when they enter, in the order in which they are due.
pub async fn scheduled_events_enter_in_order_of_their_time_under_new_ids<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let minute = Duration::from_mins(1);
    let lasting = |key: &str| NewEvent { ttl: Some(Duration::from_hours(1)), ..event(key) };
    // Saved in another order than they are due, and further apart than saving them takes.
    let (second, first, third) = (lasting("a"), lasting("a"), lasting("a"));
    fixture.schedule(second.clone(), Duration::from_secs(1)).await;
    fixture.schedule(first.clone(), Duration::ZERO).await;
    fixture.schedule(third.clone(), Duration::from_secs(2)).await;
    fixture.schedule(lasting("a"), minute).await;
    let moved = async {
        let mut moved = 0;
        while moved < 3 {
            moved +=
                store.janitor.promote_scheduled(&fence, 2).await.expect("a promotion succeeds");
            tokio::task::yield_now().await;
        }
        moved
    };
    let moved =
        tokio::time::timeout(Duration::from_secs(30), moved).await.expect("what is due enters");
    assert_eq!(moved, 3);
    let read = read_all(&store).await;
    let ids: Vec<MessageId> =
        read.iter().map(|e| e.body.as_ref().expect("the row decodes").id).collect();
    assert_eq!(ids, [first.message_id, second.message_id, third.message_id]);
    for (event, saved) in read.iter().zip([&first, &second, &third]) {
        let message = event.body.as_ref().expect("the row decodes");
        assert_eq!(
            (&message.key, &message.payload, event.partition),
            (&saved.key, &saved.payload, partition_of_key("a"))
        );
        let expires_at = message.expires_at.expect("it has a time to live");
        assert_eq!(
            expires_at.since(message.created_at),
            Duration::from_hours(1),
            "counted from when it entered"
        );
    }
    assert_eq!(
        store.janitor.promote_scheduled(&fence, 100).await.expect("a promotion succeeds"),
        0
    );
}

/// Only the owner of a partition moves its events, and not before their time.
pub async fn a_scheduled_event_that_is_not_due_or_not_owned_stays<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    fixture.schedule(event("later"), Duration::from_hours(1)).await;
    fixture.schedule(event("a"), Duration::ZERO).await;
    let stranger = Fence { relay: RelayId::generate(), partitions: fence.partitions.clone() };
    let elsewhere: Vec<(PartitionNo, _)> =
        fence.partitions.iter().copied().filter(|(p, _)| *p != partition_of_key("a")).collect();
    let elsewhere = Fence { relay: fence.relay.clone(), partitions: elsewhere };
    let nothing = Fence { relay: fence.relay.clone(), partitions: Vec::new() };
    for fence in [&stranger, &elsewhere, &nothing] {
        assert_eq!(
            store.janitor.promote_scheduled(fence, 10).await.expect("a promotion is answered"),
            0
        );
    }
    assert!(read_all(&store).await.is_empty());
    assert_eq!(store.janitor.promote_scheduled(&fence, 10).await.expect("a promotion succeeds"), 1);
    assert_eq!(read_all(&store).await.len(), 1);
}

/// A cancelled one is gone; one that has entered cannot be cancelled any more.
pub async fn a_cancelled_event_never_enters<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.relay().await;
    let fence = owner_of_all(&store).await;
    let (cancelled, entered) = (event("a"), event("a"));
    fixture.schedule(cancelled.clone(), Duration::ZERO).await;
    fixture.schedule(entered.clone(), Duration::ZERO).await;
    assert!(fixture.cancel(cancelled.message_id).await);
    assert!(!fixture.cancel(cancelled.message_id).await);
    assert_eq!(store.janitor.promote_scheduled(&fence, 10).await.expect("a promotion succeeds"), 1);
    assert!(!fixture.cancel(entered.message_id).await);
    let read = read_all(&store).await;
    assert_eq!(read[0].body.as_ref().map(|m| m.id), Ok(entered.message_id));
    assert!(read[0].id > EventId(0));
}
