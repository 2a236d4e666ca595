//! Lists page by page, and groups of dead letters.

use super::*;
use crate::outbox::{LEASE, owner_of_all};
use outbox_core::{
    admin::{DeadLetterFilter, ListStore, Page},
    failure::{DeadReason, FailureClass},
    outbox::{InboxKey, NewLetter, RouteRow, RouteState, RouteUpdate},
    testing::store::event,
};

const TWO: Page = Page { after: None, limit: 2 };

on_every_database! {
    async fn a_page_goes_on_where_the_one_before_ended(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (mut deferred, mut scheduled) = (Vec::new(), Vec::new());
        for n in 0..5 {
            deferred.push(defer(&outbox, &n.to_string(), Some(SOON)).await);
            scheduled.push(emit(&outbox, n, EnqueueOptions::new().deliver_in(SOON)).await);
        }
        for consumer in [None, Some("mail")] {
            let (mut seen, mut page) = (Vec::new(), TWO);
            loop {
                let some = outbox.deferred(consumer, page).await.unwrap();
                assert!(some.len() <= 2);
                let Some(last) = some.last() else { break };
                page.after = Some(last.id);
                seen.extend(some.iter().map(|delivery| delivery.message));
            }
            assert_eq!(seen, deferred, "{consumer:?}");
        }
        assert!(outbox.deferred(Some("other"), TWO).await.unwrap().is_empty());
        let all = outbox.deferred(None, Page { after: None, limit: u32::MAX }).await.unwrap();
        assert_eq!((all.len(), all[0].failures, all[0].key.as_deref()), (5, 1, Some("0")));

        let (mut seen, mut page) = (Vec::new(), TWO);
        loop {
            let some = outbox.scheduled(page).await.unwrap();
            let Some(last) = some.last() else { break };
            page.after = Some(last.id);
            seen.extend(some.iter().map(|event| event.message));
        }
        assert_eq!(seen, scheduled);
        let overview = outbox.overview().await.unwrap();
        assert_eq!((overview.deferred.count, overview.scheduled.count, overview.deferred.or_more), (5, 5, false));
        assert_eq!((overview.unowned, overview.source.as_str()), (PARTITIONS, "/shop"));
    }

    async fn more_deliveries_than_one_read_takes_are_all_on_a_page(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        for n in 0..130 {
            defer(&outbox, &n.to_string(), Some(SOON)).await;
        }
        for consumer in [None, Some("mail")] {
            let page = Page { after: None, limit: 125 };
            assert_eq!(outbox.deferred(consumer, page).await.unwrap().len(), 125);
        }
    }

    async fn a_message_is_found_in_the_inbox_of_every_handler_and_sender(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let id = MessageId::generate();
        let tx = Store::begin(&outbox).await.unwrap();
        for (consumer, handler, source, message_id) in [
            ("a", "h", "/x", MessageId::generate()),
            ("a", "h", "/y", id),
            ("a", "i", "/x", id),
            ("b", "h", "/x", MessageId::generate()),
            ("c", "h", "/x", id),
        ] {
            assert!(outbox.receive(&tx, InboxKey { consumer, handler, source, message_id }).await.unwrap());
        }
        outbox.commit(tx).await.unwrap();
        let rows = outbox.inbox(id).await.unwrap();
        let rows: Vec<_> = rows.iter().map(|r| (r.consumer.as_str(), r.handler.as_str(), r.source.as_str())).collect();
        assert_eq!(rows, [("a", "h", "/y"), ("a", "i", "/x"), ("c", "h", "/x")]);
        assert!(outbox.inbox(MessageId::generate()).await.unwrap().is_empty());
    }

    async fn letters_of_one_cause_are_one_group_whose_filter_selects_them(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let events: Vec<_> = ["a", "b", "c", "d", "e"].map(event).into();
        outbox.schema().append(outbox.connection(), "/shop", &events).await.unwrap();
        let stored = crate::outbox::read_all(&*store.reader).await;
        let errors = ["503 for order 17", "503 for order 18", "503 for order 9", "no route 'x'", "no route 'y'"];
        let updates: Vec<RouteUpdate> = stored.iter().zip(errors).map(|(event, text)| {
            let route = if text.starts_with("no") { "mail" } else { "billing" };
            let errors = vec![AttemptError::new(1, FailureClass::Permanent, text)];
            let row = RouteRow { state: RouteState::Dead, errors, ..RouteRow::waiting(route.into()) };
            let letter = NewLetter { route: route.into(), reason: DeadReason::Rejected, parks: false };
            RouteUpdate { partition: event.partition, id: event.id, rows: vec![row], letters: vec![letter] }
        }).collect();
        store.settler.record(&fence, &updates).await.unwrap();

        let groups = outbox.letter_groups(&DeadLetterFilter::all()).await.unwrap();
        let shown: Vec<_> = groups.iter().map(|g| (g.route.as_str(), g.error.as_str(), g.count.count, g.count.or_more)).collect();
        assert_eq!(shown, [("billing", "# for order #", 3, false), ("mail", "no route '_'", 2, false)]);
        assert!(groups.iter().all(|g| g.reason == DeadReason::Rejected && g.first_at <= g.last_at));
        for group in &groups {
            use outbox_core::admin::AdminStore;
            let selected = outbox.dead_letters(&group.filter, None, 100).await.unwrap();
            assert_eq!(selected.len() as u64, group.count.count);
            assert!(selected.iter().all(|letter| letter.route == group.route));
        }
        let mail = outbox.letter_groups(&DeadLetterFilter::all().route("mail")).await.unwrap();
        assert_eq!(mail.len(), 1);
        assert!(outbox.letter_groups(&DeadLetterFilter::all().topic("other")).await.unwrap().is_empty());
    }
}
