//! Servers of each test's own, messages to send, and a client of the test's own beside the
//! transport.

use outbox_core::{
    event::{Message, MessageParts},
    failure::full_text,
    transport::{Delivery, PublishError, Publisher, Subscriber},
};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS,
    mqttbytes::v5::{Publish, PublishProperties},
};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};
use tempfile::TempDir;
use tests::servers::{Server, mosquitto};

pub(crate) use outbox_core::testing::transport::{full, numbered};

/// How long anything may take before it is called hung.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// How long a test waits for a delivery that must not come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// The topic of the messages of a test.
pub(crate) const TOPIC: &str = "orders";
/// The client id of most subscribers.
pub(crate) const CLIENT: &str = "billing-1";

/// A publisher.
pub(crate) fn publisher(server: &Server) -> MqttPublisher {
    MqttPublisher::new(server.url()).expect("a URL")
}

/// A subscriber of the topic.
pub(crate) fn subscriber(server: &Server) -> MqttSubscriber {
    MqttSubscriber::new(server.url(), CLIENT).expect("a URL").topic(TOPIC)
}

/// A subscriber of the topic that has subscribed.
pub(crate) async fn subscribed(server: &Server) -> MqttSubscriber {
    connected(subscriber(server)).await
}

/// Lets a subscriber subscribe.
pub(crate) async fn connected(mut subscriber: MqttSubscriber) -> MqttSubscriber {
    let connected = tokio::time::timeout(SOON, subscriber.connect()).await.expect("in time");
    connected.expect("it subscribes");
    subscriber
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut parts = full().into_parts();
    change(&mut parts);
    Message::new(parts)
}

/// Starts a server with more settings, and gives the folder of their file.
pub(crate) async fn configured(text: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let visible = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), visible(0o755)).expect("its owner may open it");
    let file = folder.path().join("more.conf");
    fs::write(&file, text.replace("FOLDER", &folder.path().to_string_lossy())).expect("written");
    let server = mosquitto::start_with(&["-c", &file.to_string_lossy()]).await;
    (server, folder)
}

/// Publishes something that is not confirmed.
pub(crate) async fn failure(publisher: &MqttPublisher) -> PublishError {
    let result = tokio::time::timeout(SOON, publisher.publish(&full())).await;
    let result = result
        .unwrap_or_else(|_| panic!("no outcome on a publish within {SOON:?} by {publisher:?}"));
    result.expect_err("the message was not confirmed")
}

/// Publishes messages with these numbers of a key.
pub(crate) async fn publish(
    publisher: &MqttPublisher,
    key: &str,
    numbers: impl IntoIterator<Item = i64>,
) {
    for n in numbers {
        publisher.publish(&numbered(n, key)).await.expect("confirmed");
    }
}

/// Waits for the next delivery.
pub(crate) async fn next(subscriber: &mut MqttSubscriber) -> Delivery {
    let delivery = tokio::time::timeout(SOON, subscriber.next()).await;
    let delivery =
        delivery.unwrap_or_else(|_| panic!("nothing came within {SOON:?} to {subscriber:?}"));
    delivery.expect("the subscription holds").expect("the subscription is open")
}

/// Waits for the next delivery, through failures of the subscription.
pub(crate) async fn next_at_last(subscriber: &mut MqttSubscriber) -> Delivery {
    let next = async {
        loop {
            if let Ok(delivery) = subscriber.next().await {
                return delivery.expect("the subscription is open");
            }
        }
    };
    tokio::time::timeout(SOON, next).await.expect("it comes")
}

/// Fails where something comes.
pub(crate) async fn nothing_comes(subscriber: &mut MqttSubscriber) {
    let next = tokio::time::timeout(QUIET, subscriber.next()).await;
    assert!(next.is_err(), "nothing was to come, but: {next:?}");
}

/// Waits for the failure of a subscription.
pub(crate) async fn lost(subscriber: &mut MqttSubscriber) -> String {
    let failure = tokio::time::timeout(SOON, subscriber.next()).await.expect("it fails");
    full_text(&failure.expect_err("the subscription has failed"))
}

/// The number of a message that [`numbered`] made.
pub(crate) fn number(delivery: &Delivery) -> i64 {
    delivery.message.as_ref().expect("readable").sequence.expect("numbered").0
}

/// A client that never heard of this project.
pub(crate) struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    /// Connects and subscribes to a filter, where one is given.
    pub(crate) async fn connect(server: &Server, id: &str, filter: Option<&str>) -> Self {
        let mut options = MqttOptions::new(id, rumqttc::Broker::tcp("127.0.0.1", server.port()));
        options.set_clean_start(true).set_ack_mode(AckMode::Automatic);
        let (client, events) = AsyncClient::builder(options).capacity(16).build();
        let mut this = Self { client, events };
        if let Some(filter) = filter {
            this.client.subscribe(filter, QoS::AtLeastOnce).await.expect("queued");
            this.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        } else {
            this.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
        }
        this
    }

    /// Handles events until a packet is found.
    async fn until<T>(&mut self, find: impl Fn(Packet) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.poll().await.expect("the connection holds");
                if let Event::Incoming(packet) = event
                    && let Some(found) = find(packet)
                {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, found).await.expect("it comes")
    }

    /// Waits for the next message.
    pub(crate) async fn next(&mut self) -> Publish {
        self.until(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        })
        .await
    }

    /// Publishes a message and waits for its confirmation.
    pub(crate) async fn publish(&mut self, properties: PublishProperties, body: &'static str) {
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        self.client.publish(TOPIC, body, options).await.expect("queued");
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }
}

/// Starts a server with users and their rights; without rules a user may do everything.
pub(crate) async fn users(rules: &str, users: &[(&str, &str)]) -> (Server, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let visible = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(folder.path(), visible(0o755)).expect("its owner may open it");
    let path = |name: &str| folder.path().join(name);
    for (n, (user, password)) in users.iter().enumerate() {
        let mut command = std::process::Command::new("mosquitto_passwd");
        command.args(if n == 0 { &["-b", "-c"][..] } else { &["-b"][..] });
        let status = command.arg(path("passwords")).args([user, password]).status();
        assert!(status.expect("mosquitto_passwd comes with the server").success());
    }
    fs::set_permissions(path("passwords"), visible(0o644)).expect("the server may read it");
    let mut more =
        format!("allow_anonymous false\npassword_file {}\n", path("passwords").display());
    if !rules.is_empty() {
        fs::write(path("rules"), rules).expect("written");
        more.push_str(&format!("acl_file {}\n", path("rules").display()));
    }
    fs::write(path("more.conf"), more).expect("written");
    let server = mosquitto::start_with(&["-c", &path("more.conf").to_string_lossy()]).await;
    (server, folder)
}
