//! The tables as SeaORM entities read what the store wrote.

use crate::outbox::{LEASE, installed, owner_of_all, read_all};
use outbox_core::{
    event::SagaId,
    failure::DeadReason,
    outbox::{
        CommandKey, CommandOutcome, DeferredDelivery, History, InboxKey, NewInstance, NewLetter,
        RouteRow, RouteState, RouteUpdate, StoredReply,
    },
    saga::{CommandHash, CommandPhase},
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{
    DeliverAt, Namespace, Retention, StoreOptions,
    entity::{
        archive, dead_letter, deferred, event as events, inbox, instance as instances, partition,
        relay, retry, saga_barrier, scheduled,
    },
    open_relay_store,
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use std::{num::NonZeroU32, time::Duration};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn every_table_can_be_read_by_its_entity(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        let (_, fence) = owner_of_all(&db, &schema, LEASE).await;
        let keep = StoreOptions::new(LEASE).retention(Retention::Keep(Duration::from_hours(1)));
        let store = open_relay_store(&db, &schema, &keep).await.unwrap();
        let saved = [event("a"), event("a"), event("a")];
        schema.append(&db, "/shop", &saved).await.unwrap();
        let later = event("later");
        schema.schedule(&db, "/shop", &[(later.clone(), DeliverAt::In(Duration::from_hours(1)))]).await.unwrap();
        let key = InboxKey { consumer: "c", handler: "h", source: "/other", message_id: later.message_id };
        assert!(schema.receive(&db, key).await.unwrap());
        let kept = read_all(&*store.reader).await[0].body.clone().unwrap();
        let stored = DeferredDelivery {
            consumer: "c",
            handler: "h",
            message: &kept,
            due_in: Some(Duration::from_hours(1)),
            history: History { attempts: 2, failures: 1, ..History::default() },
        };
        assert!(schema.defer(&db, &stored).await.unwrap());
        let key = CommandKey { consumer: "c", saga: SagaId::generate(), step: "s", round: NonZeroU32::MIN, phase: CommandPhase::Do };
        assert_eq!(schema.record_command(&db, key, Some(CommandHash::of("a", b"b")), CommandOutcome::Done).await.unwrap(), None);
        schema.store_reply(&db, key, CommandOutcome::Done, &StoredReply::from(event("a"))).await.unwrap();
        let id = "i".into();
        let instance = NewInstance { id: &id, consumer: "c", max_in_flight: 16, handlers: &[] };
        schema.register_instance(&db, &instance, LEASE).await.unwrap();
        let places: Vec<_> = read_all(&*store.reader).await.iter().map(|e| (e.partition, e.id)).collect();
        store.settler.finish(&fence, &places[..1]).await.unwrap();
        let dead = RouteRow { state: RouteState::Dead, ..RouteRow::waiting("billing".into()) };
        let rows = vec![dead, RouteRow::waiting("ledger".into())];
        let letters = vec![NewLetter { route: "billing".into(), reason: DeadReason::Rejected, parks: true }];
        let update = RouteUpdate { partition: places[1].0, id: places[1].1, rows, letters };
        store.settler.record(&fence, &[update]).await.unwrap();

        let waiting = events::Entity::find().order_by_asc(events::Column::EventId).all(&db).await.unwrap();
        let ids: Vec<_> = waiting.iter().map(|e| (e.event_id, e.message_id)).collect();
        let expected = |n: usize| (places[n].1.0, *saved[n].message_id.as_uuid());
        assert_eq!(ids, [expected(1), expected(2)]);
        assert_eq!((waiting[0].payload.as_slice(), waiting[0].message_key.as_deref()), (&b"{}"[..], Some("a")));
        let instance = instances::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!((instance.consumer.as_str(), instance.max_in_flight, instance.handlers.as_str()), ("c", 16, "[]"));
        assert!(instance.lease_until > instance.started_at);
        let finished = archive::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!((finished.event_id, finished.message_id), expected(0));
        assert!(finished.finished_at >= finished.created_at);
        let of_event = retry::Entity::find().filter(retry::Column::EventId.eq(places[1].1.0));
        let states: Vec<_> =
            of_event.order_by_asc(retry::Column::Route).all(&db).await.unwrap().into_iter().map(|r| r.state).collect();
        assert_eq!(states, ["dead", "waiting"]);
        let letter = dead_letter::Entity::find().filter(dead_letter::Column::Resolution.is_null()).one(&db).await;
        let letter = letter.unwrap().unwrap();
        assert_eq!((letter.event_id, letter.message_id), expected(1));
        assert!(letter.parks && letter.reason == "rejected");
        assert_eq!((letter.origin.as_str(), letter.partition_no.is_some()), ("relay", true));
        let row = scheduled::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!(row.message_id, *later.message_id.as_uuid());
        let row = inbox::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!((row.consumer.as_str(), row.message_id), ("c", *later.message_id.as_uuid()));
        let row = deferred::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!((row.handler.as_str(), row.message_id, row.payload), ("h", *kept.id.as_uuid(), b"{}".to_vec()));
        assert_eq!((row.attempts_finished, row.failures, row.claimed_by), (2, 1, None));
        assert!(row.due_at > row.failing_since && row.order_hash.is_some());
        let row = saga_barrier::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!((row.saga_id, row.round, row.outcome.as_str()), (*key.saga.as_uuid(), 1, "done"));
        assert_eq!((row.event_type.as_deref(), row.payload.as_deref()), (Some("order.placed"), Some(&b"{}"[..])));
        assert!(row.keep_until > row.written_at);
        let row = relay::Entity::find().one(&db).await.unwrap().unwrap();
        assert_eq!(row.relay_id, fence.relay.as_str());
        let owned = partition::Entity::find().filter(partition::Column::Owner.eq(fence.relay.as_str()));
        assert_eq!(owned.count(&db).await.unwrap(), u64::from(PARTITIONS));
    }
}
