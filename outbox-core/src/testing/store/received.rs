//! What consumers keep for later, and give up.

use super::StoreFixture;
use crate::{
    event::{EventId, Headers, LetterId, Message, MessageId, MessageParts, Timestamp},
    failure::{AttemptError, ConsumerOrigin, DeadReason, FailureClass, RetryPolicy},
    outbox::{
        Admission, ClaimQuery, ConsumerStore, Deferral, DeferredDelivery, DeliveryClaim, History,
        InboxKey, ReceivedLetter, RetrierStore, Store, StoredDelivery, order_hash,
    },
};
use std::{sync::Arc, time::Duration};

const NOW: Option<Duration> = Some(Duration::ZERO);
const LATER: Option<Duration> = Some(Duration::from_hours(1));
/// A lease that no test outlives, and one whose end tests wait for.
const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(100);
/// What the database needs no longer for.
const SOON: Duration = Duration::from_secs(30);

/// A message that uses every attribute.
pub(super) fn message(key: Option<&str>) -> Message {
    let mut headers = Headers::new();
    headers.insert("tenant", "\u{e4}cme \u{1f980}").expect("a legal header");
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: Some(EventId(4_711)),
        source: "/elsewhere".into(),
        event_type: "order.placed".into(),
        event_version: 3,
        topic: "orders".into(),
        aggregate_type: Some("order".into()),
        key: key.map(Into::into),
        content_type: "application/octet-stream".into(),
        payload: vec![0, 255, b'\'', 0, b'"'].into(),
        headers,
        created_at: Timestamp::from_micros(1_700_000_000_123_456),
        expires_at: Some(Timestamp::from_micros(4_000_000_000_000_001)),
        retry: Some(RetryPolicy::attempts(3, Duration::from_secs(1))),
    })
}

async fn put<S: ConsumerStore>(store: &S, message: &Message, due_in: Option<Duration>) -> bool {
    put_with(store, message, due_in, History::default()).await
}

async fn put_with<S: ConsumerStore>(
    store: &S,
    message: &Message,
    due_in: Option<Duration>,
    history: History,
) -> bool {
    let delivery = DeferredDelivery { consumer: "c", handler: "h", message, due_in, history };
    let tx = store.begin().await.expect("a transaction opens");
    let stored = store.defer(&tx, &delivery).await.expect("a delivery is stored");
    store.commit(tx).await.expect("a commit succeeds");
    stored
}

async fn claim<S: RetrierStore>(store: &S, by: &str, lease: Duration) -> Vec<StoredDelivery> {
    let (by, handlers): (Arc<str>, [Arc<str>; 1]) = (by.into(), ["h".into()]);
    let query = ClaimQuery { consumer: "c", handlers: &handlers, by: &by, lease, limit: 100 };
    store.claim(&query).await.expect("claiming succeeds")
}

/// Claims until there is something, for what comes due, or whose lease ends.
async fn claimed<S: RetrierStore>(store: &S, by: &str, lease: Duration) -> Vec<StoredDelivery> {
    let something = async {
        loop {
            let claimed = claim(store, by, lease).await;
            if !claimed.is_empty() {
                return claimed;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, something).await.expect("something comes due")
}

pub(super) async fn finish<S: ConsumerStore>(store: &S, claim: &DeliveryClaim) -> bool {
    let tx = store.begin().await.expect("a transaction opens");
    let finished = store.finish(&tx, claim).await.expect("finishing succeeds");
    store.commit(tx).await.expect("a commit succeeds");
    finished
}

pub(super) async fn admit<S: ConsumerStore>(store: &S, message: &Message) -> Admission {
    let tx = store.begin().await.expect("a transaction opens");
    let key =
        InboxKey { consumer: "c", handler: "h", source: &message.source, message_id: message.id };
    let admitted =
        store.admit(&tx, key, order_hash(message)).await.expect("an admission is answered");
    store.commit(tx).await.expect("a commit succeeds");
    admitted
}

pub(super) fn ids(deliveries: &[StoredDelivery]) -> Vec<MessageId> {
    deliveries.iter().map(|d| d.message.as_ref().expect("the row decodes").id).collect()
}

/// Bytes, attributes and history, for a message with all and one with nothing.
pub async fn a_delivery_is_stored_whole_and_claimed_when_it_is_due<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let (full, later) = (message(Some("a")), message(None));
    let mut bare = message(None).into_parts();
    (bare.sequence, bare.aggregate_type, bare.expires_at, bare.retry) = (None, None, None, None);
    let bare = Message::new(MessageParts { payload: Vec::new().into(), ..bare });
    let error = AttemptError::new(1, FailureClass::Transient, "503 \u{1f980}");
    let history = History {
        attempts: 4,
        failures: 2,
        failing_for: Duration::from_secs(60),
        errors: vec![error],
        letter: Some(LetterId(9)),
    };
    assert!(put_with(&store, &full, NOW, history.clone()).await);
    assert!(put(&store, &bare, NOW).await && put(&store, &later, LATER).await);
    let claimed = claim(&store, "me", LONG).await;
    let [first, second] = claimed.as_slice() else { panic!("two are due, not {claimed:?}") };
    assert_eq!((first.message.as_ref(), second.message.as_ref()), (Ok(&full), Ok(&bare)));
    assert_eq!((&*first.handler, first.started), ("h", 4));
    assert_eq!(
        (first.history.attempts, first.history.failures, first.history.letter),
        (4, 2, Some(LetterId(9)))
    );
    assert!(
        (Duration::from_secs(60)..Duration::from_secs(120)).contains(&first.history.failing_for)
    );
    assert_eq!(first.history.errors[0].text, "503 \u{1f980}");
    assert!(first.history.errors[0].at > 0, "it has the database's time");
    assert_eq!(second.history, History::default());
    assert!(claim(&store, "you", LONG).await.is_empty(), "they are claimed");
}

/// The same message of the same handler has one row.
pub async fn a_delivery_that_is_stored_already_stays_as_it_is<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let twice = message(Some("a"));
    let history = History { attempts: 1, ..History::default() };
    assert!(put_with(&store, &twice, NOW, history.clone()).await);
    assert!(put(&store, &twice, LATER).await);
    assert!(put(&store, &twice, None).await);
    let claimed = claim(&store, "me", LONG).await;
    assert_eq!((claimed.len(), &claimed[0].history), (1, &history));
    assert!(finish(&store, &claimed[0].claim).await);
    assert!(claim(&store, "me", LONG).await.is_empty());
}

/// Deliveries of one key keep their order, and other keys do not wait.
pub async fn a_key_is_handled_from_its_head_and_other_keys_beside_it<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let of_key: Vec<Message> = (0..4).map(|_| message(Some("a"))).collect();
    let others = [message(Some("b")), message(None), message(None)];
    assert!(put(&store, &of_key[0], NOW).await);
    for next in &of_key[1..] {
        assert_eq!(admit(&store, next).await, Admission::QueueBehind);
        assert!(put(&store, next, None).await);
    }
    for other in &others {
        assert!(put(&store, other, NOW).await);
    }
    let mut claimed_now = claim(&store, "me", LONG).await;
    let mut expected = vec![of_key[0].id];
    expected.extend(others.iter().map(|m| m.id));
    assert_eq!(ids(&claimed_now), expected);
    for next in &of_key[1..] {
        let head = claimed_now.remove(0);
        assert!(finish(&store, &head.claim).await);
        claimed_now = claimed(&store, "me", LONG).await;
        assert_eq!(ids(&claimed_now), [next.id]);
    }
    assert!(finish(&store, &claimed_now[0].claim).await);
    let after = message(Some("a"));
    assert!(!put(&store, &after, None).await, "there is nothing to go behind");
    assert_eq!(admit(&store, &after).await, Admission::New);
}

/// One answer for each key, in their order; of equal ones the first is new. Nothing is written of the others, nor of any where
/// the transaction rolls back.
pub async fn of_messages_that_are_admitted_together_each_is_told_whether_it_is_new<
    F: StoreFixture,
>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let (known, busy, new) = (message(Some("a")), message(Some("busy")), message(Some("a")));
    assert!(put(&store, &busy, LATER).await);
    let (behind, keyless) = (message(Some("busy")), message(None));
    // More than one statement may take, and no power of two.
    let many: Vec<Message> = (0..300).map(|_| message(Some("b"))).collect();
    let key = |handler, message: &Message| {
        let (consumer, source) = ("c", "/elsewhere");
        (InboxKey { consumer, handler, source, message_id: message.id }, order_hash(message))
    };
    let tx = store.begin().await.expect("a transaction opens");
    assert_eq!(store.admit_all(&tx, &[]).await.expect("admitted"), Vec::<bool>::new());
    assert_eq!(store.admit_all(&tx, &[key("h", &known)]).await.expect("admitted"), [true]);
    store.commit(tx).await.expect("a commit succeeds");
    let mut keys = vec![
        key("h", &new),
        key("h", &known),
        key("h", &behind),
        key("h", &keyless),
        key("h", &new),
        key("g", &known),
        key("g", &behind),
    ];
    keys.extend(many.iter().map(|message| key("h", message)));
    let mut expected = vec![true, false, false, true, false, true, true];
    expected.extend(vec![true; many.len()]);
    for rolls_back in [true, false] {
        let tx = store.begin().await.expect("a transaction opens");
        assert_eq!(store.admit_all(&tx, &keys).await.expect("admitted"), expected);
        if rolls_back {
            store.rollback(tx).await.expect("a rollback succeeds");
        } else {
            store.commit(tx).await.expect("a commit succeeds");
        }
    }
    let tx = store.begin().await.expect("a transaction opens");
    let again = store.admit_all(&tx, &keys).await.expect("admitted");
    assert!(again.iter().all(|is_new| !is_new), "each is known, or waits");
    let waits = store.admit(&tx, key("h", &behind).0, order_hash(&behind)).await.expect("admitted");
    assert_eq!(waits, Admission::QueueBehind, "nothing was written of it");
    store.rollback(tx).await.expect("a rollback succeeds");
}

/// A message is new, a duplicate, or queued behind others of its key.
pub async fn a_message_is_admitted_unless_known_or_behind_others_of_its_own_key<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let (done, waiting) = (message(Some("a")), message(Some("a")));
    assert_eq!(admit(&store, &done).await, Admission::New);
    assert_eq!(admit(&store, &done).await, Admission::Duplicate);
    assert!(put(&store, &waiting, LATER).await);
    assert_eq!(admit(&store, &done).await, Admission::Duplicate, "whatever waits");
    assert_eq!(admit(&store, &waiting).await, Admission::QueueBehind, "its own row counts too");
    assert_eq!(admit(&store, &message(Some("a"))).await, Admission::QueueBehind);
    assert_eq!(admit(&store, &message(Some("b"))).await, Admission::New);
    let keyless = message(None);
    assert!(put(&store, &keyless, LATER).await);
    assert_eq!(admit(&store, &keyless).await, Admission::New, "it has no key");
    let other =
        InboxKey { consumer: "c", handler: "other", source: "/elsewhere", message_id: waiting.id };
    let tx = store.begin().await.expect("a transaction opens");
    assert_eq!(
        store.admit(&tx, other, order_hash(&waiting)).await.expect("answered"),
        Admission::New
    );
    store.rollback(tx).await.expect("a rollback succeeds");
}

/// A claim ends with its lease, and whoever lost it changes nothing.
pub async fn a_claim_that_ran_out_is_anothers<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    assert!(put(&store, &message(None), NOW).await);
    let mine = claim(&store, "me", SHORT).await.swap_remove(0);
    assert!(store.extend_claim(&mine.claim, SHORT, true).await.expect("prolonging succeeds"));
    let theirs = claimed(&store, "you", LONG).await.swap_remove(0);
    assert_eq!(
        (theirs.claim.id, theirs.started, theirs.history.attempts),
        (mine.claim.id, 1, 0),
        "a run that never ended"
    );
    assert!(!store.extend_claim(&mine.claim, LONG, false).await.expect("prolonging is answered"));
    assert!(!store.reschedule(&mine.claim, None).await.expect("giving back is answered"));
    assert!(!finish(&store, &mine.claim).await);
    assert!(store.extend_claim(&theirs.claim, LONG, false).await.expect("prolonging succeeds"));
    assert!(finish(&store, &theirs.claim).await);
}

/// Many ask at once; each delivery goes to one.
pub async fn no_two_claim_the_same<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for _ in 0..20 {
        assert!(put(&store, &message(None), NOW).await);
    }
    let askers = ["a", "b", "c", "d"];
    let asked = futures_util::future::join_all(askers.map(|by| claim(&store, by, LONG))).await;
    let mut all: Vec<MessageId> = asked.iter().flat_map(|claimed| ids(claimed)).collect();
    assert_eq!(all.len(), 20);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
}

/// A failure is counted, a given back delivery is not.
pub async fn a_postponed_delivery_keeps_its_history<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    assert!(put(&store, &message(Some("a")), NOW).await);
    let first = claim(&store, "me", LONG).await.swap_remove(0);
    assert!(store.extend_claim(&first.claim, LONG, true).await.expect("prolonging succeeds"));
    assert!(store.reschedule(&first.claim, None).await.expect("giving back succeeds"));
    let again = claimed(&store, "me", LONG).await.swap_remove(0);
    assert_eq!((again.started, &again.history), (0, &History::default()));
    assert!(store.extend_claim(&again.claim, LONG, true).await.expect("prolonging succeeds"));
    let errors = vec![AttemptError::new(1, FailureClass::Transient, "no")];
    let history = History { attempts: 1, failures: 1, errors, ..History::default() };
    let later = Deferral { due_in: Duration::from_millis(50), history: &history };
    assert!(store.reschedule(&again.claim, Some(later)).await.expect("postponing succeeds"));
    let third = claimed(&store, "me", LONG).await.swap_remove(0);
    assert_eq!((third.started, third.history.attempts, third.history.failures), (1, 1, 1));
    assert_eq!((third.history.errors.len(), third.history.errors[0].text.as_str()), (1, "no"));
    assert!(third.history.failing_for > Duration::ZERO, "it has been failing since");
    let forever = Deferral { due_in: Duration::MAX, history: &history };
    assert!(store.reschedule(&third.claim, Some(forever)).await.expect("postponing succeeds"));
    assert!(claim(&store, "me", LONG).await.is_empty());
}

/// By the database's clock, for those that have a time to live.
pub async fn a_stored_delivery_tells_that_its_time_ran_out<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for expires_at in [Some(1_700_000_000_123_457), Some(4_000_000_000_000_001), None] {
        let expires_at = expires_at.map(Timestamp::from_micros);
        let message = Message::new(MessageParts { expires_at, ..message(None).into_parts() });
        assert!(put(&store, &message, NOW).await);
    }
    let expired: Vec<bool> =
        claim(&store, "me", LONG).await.iter().map(|stored| stored.expired).collect();
    assert_eq!(expired, [true, false, false]);
}

/// A head that goes while others are put behind it leaves no lane without one that is due.
pub async fn what_is_put_behind_a_head_that_goes_is_found<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for _ in 0..10 {
        assert!(put(&store, &message(Some("a")), NOW).await);
        let head = claimed(&store, "me", LONG).await.swap_remove(0);
        let behind = async {
            let next = message(Some("a"));
            // As a consumer does: admitted, or behind, or asked again.
            for _ in 0..100 {
                if admit(&store, &next).await != Admission::QueueBehind
                    || patiently(&store, &next).await
                {
                    return;
                }
            }
            panic!("neither admitted nor stored");
        };
        let goes = async {
            let mut tries = 0;
            while !try_finish(&store, &head.claim).await {
                tries += 1;
                assert!(tries < 100, "it is finished");
            }
        };
        tokio::join!(behind, goes);
        // Whatever came first: nothing is left that is not due.
        let tx = store.begin().await.expect("a transaction opens");
        let probe = message(Some("a"));
        let behind = DeferredDelivery {
            consumer: "c",
            handler: "h",
            message: &probe,
            due_in: None,
            history: History::default(),
        };
        let waits = store.defer(&tx, &behind).await.expect("answered");
        store.rollback(tx).await.expect("a rollback succeeds");
        if waits {
            let left = claimed(&store, "me", LONG).await.swap_remove(0);
            assert!(finish(&store, &left.claim).await);
        }
    }
}

/// Stores behind others; `false` when nothing is there, or the database was too busy.
async fn patiently<S: ConsumerStore>(store: &S, message: &Message) -> bool {
    let delivery = DeferredDelivery {
        consumer: "c",
        handler: "h",
        message,
        due_in: None,
        history: History::default(),
    };
    let Ok(tx) = store.begin().await else { return false };
    match store.defer(&tx, &delivery).await {
        Ok(true) => store.commit(tx).await.is_ok(),
        _ => false,
    }
}

async fn try_finish<S: ConsumerStore>(store: &S, claim: &DeliveryClaim) -> bool {
    let Ok(tx) = store.begin().await else { return false };
    match store.finish(&tx, claim).await {
        Ok(true) => store.commit(tx).await.is_ok(),
        _ => false,
    }
}

/// Origin, reason, history and message, for those that can be read and those that cannot.
pub async fn a_received_message_that_is_given_up_is_kept_whole<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let message = message(Some("a"));
    let errors = vec![AttemptError::new(3, FailureClass::Transient, "503")];
    let history = History {
        attempts: 4,
        failures: 3,
        errors,
        letter: Some(LetterId(7)),
        ..History::default()
    };
    let tx = store.begin().await.expect("a transaction opens");
    let letter = |message, reason| ReceivedLetter {
        consumer: "c",
        handler: "h/1",
        message,
        reason,
        history: &history,
    };
    let raw = bytes::Bytes::from_static(b"\0raw");
    let whole = store
        .write_dead_letter(&tx, &letter(Ok(&message), DeadReason::Exhausted))
        .await
        .expect("a letter is written");
    let unread = store
        .write_dead_letter(&tx, &letter(Err(Some(&raw)), DeadReason::Undecodable))
        .await
        .expect("a letter is written");
    store.commit(tx).await.expect("a commit succeeds");
    let by = ConsumerOrigin { consumer: "c".into(), handler: "h/1".into() };
    assert_eq!(
        (whole.message.as_ref(), whole.consumer_origin.as_ref(), whole.route.as_str()),
        (Some(&message), Some(&by), "")
    );
    assert_eq!(
        (whole.reason, whole.attempts, whole.event_id),
        (DeadReason::Exhausted, 3, EventId(4_711))
    );
    assert_eq!(
        (whole.errors[0].text.as_str(), whole.previous, whole.resolution.is_none()),
        ("503", Some(LetterId(7)), true)
    );
    assert!(whole.errors[0].at > 0 && whole.dead_at.as_micros() > 0);
    assert_eq!((unread.message, unread.reason), (None, DeadReason::Undecodable));
    assert!(unread.id > whole.id);
    // A relay is asked for letters by identity too.
    let relay = fixture.relay().await;
    let read = relay.settler.letters(&[whole.id]).await.expect("letters are read");
    assert_eq!((read.len(), read[0].consumer_origin.as_ref()), (1, Some(&by)));
}

/// What was done inside goes alone, or stays with what is around it.
pub async fn a_transaction_inside_another_goes_alone<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let (kept, gone) = (message(None), message(None));
    let key = |message: &Message| (message.source.clone(), message.id);
    let outer = store.begin().await.expect("a transaction opens");
    for (message, keeps) in [(&kept, true), (&gone, false)] {
        let inner = store.begin_nested(&outer).await.expect("a savepoint is set");
        let (source, message_id) = key(message);
        let key = InboxKey { consumer: "c", handler: "h", source: &source, message_id };
        assert_eq!(store.admit(&inner, key, None).await.expect("answered"), Admission::New);
        let ended = if keeps { store.commit(inner).await } else { store.rollback(inner).await };
        ended.expect("a savepoint ends");
    }
    store.commit(outer).await.expect("a commit succeeds");
    assert_eq!(admit(&store, &kept).await, Admission::Duplicate);
    assert_eq!(admit(&store, &gone).await, Admission::New);
}
