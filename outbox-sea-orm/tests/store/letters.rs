//! How long dead letters are kept, and what an operator deletes of them before.

use crate::{
    bytes::bury_all,
    outbox::{LEASE, owner_of_all},
};
use outbox_core::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote, purge_all},
    event::LetterId,
    outbox::RetrierStore,
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::Outbox;
use sea_orm::ConnectionTrait;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// An hour longer than 90 days, in microseconds.
const NINETY_DAYS: i64 = (90 * 24 + 1) * 3_600_000_000;

async fn installed(temp: &TempDatabase) -> Outbox {
    Outbox::builder(temp.connect().await)
        .source("/shop")
        .partitions(PARTITIONS)
        .install()
        .await
        .unwrap()
}

async fn all(outbox: &Outbox) -> Vec<LetterId> {
    let filter = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all() };
    outbox
        .dead_letters(&filter, None, 100)
        .await
        .unwrap()
        .into_iter()
        .map(|letter| letter.id)
        .collect()
}

async fn age_letters(outbox: &Outbox) {
    let sql = format!(
        "UPDATE outbox_dead_letters SET dead_at = dead_at - {NINETY_DAYS}, \
         resolved_at = resolved_at - {NINETY_DAYS}"
    );
    outbox.connection().execute_unprepared(&sql).await.unwrap();
}

on_every_database! {
    async fn a_purged_letter_has_no_content_any_more_keeps_who_and_why_and_opens_its_key(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        outbox.schema().append(outbox.connection(), "/shop", &[event("a"), event("b"), event("c")]).await.unwrap();
        let letters = bury_all(&store, &fence, true).await;
        let (filter, why) = (DeadLetterFilter::all().topic("orders"), OperatorNote::new("ann", "a customer left"));

        let hour = Duration::from_hours(1);
        assert_eq!(purge_all(&outbox, &filter, hour, &why, |_| {}).await.unwrap().seen, 0, "they are younger");
        assert_eq!(outbox.redrive(&letters[..1], &OperatorNote::new("bob", "repaired")).await.unwrap(), letters[..1]);
        let progress = purge_all(&outbox, &filter, Duration::ZERO, &why, |_| {}).await.unwrap();
        assert_eq!((progress.seen, progress.purged), (2, 2), "one was redriven before");
        assert_eq!(purge_all(&outbox, &filter, Duration::ZERO, &why, |_| {}).await.unwrap().purged, 0);

        let filter = DeadLetterFilter { include_resolved: true, ..filter };
        for letter in outbox.dead_letters(&filter, None, 10).await.unwrap() {
            let (message, resolution) = (letter.message.as_ref().unwrap(), letter.resolution.as_ref().unwrap());
            if letter.id == letters[0] {
                assert!(resolution.action == "redriven" && !message.payload.is_empty());
                continue;
            }
            assert_eq!((resolution.action.as_str(), resolution.by.as_str(), resolution.reason.as_str()), ("discarded", "ann", "a customer left"));
            assert!(message.payload.is_empty() && message.headers.is_empty() && letter.errors.is_empty());
        }
        assert!(outbox.redrive(&letters, &why).await.unwrap().is_empty(), "what has no content does not go again");
        let unparked = store.leases.renew(&fence.relay, 1, LEASE).await.unwrap().unparked;
        let unparked: Vec<_> = unparked.iter().map(|park| (park.letter, park.redriven)).collect();
        assert_eq!(unparked, [(letters[0], true), (letters[1], false), (letters[2], false)], "all keys open");

        // Of those that were decided about before, the content can be deleted too; the decision
        // stands.
        let again = purge_all(&outbox, &filter, Duration::ZERO, &why, |_| {}).await.unwrap();
        assert_eq!((again.seen, again.purged), (3, 0));
        let first = outbox.dead_letters(&filter, None, 1).await.unwrap().swap_remove(0);
        assert!(first.message.unwrap().payload.is_empty());
        assert_eq!(first.resolution.unwrap().by, "bob");
    }

    async fn a_letter_goes_ninety_days_after_it_was_decided_about_and_an_undecided_one_stays(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let events: Vec<_> = ["a", "b", "c", "d"].map(event).into();
        outbox.schema().append(outbox.connection(), "/shop", &events).await.unwrap();
        let letters = bury_all(&store, &fence, false).await;
        let why = OperatorNote::new("ann", "why not");
        outbox.redrive(&letters[..1], &why).await.unwrap();
        assert_eq!(store.janitor.prune(500).await.unwrap(), 0);
        assert_eq!(all(&outbox).await, letters);
        age_letters(&outbox).await;
        outbox.discard(&letters[1..2], &why).await.unwrap();
        assert_eq!(store.janitor.prune(500).await.unwrap(), 1, "by a relay");
        assert_eq!(all(&outbox).await, letters[1..]);
        age_letters(&outbox).await;
        assert_eq!(outbox.prune_inbox(500).await.unwrap(), 1, "by a consumer");
        assert_eq!(store.janitor.prune(500).await.unwrap(), 0);
        assert_eq!(all(&outbox).await, letters[2..], "nobody has decided about these");

        let shorter = Outbox::builder(outbox.connection().clone()).source("/shop");
        let shorter = shorter.dead_letter_retention(Duration::ZERO).build().await.unwrap();
        outbox.discard(&letters[2..3], &why).await.unwrap();
        age_letters(&outbox).await;
        assert_eq!(shorter.prune_inbox(500).await.unwrap(), 1);
        assert_eq!(all(&outbox).await, letters[3..]);
    }
}
