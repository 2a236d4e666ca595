//! Events over MQTT 5: QoS 1 with reason codes, sessions that the server keeps, shared
//! subscriptions, acknowledgement after the handler's commit.
//!
//! One message is one PUBLISH, a CloudEvent in binary mode (attributes as user properties, the media
//! type in Content Type, the payload untouched) or in structured mode (one JSON object), to the
//! topic that its own names. The server has confirmed it when its PUBACK says so:
//!
//! | outcome | class |
//! | --- | --- |
//! | PUBACK with a reason code below 0x80, but for 0x10 | delivered |
//! | topic name invalid (0x90), packet too large (0x95, or larger than the server's maximum packet size), payload format invalid (0x99); an illegal topic; the server ends the connection over a message that was sent alone | permanent |
//! | no matching subscribers (0x10), quota exceeded (0x97), every other code from 0x80 on, not confirmed in time; the connection ends without a word, or with 0x80 or 0x83, while the message alone is in flight | transient |
//! | connection refused, lost or silent; TLS; login refused; publishing not authorized (0x87), also where the server ends the connection over it; server busy or shutting down; a server without QoS 1 or MQTT 5 | unavailable |
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_mqtt::{MqttPublisher, MqttSubscriber};
//! # const URL: &str = "mqtt://127.0.0.1:1883";
//! let publisher = MqttPublisher::new(URL)?;
//! let subscriber = MqttSubscriber::new(URL, "billing-1")?.topic("orders");
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_mqtt::ConfigError>(())
//! ```
//!
//! # What a PUBACK is worth
//! MQTT stores nothing: a server hands a message to the sessions that subscribe at that moment, and
//! its PUBACK says that it has taken that over. So **subscribe before you publish**: a message that
//! no session takes is refused with 0x10 and tried again, but a session that comes later never gets
//! what was confirmed to others. A server may send 0x00 in place of 0x10, which the standard allows;
//! Mosquitto tells them apart.
//!
//! What a session then keeps is a setting of the server. Of Mosquitto:
//!
//! | setting | what it loses |
//! | --- | --- |
//! | `persistence false`, as shipped (Debian turns it on) | all sessions, whenever the server ends |
//! | `persistence true`, `autosave_interval 1800`, as Debian ships it | nothing when it is stopped; when it is killed, all since the last half-hour, new sessions too |
//! | `autosave_on_changes true`, `autosave_interval 1` | when it is killed, what it confirmed since it last saved: it saves after each change, not before the PUBACK |
//! | `max_queued_messages 1000`, as shipped | what a session that is behind by more would have got, though each was confirmed with 0x00 |
//!
//! Use `max_queued_messages 0` with a disk that is large enough, and a server that replicates before
//! it confirms where "nothing is lost" has to hold to the end.
//!
//! # Sessions
//! The server keeps a subscriber's session under its client id, for
//! [`MqttSubscriber::session_expiry`] after a loss, for ever unless set. A subscriber makes its
//! subscriptions at each connection, so that changed topics take effect. Topics that it no longer
//! names stay subscribed until the session ends. Where a server has forgotten a session, the
//! subscriber says so in the log.
//!
//! # Order
//! A server delivers the messages of a topic in the order in which it has received them, and a relay
//! has one message of a key in flight. A subscriber gives out one message of a key at a time. Among
//! the members of a [group](MqttSubscriber::share) a server divides messages, not keys: where the
//! order of a key matters, give each subscriber a share of the topics instead, by a topic that is
//! computed from the key ([`MqttPublisher::topic`]).
//!
//! # Redelivery
//! The server sends a message again, marked as a repeat (DUP), when the connection under a client id
//! is a new one: after a loss and after a crash, then at once. It never does so on a connection that
//! holds, and it has no negative acknowledgement. So a message that is returned (`nack(true)`, a
//! dropped delivery) stays unacknowledged at the server and comes again from the subscriber's
//! memory, after [`MqttSubscriber::nack_delay`]; a crash meanwhile brings it back from the server.
//!
//! Acknowledgements keep the order of arrival, as the standard demands
//! ([`MqttSubscriber::acknowledge_out_of_order`] says otherwise): after a crash, messages that were
//! handled while an earlier one was not come again, at most
//! [`MqttSubscriber::receive_maximum`] of them, and the consumer's inbox suppresses them. After a
//! lost connection the subscriber itself recognises them by the DUP flag. MQTT counts no deliveries:
//! [`Delivery::attempt`](outbox_core::transport::Delivery::attempt) is `None`.
//!
//! What a server has given to one member of a group waits for that member: Mosquitto gives a member
//! that is away its share too, and hands nothing on. Remove a member only when its session is
//! empty.
//!
//! # Repeats
//! A server does not recognise a message that it has had. A repeat of the relay (the confirmation
//! was lost) has the same id and the same bytes, and the inbox of the consumer suppresses it.
//!
//! # Dead letters
//! `reject` and `nack(false)` publish the message to the topic of
//! [`MqttSubscriber::dead_letters`], with properties for the cause, and acknowledge it when that is
//! confirmed. A subscriber of that topic reads the cause with [`MqttDeadMessage::of`]. The consumer of
//! the framework writes dead letters to its database, and rejects nothing.
//!
//! # One message that ends its connection
//! A server ends the connection over what it takes for malformed or does not allow, and all messages
//! in flight fail with it. The publisher sends each of them once more, alone: the culprit is
//! refused, and its neighbours are confirmed.
//!
//! # Limits
//! The server announces how large a packet may be (maximum packet size) and how many messages may be
//! without a confirmation (receive maximum, 20 at Mosquitto): the publisher keeps to both. An event
//! that is larger, or whose topic is none of MQTT, is refused when it is emitted, where its route is
//! known. User properties have at most 65,535 bytes and none of Unicode's non-characters; a message
//! with such an attribute goes in structured mode. Topic aliases are neither used nor accepted.
//!
//! MQTT 3.1.1 has no reason codes and no user properties, so that nothing could be confirmed safely:
//! the transport does not speak it, and reads what its clients publish in structured mode.
//!
//! # Source
//! MQTT Version 5.0, OASIS Standard, 2019; CloudEvents 1.0.2, MQTT protocol binding; Mosquitto's
//! documentation of its configuration.

mod classify;
mod config;
mod connection;
mod headers;
mod publisher;
mod session;
mod subscriber;

pub use config::{ConfigError, ConfigFault};
pub use headers::MqttDeadMessage;
pub use publisher::MqttPublisher;
pub use subscriber::MqttSubscriber;

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
