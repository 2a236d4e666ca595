//! The samples that one relay of a database writes, and how an operator reads them.

use crate::{
    controls::installed,
    outbox::{LEASE, owner_of_all},
};
use async_trait::async_trait;
use outbox_core::{
    admin::{Bounded, Live, RelayLive, RouteLive, Sample, SampleFigures, SampleStore},
    event::{Message, MessageId, NewEvent, Timestamp},
    outbox::{SampledRelay, Store},
    relay::Relay,
    testing::store::event,
    transport::{PublishError, Publisher, Receipt, everything},
};
use outbox_sea_orm::Outbox;
use sea_orm::ConnectionTrait;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{databases::TempDatabase, equals, on_every_database, wait_until};

const SOON: Duration = Duration::from_secs(30);
const ALWAYS: Timestamp = Timestamp::from_micros(0);

/// Takes everything, and what is named `later` with the second attempt.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<HashSet<MessageId>>>);

#[async_trait]
impl Publisher for Taken {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let is_first = self.0.lock().unwrap().insert(message.id);
        match &*message.payload {
            b"later" if is_first => Err(PublishError::transient("not yet")),
            _ => Ok(Receipt::new()),
        }
    }
}

async fn save(outbox: &Outbox, payloads: &[&str]) {
    let event =
        |payload: &&str| NewEvent { key: None, payload: payload.to_string().into(), ..event("") };
    let events: Vec<NewEvent> = payloads.iter().map(event).collect();
    let tx = outbox.begin().await.unwrap();
    outbox.schema().append(&tx, "/shop", &events).await.unwrap();
    tx.commit().await.unwrap();
    outbox.wake();
}

async fn relay(outbox: &Outbox, taken: &Taken) -> Relay {
    // The live rows are renewed each second.
    let builder = Relay::builder(outbox).lease(Duration::from_secs(3));
    let builder = builder.configure(|settings| settings.sample_every = Duration::from_millis(200));
    builder.route("billing", everything(), taken.clone()).start().await.unwrap()
}

on_every_database! {
    async fn samples_are_read_by_minute_and_route_and_a_later_write_replaces_one(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, _) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let sample = |minute: i64, route: &str, delivered| Sample {
            at: Timestamp::from_micros(minute * 60_000_000),
            route: route.to_owned(),
            figures: SampleFigures { over_ms: 60_000, delivered, p99_ms: Some(7), ..SampleFigures::default() },
        };
        let writer = store.samples.unwrap();
        let all = [sample(1, "audit", 1), sample(1, "billing", 2), sample(2, "audit", 3), sample(2, "billing", 4)];
        writer.write_samples(&all).await.unwrap();
        writer.write_samples(&[]).await.unwrap();
        let again = sample(2, "audit", 30);
        writer.write_samples(std::slice::from_ref(&again)).await.unwrap();
        assert_eq!(outbox.samples(ALWAYS, 3).await.unwrap(), [all[0].clone(), all[1].clone(), again.clone()]);
        let second = Timestamp::from_micros(120_000_000);
        assert_eq!(outbox.samples(second, u32::MAX).await.unwrap(), [again, all[3].clone()]);
        // A row of a later version that this program cannot read is left out.
        let strange = "INSERT INTO outbox_samples (at_us, route, body) VALUES (60000001, 'billing', '7')";
        outbox.connection().execute_unprepared(strange).await.unwrap();
        assert_eq!(outbox.samples(ALWAYS, 10).await.unwrap().len(), 4);
    }

    async fn the_basis_of_a_sample_has_the_owner_of_partition_0_the_backlog_and_all_relays(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let (writer, live, me) = (store.samples.unwrap(), store.live.unwrap(), fence.relay.as_str());
        let empty = writer.sample_basis(me).await.unwrap();
        assert!(empty.is_elected && empty.relays.is_empty() && empty.now > ALWAYS);
        assert_eq!((empty.backlog, empty.oldest), (Bounded::default(), None));

        save(&outbox, &["1", "2", "3"]).await;
        let route = RouteLive { route: "billing".to_owned(), delivered: 7, ..RouteLive::default() };
        let state = RelayLive { routes: vec![route], ..RelayLive::default() };
        for id in [me, "crashed", "gone"] {
            live.write_live(id, "", Live::Relay(state.clone())).await.unwrap();
        }
        let rows = outbox.operator().unwrap();
        rows.write_live("other", "receipts", Live::Consumer(Default::default())).await.unwrap();
        for sql in [
            "UPDATE outbox_live SET written_at = written_at - 61000000 WHERE id = 'gone'",
            "UPDATE outbox_events SET created_at = created_at - 5000000",
        ] {
            outbox.connection().execute_unprepared(sql).await.unwrap();
        }
        let basis = writer.sample_basis("crashed").await.unwrap();
        assert!(!basis.is_elected, "it does not own partition 0");
        assert_eq!(basis.backlog, Bounded { count: 3, or_more: false });
        let oldest = basis.oldest.unwrap();
        assert!(oldest >= Duration::from_secs(5) && oldest < Duration::from_mins(1), "{oldest:?}");
        let mut relays = basis.relays;
        relays.sort_by_key(|relay| !relay.live);
        let row = |id: &str, live| SampledRelay { id: id.to_owned(), live, state: state.clone() };
        assert_eq!(relays, [row(me, true), row("crashed", false)]);
    }

    async fn of_two_relays_one_writes_what_both_have_delivered(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let other = Outbox::builder(temp.connect().await).source("/shop").build().await.unwrap();
        let taken = Taken::default();
        let relays = [relay(&outbox, &taken).await, relay(&other, &taken).await];
        let samples = async || outbox.samples(ALWAYS, 10_000).await.unwrap();
        let owned = |relay: &Relay| relay.stats().borrow().partitions;
        wait_until(SOON, "both relays work", async || relays.iter().all(|relay| owned(relay) > 0)).await;
        wait_until(SOON, "the first sample", async || !samples().await.is_empty()).await;
        let before = samples().await.len();

        save(&outbox, &["now"; 60]).await;
        save(&outbox, &["later"; 2]).await;
        let delivered = |relay: &Relay| relay.stats().borrow().delivered;
        wait_until(SOON, "both deliver", async || relays.iter().map(delivered).sum::<u64>() == 62).await;
        assert!(relays.iter().all(|relay| delivered(relay) > 0), "each has some of the keys");
        let sum = async |figure: fn(&SampleFigures) -> u64| {
            samples().await.iter().map(|sample| figure(&sample.figures)).sum::<u64>()
        };
        wait_until(SOON, "the samples have all", async || {
            let sums = (sum(|figures| figures.delivered).await, sum(|figures| figures.failed).await);
            equals(sums, (62, 2))
        })
        .await;
        // Nothing is counted twice in the samples after that.
        let seen = samples().await.len();
        wait_until(SOON, "two further samples", async || samples().await.len() >= seen + 2).await;
        assert_eq!(sum(|figures| figures.delivered).await, 62);
        let rows = samples().await;
        assert!(rows.len() > before && rows.iter().all(|row| row.route == "billing"));
        assert!(rows.iter().all(|Sample { figures, .. }| figures.p99_ms.is_some() == (figures.delivered > 0)));
        for relay in relays {
            relay.shutdown(Duration::from_secs(10)).await.unwrap();
        }
    }
}
