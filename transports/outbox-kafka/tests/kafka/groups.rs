//! Members of a group that join, leave and are slow.

use crate::support::{SOON, name, next, number, numbered, publisher, subscriber, url};
use outbox_core::{
    event::Message,
    testing::Recorder,
    transport::{Publisher, Subscriber, publish_all},
};
use outbox_kafka::KafkaSubscriber;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, time::timeout};

/// How long a test waits for a delivery that must not come.
const QUIET: Duration = Duration::from_millis(1_500);

/// Deletes a topic, without the transport.
pub(crate) async fn delete(topic: &str) {
    let brokers = url().replace("kafka://", "");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("a reply");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}

/// Handles deliveries, several at once, until it is asked to stop; then acknowledges those in
/// flight and leaves the group.
async fn serve(
    mut member: KafkaSubscriber,
    recorder: Recorder,
    taken: watch::Sender<usize>,
    mut stop: watch::Receiver<bool>,
) {
    let mut handling = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            next = member.next() => if let Ok(Some(delivery)) = next {
                taken.send_modify(|taken| *taken += 1);
                let recorder = recorder.clone();
                handling.spawn(async move { recorder.take(delivery).await });
            }
        }
        while handling.try_join_next().is_some() {}
    }
    handling.join_all().await;
    member.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_and_leave_under_load_lose_nothing_double_nothing_and_keep_the_order() {
    const PARTITIONS: u16 = 12;
    const KEYS: i64 = 40;
    const EACH: i64 = 100;
    /// Between two batches while members still come and go: a load, and no flood.
    const PAUSE: Duration = Duration::from_millis(100);
    let topic = name("members");
    let publisher = publisher(&topic, PARTITIONS);
    let recorder = Recorder::new();
    let gone = watch::channel(false).0;
    // Goes on until every member was under load: one that joins waits for a rebalance first.
    let publish = async {
        let mut n = 0;
        while n < EACH || !*gone.borrow() {
            n += 1;
            let batch: Vec<Message> =
                (0..KEYS).map(|key| numbered(n, &format!("k{key}"))).collect();
            let outcomes = publish_all(&publisher, &batch).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            if n >= EACH {
                tokio::time::sleep(PAUSE).await;
            }
        }
        usize::try_from(KEYS * n).expect("few")
    };
    let stay = watch::channel(false).0;
    let staying = tokio::spawn(serve(
        subscriber(&topic, PARTITIONS),
        recorder.clone(),
        watch::channel(0).0,
        stay.subscribe(),
    ));
    let come_and_go = async {
        for _ in 0..4 {
            let (stop, taken) = (watch::channel(false).0, watch::channel(0).0);
            let mut takes_part = taken.subscribe();
            let passing = tokio::spawn(serve(
                subscriber(&topic, PARTITIONS),
                recorder.clone(),
                taken,
                stop.subscribe(),
            ));
            tokio::time::sleep(Duration::from_millis(700)).await;
            takes_part.wait_for(|taken| *taken > 0).await.expect("the member serves");
            stop.send_replace(true);
            passing.await.expect("ended");
        }
        gone.send_replace(true);
    };
    let (all, ()) =
        timeout(SOON, async { tokio::join!(publish, come_and_go) }).await.expect("all take part");
    recorder.wait_for(all, SOON).await.expect("all come");
    stay.send_replace(true);
    staying.await.expect("ended");
    assert_eq!((recorder.distinct(), recorder.repeated()), (all, Vec::new()));
    assert_eq!(recorder.keys_out_of_order(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_that_restarts_has_its_partitions_again_and_no_other_member_had_them() {
    let topic = name("static");
    let publisher = publisher(&topic, 2);
    let member = |instance: &str| subscriber(&topic, 2).instance(instance);
    let (mut first, mut second) = (member("first"), member("second"));
    let mut seen: [BTreeSet<i64>; 2] = Default::default();
    // Each has one partition when both have received.
    let both = async {
        let mut n = 0;
        while seen.iter().any(BTreeSet::is_empty) {
            n += 1;
            publisher.publish(&numbered(n, &format!("k{n}"))).await.expect("confirmed");
            for (member, seen) in [&mut first, &mut second].into_iter().zip(&mut seen) {
                if let Ok(Ok(Some(delivery))) =
                    timeout(Duration::from_millis(200), member.next()).await
                {
                    seen.insert(number(&delivery));
                    delivery.ack().await.expect("accepted");
                }
            }
        }
        while let Ok(Ok(Some(delivery))) = timeout(QUIET, first.next()).await {
            delivery.ack().await.expect("accepted");
        }
        n
    };
    let n = timeout(SOON, both).await.expect("both take part");
    drop(first);
    // Of many keys, some are of either partition.
    let later: Vec<Message> = (n + 1..n + 21).map(|n| numbered(n, &format!("k{n}"))).collect();
    publish_all(&publisher, &later)
        .await
        .into_iter()
        .for_each(|outcome| drop(outcome.expect("confirmed")));
    let mut taken = BTreeSet::new();
    while let Ok(Ok(Some(delivery))) = timeout(QUIET, second.next()).await {
        taken.insert(number(&delivery));
        delivery.ack().await.expect("accepted");
    }
    let taken_later = taken.iter().filter(|taken| **taken > n).count();
    assert!(
        taken_later > 0 && taken_later < later.len(),
        "the other partition waits for its owner: {taken:?}"
    );
    let mut again = member("first");
    while taken.iter().filter(|taken| **taken > n).count() < later.len() {
        let delivery = next(&mut again).await;
        taken.insert(number(&delivery));
        delivery.ack().await.expect("accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_partition_waits_for_records_in_flight_and_a_later_ack_fails() {
    let topic = name("slow");
    let publisher = publisher(&topic, 1);
    publisher.publish(&numbered(1, "k")).await.expect("confirmed");
    let member = || {
        let member = subscriber(&topic, 1).set("partition.assignment.strategy", "range");
        member.drain(Duration::from_millis(500))
    };
    let mut first = member();
    let held = next(&mut first).await;
    assert_eq!(number(&held), 1);
    let mut second = member();
    // The owner of the partition after the rebalance gets the record again.
    let again = async {
        tokio::select! {
            delivery = next(&mut first) => delivery,
            delivery = next(&mut second) => delivery,
        }
    };
    let again = timeout(SOON, again).await.expect("it comes again");
    assert_eq!(number(&again), 1);
    let error = held.ack().await.expect_err("too late");
    assert!(
        outbox_core::failure::full_text(&error).contains("revoked before the ack decision"),
        "{error:?}"
    );
    again.ack().await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_in_time_moves_the_position_before_the_partition_is_revoked() {
    let topic = name("in-time");
    let publisher = publisher(&topic, 1);
    for n in 1..=2 {
        publisher.publish(&numbered(n, &format!("k{n}"))).await.expect("confirmed");
    }
    let member = || subscriber(&topic, 1).set("partition.assignment.strategy", "range");
    let (mut first, mut second) = (member(), member());
    let held = [next(&mut first).await, next(&mut first).await];
    let joining = tokio::spawn(async move {
        let came = timeout(QUIET * 2, second.next()).await;
        (came.is_ok(), second)
    });
    tokio::time::sleep(QUIET).await;
    for held in held {
        held.ack().await.expect("the partition has waited for it");
    }
    let (came, _second) = joining.await.expect("ended");
    assert!(!came, "nothing comes again");
    assert!(timeout(QUIET, first.next()).await.is_err(), "nor here");
}
