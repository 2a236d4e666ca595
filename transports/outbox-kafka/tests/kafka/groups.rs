//! Members of a group that join, leave and are slow.

use crate::support::{SOON, name, next, number, numbered, publisher, subscriber, url};
use outbox_core::{
    event::{Message, MessageId},
    failure::full_text,
    runtime::now,
    testing::Recorder,
    transport::{Delivery, Publisher, Subscriber, publish_all},
};
use outbox_kafka::{KafkaPublisher, KafkaSubscriber};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
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

/// A delivery that a member handled.
struct Handled {
    id: MessageId,
    member: usize,
    at: Duration,
    /// The outcome of its ack.
    ack: Result<(), String>,
}

/// What the members of a group did, and when.
#[derive(Clone)]
struct Group {
    recorder: Recorder,
    began: Instant,
    handled: Arc<Mutex<Vec<Handled>>>,
    events: Arc<Mutex<Vec<String>>>,
}

impl Group {
    fn new() -> Self {
        let (handled, events) = (Arc::default(), Arc::default());
        Self { recorder: Recorder::new(), began: now(), handled, events }
    }

    fn time(&self) -> Duration {
        now().saturating_duration_since(self.began)
    }

    fn note(&self, member: usize, what: &str) {
        let event = format!("member {member} {what} after {:?}", self.time());
        self.events.lock().expect("no member has panicked").push(event);
    }

    async fn take(&self, member: usize, delivery: Delivery) {
        let message = delivery.message.clone().expect("readable");
        let at = self.time();
        self.recorder.record(&message);
        let ack = delivery.ack().await.map_err(|error| full_text(&error));
        let handled = Handled { id: message.id, member, at, ack };
        self.handled.lock().expect("no member has panicked").push(handled);
    }

    /// Handles deliveries, several at once, until it is asked to stop; then acknowledges those in
    /// flight and leaves the group.
    async fn serve(
        self,
        number: usize,
        mut member: KafkaSubscriber,
        taken: watch::Sender<usize>,
        mut stop: watch::Receiver<bool>,
    ) {
        self.note(number, "joins");
        let mut handling = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                next = member.next() => if let Ok(Some(delivery)) = next {
                    if taken.send_replace(1) == 0 {
                        self.note(number, "takes its first record");
                    }
                    let group = self.clone();
                    handling.spawn(async move { group.take(number, delivery).await });
                }
            }
            while handling.try_join_next().is_some() {}
        }
        handling.join_all().await;
        self.note(number, "leaves");
        member.stop();
    }

    /// Lists each message that was handled more than once: where it is stored, and which member
    /// handled it when and with which outcome of the ack.
    fn repeated(&self, stored: &HashMap<MessageId, String>) -> Vec<String> {
        let handled = self.handled.lock().expect("no member has panicked");
        let times = |id: MessageId| {
            let times = handled.iter().filter(|one| one.id == id).map(|one| {
                let ack = one.ack.as_ref().err().map_or("acknowledged", String::as_str);
                format!("by member {} after {:?} ({ack})", one.member, one.at)
            });
            times.collect::<Vec<_>>().join(", ")
        };
        let repeated = self.recorder.repeated().into_iter();
        let mut lines: Vec<String> =
            repeated.map(|(id, _)| format!("{} {}", stored[&id], times(id))).collect();
        lines.sort();
        lines
    }

    fn events(&self) -> String {
        self.events.lock().expect("no member has panicked").join("\n")
    }
}

/// Publishes until members no longer come and go, and tells where each message is stored. Goes on
/// until every member was under load: one that joins waits for a rebalance first.
async fn publish_while(
    publisher: &KafkaPublisher,
    gone: watch::Receiver<bool>,
) -> HashMap<MessageId, String> {
    const KEYS: i64 = 40;
    const EACH: i64 = 100;
    /// Between two batches while members still come and go: a load, and no flood.
    const PAUSE: Duration = Duration::from_millis(100);
    let (mut stored, mut n) = (HashMap::new(), 0);
    while n < EACH || !*gone.borrow() {
        n += 1;
        let batch: Vec<Message> = (0..KEYS).map(|key| numbered(n, &format!("k{key}"))).collect();
        let outcomes = publish_all(publisher, &batch).await;
        for (message, outcome) in batch.iter().zip(outcomes) {
            let receipt = outcome.expect("confirmed");
            let partition = receipt.destination.expect("it names the partition");
            let offset = receipt.position.expect("it names the offset");
            stored.insert(message.id, format!("{partition} at {offset}"));
        }
        if n >= EACH {
            tokio::time::sleep(PAUSE).await;
        }
    }
    stored
}

// Nobody crashes, and every ack is in time: whatever comes twice was committed too late or not at
// all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_and_leave_under_load_lose_nothing_double_nothing_and_keep_the_order() {
    const PARTITIONS: u16 = 12;
    let topic = name("members");
    let publisher = publisher(&topic, PARTITIONS);
    let group = Group::new();
    let member = |number, taken, stop| {
        let subscriber = subscriber(&topic, PARTITIONS);
        tokio::spawn(group.clone().serve(number, subscriber, taken, stop))
    };
    let (gone, stay) = (watch::channel(false).0, watch::channel(false).0);
    let staying = member(0, watch::channel(0).0, stay.subscribe());
    let come_and_go = async {
        for number in 1..=4 {
            let (stop, taken) = (watch::channel(false).0, watch::channel(0).0);
            let mut takes_part = taken.subscribe();
            let passing = member(number, taken, stop.subscribe());
            tokio::time::sleep(Duration::from_millis(700)).await;
            takes_part.wait_for(|taken| *taken > 0).await.expect("the member serves");
            stop.send_replace(true);
            passing.await.expect("ended");
        }
        gone.send_replace(true);
    };
    let publish = publish_while(&publisher, gone.subscribe());
    let (stored, ()) =
        timeout(SOON, async { tokio::join!(publish, come_and_go) }).await.expect("all take part");
    let came = group.recorder.wait_for_distinct(stored.len(), SOON).await;
    stay.send_replace(true);
    staying.await.expect("ended");
    came.unwrap_or_else(|late| panic!("{late}; {}", group.events()));
    assert_eq!(group.recorder.distinct(), stored.len());
    let repeated = group.repeated(&stored);
    assert!(
        repeated.is_empty(),
        "of {} messages {} were handled more than once:\n{}\n{}",
        stored.len(),
        repeated.len(),
        repeated.join("\n"),
        group.events()
    );
    assert_eq!(group.recorder.keys_out_of_order(), Vec::<String>::new());
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
    assert!(full_text(&error).contains("revoked before the ack decision"), "{error:?}");
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
