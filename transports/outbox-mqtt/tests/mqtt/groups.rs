//! Shared subscriptions: members of a group divide the messages.

use crate::support::{
    SOON, TOPIC, connected, next, nothing_comes, number, numbered, publisher, subscribed,
};
use outbox_core::{
    testing::Recorder,
    transport::{Publisher, Subscriber, publish_all},
};
use outbox_mqtt::MqttSubscriber;
use std::collections::BTreeSet;
use tests::servers::{Server, mosquitto};
use tokio::time::timeout;

const MESSAGES: i64 = 40;

async fn member(server: &Server, name: &str) -> MqttSubscriber {
    let member = MqttSubscriber::new(server.url(), name).expect("a URL").topic(TOPIC);
    connected(member.share("billing")).await
}

async fn publish(server: &Server) {
    let batch: Vec<_> = (1..=MESSAGES).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = publish_all(&publisher(server), &batch).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_goes_to_one_member_and_to_every_other_subscriber() {
    let server = mosquitto::start().await;
    let (mut one, mut two) = (member(&server, "one").await, member(&server, "two").await);
    let mut audit = subscribed(&server).await;
    publish(&server).await;
    let (recorder, all) = (Recorder::new(), usize::try_from(MESSAGES).expect("few"));
    let (mut by_one, mut by_two) = (0, 0);
    let receive = async {
        while recorder.count() < all {
            let delivery = tokio::select! {
                delivery = next(&mut one) => { by_one += 1; delivery }
                delivery = next(&mut two) => { by_two += 1; delivery }
            };
            recorder.take(delivery).await;
        }
    };
    timeout(SOON, receive).await.expect("all come");
    assert_eq!((recorder.distinct(), recorder.repeated()), (all, Vec::new()));
    assert!(by_one > 0 && by_two > 0, "{by_one} and {by_two}");
    let mut audited = BTreeSet::new();
    for _ in 1..=MESSAGES {
        let delivery = next(&mut audit).await;
        audited.insert(number(&delivery));
        delivery.ack().await.expect("acknowledged");
    }
    assert_eq!(audited.len(), all, "each is there too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_was_given_waits_for_it_while_it_is_away_and_nothing_is_lost() {
    let server = mosquitto::start().await;
    let (mut one, two) = (member(&server, "one").await, member(&server, "two").await);
    // Without an orderly end, as a process that is killed.
    std::mem::forget(two);
    publish(&server).await;
    let recorder = Recorder::new();
    while let Ok(next) = timeout(crate::support::QUIET, one.next()).await {
        recorder.take(next.expect("holds").expect("open")).await;
    }
    let all = usize::try_from(MESSAGES).expect("few");
    assert!(recorder.distinct() < all, "the other one has a share");
    let mut two = member(&server, "two").await;
    let rest = async {
        while recorder.distinct() < all {
            recorder.take(next(&mut two).await).await;
        }
    };
    timeout(SOON, rest).await.expect("its share comes when it is back");
    assert_eq!(recorder.repeated(), Vec::new());
    nothing_comes(&mut two).await;
    assert!(publisher(&server).publish(&numbered(1, "k")).await.is_ok());
}
