//! Events over Redis and Valkey Streams: one XADD an event, consumer groups with acknowledgement
//! and claims. Redis 6.2 and later, Valkey.
//!
//! One message is one entry of a stream, a CloudEvent in binary mode (attributes in fields `ce_..`,
//! the media type in `content-type`, the payload untouched in `data`) or in structured mode (one
//! JSON object in `data`, its media type in `content-type`). CloudEvents has no binding for Redis;
//! these fields are those of its Kafka binding.
//!
//! | outcome | class |
//! | --- | --- |
//! | the reply to XADD, an entry's id | delivered, with stream and milliseconds of the id |
//! | larger than the limit here or at the server (`proto-max-bulk-len`), a stream without a name | permanent |
//! | OOM, BUSY, NOREPLICAS, TRYAGAIN; WRONGTYPE, where the stream's key holds something else; an error that is not known | transient |
//! | connection refused, lost, or silent for the timeout; TLS; NOAUTH, WRONGPASS, NOPERM; LOADING, READONLY, MISCONF, MASTERDOWN; CLUSTERDOWN, MOVED, ASK, CROSSSLOT | unavailable |
//!
//! Where the connection is lost or silent after an XADD was sent, the entry may have been added:
//! the relay publishes it again, with the same id and the same bytes, and the inbox of its receiver
//! suppresses the repeat.
//!
//! Both halves are used like every other transport's:
//!
//! ```
//! use outbox_redis::{RedisPublisher, RedisSubscriber};
//! # const URL: &str = "redis://127.0.0.1:6379";
//! let publisher = RedisPublisher::new(URL)?;
//! let subscriber = RedisSubscriber::new(URL, "billing")?.stream("orders");
//! # let (_, _) = (publisher, subscriber);
//! # Ok::<(), outbox_redis::ConfigError>(())
//! ```
//!
//! # What a reply is worth
//! The server replies to XADD when the entry is in its memory. How much of that a crash loses is a
//! setting of the server, and as it is shipped, the answer is not "nothing":
//!
//! | setting | lost when the process is killed | lost when the machine loses its power |
//! | --- | --- | --- |
//! | `appendonly no`, as shipped | everything since the last snapshot: up to an hour where little is written | the same |
//! | `appendonly yes`, `appendfsync everysec`, the default with it | nothing, or up to two seconds while the disk is slow | up to two seconds |
//! | `appendonly yes`, `appendfsync always` | nothing | nothing |
//!
//! With replicas, a failover loses what the new master had not received; `min-replicas-to-write`
//! bounds that, and WAIT is not sent. Where "nothing is lost" has to hold to the end, use
//! `appendfsync always`, or a broker that replicates before it confirms.
//!
//! A server that evicts keys (`maxmemory-policy` other than `noeviction`) may evict a stream.
//! Trimming removes entries whether they were handled or not; it is off unless
//! [`RedisPublisher::max_len`] or [`RedisPublisher::max_age`] is set.
//!
//! # Order
//! A stream keeps the order of its entries, and a subscriber delivers those of one key one after
//! the other. Between several consumers of a group Redis divides entries, not keys: two of them may
//! handle two entries of one key at the same time, and what one of them leaves behind when it dies
//! is handled later than entries that came after it. Where the order of a key matters, let one
//! consumer at a time read a stream, and spread keys over several streams for more of them:
//!
//! ```
//! # use outbox_redis::RedisPublisher;
//! # use std::hash::{DefaultHasher, Hash, Hasher};
//! let publisher = RedisPublisher::new("redis://127.0.0.1:6379")?.stream_of(|message| {
//!     let mut hasher = DefaultHasher::new();
//!     message.key.hash(&mut hasher);
//!     format!("{}:{}", message.topic, hasher.finish() % 8)
//! });
//! # let _ = publisher;
//! # Ok::<(), outbox_redis::ConfigError>(())
//! ```
//!
//! # Redelivery
//! An entry is pending from its delivery to its acknowledgement. One that is returned (`nack`, a
//! dropped delivery, an acknowledgement without a reply) stays pending with its consumer, which
//! delivers it again at once from memory, before any later one of its key. The consumer renews its
//! claims; when it dies, the others of its group claim its entries after
//! [`RedisSubscriber::claim_after`]. One that ends orderly releases them at once.
//!
//! [`Delivery::attempt`](outbox_core::transport::Delivery::attempt) is the server's count of
//! deliveries, with the returns since the consumer got the entry. An entry that was delivered and
//! never handled, because its consumer died before, is counted too.
//!
//! A group that does not exist is made, with its stream, at the oldest entry
//! ([`RedisSubscriber::start_at_end`]: at the end). One that is deleted while it is read (NOGROUP)
//! is made again the same way, so that nothing is lost: all entries of the stream are delivered
//! once more, and the inbox suppresses those that it knows.
//!
//! The name of a consumer is its own unless [`RedisSubscriber::consumer`] sets it, and stays in the
//! group when its process ends: deleting it would lose entries that are just being delivered.
//! Remove names without pending entries by XGROUP DELCONSUMER.
//!
//! # Dead letters
//! `reject` and `nack(false)` add the entry to the dead-letter stream
//! ([`RedisSubscriber::dead_letters`]), with fields for the cause, and acknowledge it. The two are
//! two commands: a crash between them leaves the entry pending, and a second letter later. A
//! subscriber of the dead letters reads the cause with [`DeadEntry::of`].
//!
//! # Users, TLS, clusters
//! User and password stand in the URL. A publisher needs `+xadd`, a subscriber `+xreadgroup +xack
//! +xclaim +xautoclaim +xpending +xgroup`, `+xadd` for dead letters, `+xdel` to delete what it has
//! acknowledged, each with `~` and the streams' names; without `+xgroup`, somebody else has to make
//! the groups. `rediss://` is TLS with the system's trust store, and
//! [`trust`](RedisPublisher::trust) adds an authority.
//!
//! The transport speaks to one server and follows no redirection: MOVED is an error that says so. A
//! proxy in front of a cluster works where all streams of a subscriber are in one slot: names with
//! the same hash tag, such as `{shop}:orders` and `{shop}:payments`.
//!
//! # Limits
//! 512 MiB a field, the server's `proto-max-bulk-len`, are checked at enqueue as the limit of the
//! whole message. A subscriber has at most [`prefetch`](RedisSubscriber::prefetch) entries waiting,
//! and stops to read at 32 MiB; the server counts entries only, so that it reads as many as fit if
//! they are as large as the largest of late, one in any case.
//!
//! # Source
//! Redis's documentation of streams (XADD, XREADGROUP, XAUTOCLAIM, persistence); CloudEvents 1.0.2,
//! Kafka protocol binding.

mod classify;
mod config;
mod connection;
mod headers;
mod publisher;
mod group;
mod subscriber;

pub use config::{ConfigError, ConfigFault};
pub use headers::DeadEntry;
pub use publisher::RedisPublisher;
pub use subscriber::RedisSubscriber;

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
