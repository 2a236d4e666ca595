//! Deliveries that wait for an instance that knows them, and handlers' names.

use super::{
    StoreFixture,
    received::{admit, finish, ids, message},
};
use crate::{
    event::Message,
    outbox::{
        Admission, Awaited, AwaitedBy, ClaimQuery, ConsumerStore, Deferral, DeferredDelivery,
        HandlerNameStore, HandoverStore, History, RetrierStore, StoredDelivery,
    },
};
use std::{sync::Arc, time::Duration};

const LATER: Duration = Duration::from_hours(1);
/// A lease that no test outlives.
const LONG: Duration = Duration::from_mins(10);

fn delivery<'a>(handler: &'a str, message: &'a Message, due_in: Duration) -> DeferredDelivery<'a> {
    DeferredDelivery {
        consumer: "c",
        handler,
        message,
        due_in: Some(due_in),
        history: History::default(),
    }
}

async fn put<S: ConsumerStore>(store: &S, handler: &str, message: &Message, due_in: Duration) {
    let tx = store.begin().await.expect("a transaction opens");
    assert!(
        store.defer(&tx, &delivery(handler, message, due_in)).await.expect("a delivery is stored")
    );
    store.commit(tx).await.expect("a commit succeeds");
}

async fn hand_over<S: ConsumerStore>(
    store: &S,
    handler: &str,
    message: &Message,
    (due_in, awaited): (Duration, Option<&Awaited>),
) {
    let tx = store.begin().await.expect("a transaction opens");
    store
        .hand_over(&tx, &delivery(handler, message, due_in), awaited)
        .await
        .expect("a delivery is left");
    store.commit(tx).await.expect("a commit succeeds");
}

/// Claims what is due for some handlers, or what waits for something.
async fn claim<S: ConsumerStore>(
    store: &S,
    handlers: &[&str],
    known: Option<&[AwaitedBy]>,
) -> Vec<StoredDelivery> {
    let handlers: Vec<Arc<str>> = handlers.iter().map(|handler| Arc::from(*handler)).collect();
    let by: Arc<str> = "me".into();
    let query = ClaimQuery { consumer: "c", handlers: &handlers, by: &by, lease: LONG, limit: 100 };
    let claimed = match known {
        None => store.claim(&query).await,
        Some(known) => store.claim_awaited(&query, known).await,
    };
    claimed.expect("claiming succeeds")
}

fn by(handler: &str, awaited: Option<Awaited>) -> AwaitedBy {
    AwaitedBy { handler: handler.into(), awaited }
}

fn of_type(version: u16) -> Awaited {
    Awaited::Type { name: "order.placed".into(), version }
}

fn saga() -> Awaited {
    Awaited::Saga { name: "checkout".into(), version: 2 }
}

/// By handler, kind, name and version; later ones of a key wait behind it.
pub async fn what_waits_for_an_instance_that_knows_it_is_claimed_by_that_one_alone<
    F: StoreFixture,
>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let (newer, answer, nameless) = (message(Some("a")), message(None), message(Some("b")));
    hand_over(&store, "h", &newer, (LATER, Some(&of_type(3)))).await;
    // A repeat stays as it is.
    hand_over(&store, "h", &newer, (Duration::ZERO, Some(&of_type(9)))).await;
    hand_over(&store, "h", &answer, (LATER, Some(&saga()))).await;
    hand_over(&store, "", &nameless, (LATER, None)).await;
    let behind = message(Some("a"));
    assert_eq!(admit(&store, &behind).await, Admission::QueueBehind);
    put(&store, "h", &behind, Duration::ZERO).await;
    assert!(
        claim(&store, &["h", ""], None).await.is_empty(),
        "nothing of it is due, and the key waits"
    );

    let mut awaited = store.awaited("c").await.expect("it is told");
    awaited.sort_by_key(|by| (by.handler.clone(), by.awaited.clone()));
    let all = [by("", None), by("h", Some(of_type(3))), by("h", Some(saga()))];
    assert_eq!(awaited, all);
    assert!(store.awaited("other").await.expect("it is told").is_empty());

    let others =
        [by("h", Some(of_type(4))), by("g", Some(of_type(3))), by("h", None), by("", Some(saga()))];
    assert!(claim(&store, &["h"], Some(&others)).await.is_empty(), "none of them is waited for");
    let claimed = claim(&store, &[], Some(&[others.as_slice(), &all[1..2]].concat())).await;
    assert_eq!((ids(&claimed), claimed[0].awaited_for), (vec![newer.id], None));
    assert!(claim(&store, &[], Some(&all[1..2])).await.is_empty(), "it is claimed");
    assert!(finish(&store, &claimed[0].claim).await);
    assert_eq!(ids(&claim(&store, &["h"], None).await), [behind.id], "the key goes on");
    let many: Vec<AwaitedBy> =
        (10..200).map(|version| by("h", Some(of_type(version)))).chain(all.clone()).collect();
    assert_eq!(claim(&store, &[], Some(&many)).await.len(), 2, "however many are known");
    assert!(store.awaited("c").await.expect("it is told").is_empty(), "nothing waits any more");
}

/// A retry of an instance that knows it does not wait.
pub async fn a_claimed_delivery_that_is_left_has_waited_since_it_was_left_first<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let newer = message(None);
    put(&store, "h", &newer, Duration::ZERO).await;
    let claimed = claim(&store, &["h"], None).await;
    assert_eq!(claimed[0].awaited_for, None);
    let history = History { attempts: 1, ..History::default() };
    let postponed = |due_in| Deferral { due_in, history: &history };
    let (now, wanted) = (Duration::ZERO, of_type(3));
    assert!(
        store
            .hand_over_claimed(&claimed[0].claim, postponed(now), Some(&wanted))
            .await
            .expect("answered")
    );
    assert!(
        !store
            .hand_over_claimed(&claimed[0].claim, postponed(now), Some(&wanted))
            .await
            .expect("answered"),
        "lost"
    );
    // Its time is over, and whoever claims it then does not know it either.
    let first = claim(&store, &["h"], None).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        store.hand_over_claimed(&first[0].claim, postponed(now), None).await.expect("answered")
    );
    let second = claim(&store, &["h"], None).await;
    let waited = |claimed: &[StoredDelivery]| claimed[0].awaited_for.expect("it waits");
    assert!(waited(&second) >= waited(&first) + Duration::from_millis(40), "{second:?}");
    assert_eq!((second[0].started, second[0].history.attempts), (1, 1));
    // One that knows it, and fails.
    assert!(store.reschedule(&second[0].claim, Some(postponed(now))).await.expect("answered"));
    assert_eq!(claim(&store, &["h"], None).await[0].awaited_for, None);
}

/// What is stored under names that are not known, and under the name that a handler had before.
pub async fn deliveries_of_other_handlers_are_counted_left_and_moved<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    let known: [Arc<str>; 1] = ["h".into()];
    let (first, second, twin) = (message(Some("a")), message(Some("a")), message(None));
    for (handler, message) in [
        ("old", &first),
        ("h", &second),
        ("old", &twin),
        ("h", &twin),
        ("gone", &second),
        ("", &first),
    ] {
        put(&store, handler, message, Duration::ZERO).await;
    }
    let counted = store.under_other_names("c", &known).await.expect("counted");
    assert_eq!(counted, [("gone".into(), 1), ("old".into(), 2)]);
    assert!(store.under_other_names("other", &known).await.expect("counted").is_empty());

    // The name that is gone: it waits for whoever has it.
    assert_eq!(store.hand_over_all("c", "gone", LATER, 10).await.expect("left"), 1);
    assert_eq!(store.hand_over_all("c", "gone", LATER, 10).await.expect("left"), 0, "once");
    assert!(claim(&store, &["gone"], None).await.is_empty());
    assert_eq!(store.awaited("c").await.expect("told"), [by("gone", None)]);
    let back = claim(&store, &["gone"], Some(&[by("gone", None)])).await;
    assert_eq!(ids(&back), [second.id]);
    assert_eq!(
        store.hand_over_all("c", "gone", LATER, 10).await.expect("left"),
        0,
        "it is claimed"
    );

    // The name before: moved, but for a message that is there under both.
    assert_eq!(store.rename_handler("c", "old", "h", 10).await.expect("moved"), 1);
    assert_eq!(store.rename_handler("c", "old", "h", 10).await.expect("moved"), 0);
    let claimed = claim(&store, &["h"], None).await;
    let mut told = ids(&claimed);
    told.sort();
    let mut expected = vec![first.id, twin.id];
    expected.sort();
    assert_eq!(told, expected, "the first of its key comes first under the new name too");
    let of_first = claimed
        .iter()
        .find(|c| c.message.as_ref().is_ok_and(|m| m.id == first.id))
        .expect("it is there");
    assert!(finish(&store, &of_first.claim).await);
    assert_eq!(ids(&claim(&store, &["h"], None).await), [second.id]);
}
