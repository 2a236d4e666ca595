//! Events over Amazon SQS and SNS: batches with an outcome for each entry, FIFO order per key,
//! visibility kept while a handler runs.
//!
//! One message is one entry of a `SendMessageBatch` or a `PublishBatch`: the event's JSON object as
//! body (CloudEvents, structured mode), or the payload as body in binary mode. CloudEvents has no
//! binding for either service.
//!
//! | outcome | class |
//! | --- | --- |
//! | the entry is among the successful ones | delivered, with the queue's or the topic's name |
//! | larger than the limit here or at the service, a name that is none, an entry that is refused for what is in it (`SenderFault`) | permanent |
//! | an entry that the service fails by itself; an error that is not known | transient |
//! | connection refused, lost, or silent for the timeout; TLS; a queue or topic that is missing or that the service refuses to create or to find; access denied, a token that has expired, a key or signature that is refused; throttled, over quota; KMS; 5xx | unavailable |
//!
//! What is unavailable costs no attempt, and its error says what to do. Where the connection is lost
//! or silent after a request was sent, its messages may have been stored: the relay publishes them
//! again, with the same ids and the same bytes. A FIFO queue recognises the repeat for five minutes;
//! after that, and in other queues, the inbox of the receiver suppresses it.
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_sqs::{SqsPublisher, SqsSubscriber};
//! # const URL: &str = "sqs+http://127.0.0.1:4566";
//! let publisher = SqsPublisher::new(URL)?.queue("orders.fifo");
//! let subscriber = SqsSubscriber::new(URL, "orders.fifo")?;
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_sqs::ConfigError>(())
//! ```
//!
//! # One form for all messages
//! SQS takes ten message attributes, and SNS drops a message with more on its way to a queue. An
//! event of an outbox has thirteen attributes and its headers, so that the plain binary mode of
//! other transports would hold for no message, and a mode that depends on how many headers a message
//! has is none that a receiver can be written for. So the body is the whole event as JSON, which
//! each library of CloudEvents reads, and `ce_id`, `ce_source`, `ce_type`, `ce_time`,
//! `ce_partitionkey`, `ce_traceparent` and `ce_specversion` stand beside it as copies, for filter
//! policies and for people; `content-type` says what the body is.
//! [`binary`](SqsPublisher::binary) is for receivers that know nothing but the payload: then these
//! seven and the media type are the only ones that stand there, and one more, `ce_attributes`, has
//! all others as a JSON object. Both leave one attribute free, for a dead letter's cause.
//!
//! # Order
//! A FIFO queue or topic (its name ends in `.fifo`) keeps the order of each key: `MessageGroupId` is
//! the key, or its SHA-256 where the key is longer than 128 characters or has others than letters,
//! digits and punctuation of ASCII; a message without a key has a group of its own.
//! `MessageDeduplicationId` is the id. The service may take a batch in part; the order stays, since
//! a request has one message of a key, and the next one goes when that is confirmed.
//!
//! A standard queue promises no order, and now and then delivers a message twice.
//!
//! # Redelivery
//! A message is invisible to others from its receive on, for
//! [`visibility_timeout`](SqsSubscriber::visibility_timeout); the subscriber extends that three
//! times in it until the ack decision, for at most twelve hours in all. `nack(true)` makes a message
//! visible at once or after [`nack_delay`](SqsSubscriber::nack_delay). When a process dies, others
//! receive its messages when their time is up.
//!
//! [`Delivery::attempt`](outbox_core::transport::Delivery::attempt) is the service's
//! `ApproximateReceiveCount`. It counts receives, also of messages that were returned without being
//! handed out: a redrive policy should allow for ten or more.
//!
//! A subscriber that closes gives a poll that is under way two seconds. A message that such a poll
//! takes from the queue later is invisible for its time, and then delivered.
//!
//! # Dead letters
//! `reject` and `nack(false)` send the message as it came, with its cause in the attribute
//! `dead_letter`, to the queue of [`dead_letters`](SqsSubscriber::dead_letters), and delete it: two
//! requests, so that a crash between them makes a second letter later. A redrive policy
//! ([`SqsQueue::dead_letters`]) moves messages by itself. [`DeadMessage::of`] reads both.
//!
//! # Credentials and rights
//! Keys stand in the URL, or in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`,
//! or a provider gives them ([`SqsPublisher::credentials`]), such as that of `aws-config`, which
//! this crate does not bring: it costs as much to compile as both services together. An emulator on
//! loopback needs none.
//!
//! A publisher needs `sqs:SendMessage` and `sqs:GetQueueUrl`, or `sns:Publish`; a subscriber
//! `sqs:ReceiveMessage`, `sqs:DeleteMessage`, `sqs:ChangeMessageVisibility` and `sqs:GetQueueUrl`;
//! declaring `sqs:CreateQueue`, `sqs:GetQueueAttributes`, `sqs:SetQueueAttributes`,
//! `sns:CreateTopic` and `sns:Subscribe`.
//!
//! # Limits
//! A request, and so a message, has at most 1 MiB (1,048,576 bytes, attributes counted), and ten
//! entries; to a topic 256 KiB, unless its `MaximumMessageSize` says more
//! ([`SnsPublisher::max_message`]). Payloads that are no text go as base64, a third longer. What is
//! larger is refused at enqueue, where its route is known. A publisher has 32 requests in flight,
//! and a subscriber one long poll; several subscribers of a queue share it.
//!
//! # Logs
//! The SDK logs whole messages and session tokens at TRACE. This crate mutes it; its errors say what
//! matters.
//!
//! # Tests
//! Amazon's service runs nowhere else. The tests run against two emulators, ministack and moto,
//! which agree with its documentation as their authors have read it; both forget everything when
//! they end. Nothing here was run against Amazon's own.
//!
//! # Source
//! SQS API reference and developer guide (batches, FIFO delivery logic, visibility timeout, quotas);
//! SNS API reference and developer guide (`PublishBatch`, raw message delivery, large payloads);
//! CloudEvents 1.0.2, JSON event format.

mod classify;
mod config;
mod connection;
mod headers;
mod topology;
mod publisher;
mod receiver;
mod subscriber;

pub use config::{ConfigError, ConfigFault};
pub use headers::DeadMessage;
pub use publisher::{SnsPublisher, SqsPublisher};
pub use subscriber::SqsSubscriber;
pub use topology::{SnsTopic, SqsQueue};

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
