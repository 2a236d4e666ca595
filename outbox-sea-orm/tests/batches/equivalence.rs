//! Whatever handlers do, what a consumer leaves is the same whether its deliveries share transactions or not.

use crate::{
    script::{Actor, What},
    world::{LOCKS, World, handle, message},
};
use outbox_sea_orm::event::Message;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use std::sync::atomic::{AtomicU64, Ordering};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// A message to deliver, and whether it is delivered twice.
type Sent = (Option<u8>, What, bool);

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        24 => Just(What::Ends),
        6 => Just(What::Emits),
        3 => Just(What::EmitsLate),
        1 => (1u32..5).prop_map(What::Fails),
        1 => (1u32..3).prop_map(What::Panics),
        1 => Just(What::Rejects),
        1 => Just(What::Snoozes),
        1 => (1u64..12).prop_map(What::Sleeps),
        1 => any::<bool>().prop_map(What::SwallowsError),
        4 => (0..LOCKS, 0..LOCKS, any::<bool>()).prop_map(|(a, b, swallows)| What::Locks(a, b, swallows)),
        1 => Just(What::UsesDriver),
    ]
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let one = (proptest::option::weighted(0.7, 0u8..12), what(), prop::bool::weighted(0.1));
    proptest::collection::vec(one, 20..70)
}

/// Some cases, or, where the long form is asked for by `OUTBOX_LONG=1`, many.
fn cases() -> u32 {
    if std::env::var_os("OUTBOX_LONG").is_some_and(|value| value == "1") { 150 } else { 5 }
}

fn messages(sent: &[Sent]) -> Vec<Message> {
    let (mut messages, mut n) = (Vec::new(), 0);
    for (group, what, twice) in sent {
        let group = group.map(|group| format!("k{group}"));
        messages.push(message(n, group.as_deref(), *what));
        if *twice {
            messages.push(messages[messages.len() - 1].clone());
        }
        n += 1;
    }
    messages
}

/// What happened while messages were handled in both ways.
struct Seen {
    /// Batches that were committed.
    committed: u64,
    rolled_back: u64,
    /// Errors of locks that handlers swallowed, one by one and in batches.
    swallowed: [u64; 2],
}

/// Handles the same messages in both ways, and compares what is left.
async fn compare(world: &World, case: u64, sent: &[Sent]) -> Result<Seen, TestCaseError> {
    let messages = messages(sent);
    let (single, batched) = (format!("single-{case}"), format!("batched-{case}"));
    let mut found = Vec::new();
    let mut seen = Seen { committed: 0, rolled_back: 0, swallowed: [0; 2] };
    for (name, is_batched) in [(&single, false), (&batched, true)] {
        world.add_locks(name).await;
        let actor = Actor::default();
        let consumer = world.consumer(name, &actor).concurrency(3).prefetch(64);
        let consumer = if is_batched { consumer.batch_eagerly() } else { consumer.one_by_one() };
        let stats = handle(world, consumer, &messages).await;
        if is_batched {
            (seen.committed, seen.rolled_back) = (stats.batches, stats.batches_rolled_back);
        } else {
            prop_assert_eq!((stats.batches, stats.batches_rolled_back), (0, 0));
        }
        seen.swallowed[usize::from(is_batched)] = actor.swallowed.load(Ordering::Relaxed);
        let committed = actor.committed.lock().unwrap().clone();
        let counted = (stats.handled, stats.dead_lettered, stats.acked, stats.received);
        found.push((world.left(name).await, committed, counted));
    }
    prop_assert_eq!(&found[0], &found[1]);
    // What was counted is what was done.
    let (left, committed, (handled, letters, ..)) = &found[1];
    prop_assert!(committed.values().all(|times| *times == 1), "{:?}", committed);
    prop_assert_eq!(committed.len() as u64, *handled);
    prop_assert_eq!(left.inbox, i64::try_from(handled + letters).unwrap());
    prop_assert_eq!(sent.len() as u64, handled + letters);
    prop_assert_eq!(left.deferred, 0);
    Ok(seen)
}

on_every_database! {
    async fn what_handlers_leave_is_the_same_in_batches_and_alone(db: &TempDatabase) {
        let world = World::open(db).await;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let config = Config { cases: cases(), max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, rng);
        let (case, committed, rolled_back) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let compared = tokio::task::block_in_place(|| {
            runner.run(&sent(), |sent| {
                let case = case.fetch_add(1, Ordering::Relaxed);
                let seen = tokio::runtime::Handle::current().block_on(compare(&world, case, &sent))?;
                committed.fetch_add(seen.committed, Ordering::Relaxed);
                rolled_back.fetch_add(seen.rolled_back, Ordering::Relaxed);
                Ok(())
            })
        });
        compared.unwrap_or_else(|error| panic!("{error}"));
        let batches = (committed.into_inner(), rolled_back.into_inner());
        assert!(batches.0 > 0 && batches.1 > 0, "both were tried: {batches:?}");
    }

    async fn deadlocks_that_handlers_swallow_leave_the_same_in_batches_and_alone(db: &TempDatabase) {
        let world = World::open(db).await;
        // Every third handler locks two rows, each in the order opposite to that of the one before.
        let what = |n: u8| match n % 6 {
            0 => What::Locks(0, 1, true),
            3 => What::Locks(1, 0, true),
            1 => What::Emits,
            _ => What::Ends,
        };
        let sent: Vec<Sent> = (0..72).map(|n| (None, what(n), false)).collect();
        let seen = compare(&world, 0, &sent).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(seen.committed > 0, "deliveries shared transactions");
        // SQLite has one writer, so that no handler waits for another one's row.
        let [alone, _] = seen.swallowed;
        assert_eq!(alone > 0, db.database() != Database::Sqlite, "{:?} swallowed", seen.swallowed);
    }
}
