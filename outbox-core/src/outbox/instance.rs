//! What a store must do for the instances of a consumer: a row for each process, by which the other
//! instances see that it has ended.

use super::{Store, StoreError};
use crate::event::EventType;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// A handler as an instance declares it in its row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredHandler {
    /// Its stable name.
    pub name: String,
    /// The event types that it takes, or, where it takes the answers to sagas, those of the
    /// answers.
    pub types: Vec<DeclaredType>,
    /// The sagas whose answers it takes; empty for a handler of events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sagas: Vec<DeclaredSaga>,
    /// The name that it had before; deferred deliveries under that name are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
}

/// An event type as an instance declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredType {
    /// Type name, such as `order.placed`.
    pub name: String,
    /// The version of the payload's shape that the handler is written for, from 1.
    pub version: u16,
}

impl From<&EventType> for DeclaredType {
    fn from(declared: &EventType) -> Self {
        Self { name: declared.name.to_owned(), version: declared.version }
    }
}

/// A saga as an instance declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredSaga {
    /// Name of the definition.
    pub name: String,
    /// Version of the definition, from 1.
    pub version: u32,
}

/// The row of an instance that starts.
#[derive(Debug, Clone, Copy)]
pub struct NewInstance<'a> {
    /// Identity of the instance: random for each start of a consumer.
    pub id: &'a Arc<str>,
    /// The consumer's stable name.
    pub consumer: &'a str,
    /// Deliveries that it may have in flight and that the broker redelivers after its death; 0 if
    /// the broker redelivers none.
    pub max_in_flight: u32,
    /// What it handles.
    pub handlers: &'a [DeclaredHandler],
}

/// The row of an instance as another one reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Identity of the instance.
    pub id: Arc<str>,
    /// Deliveries that it may have in flight.
    pub max_in_flight: u32,
    /// The instant at which its lease ends, in microseconds by the database's clock. A renewal
    /// changes it.
    pub lease_until: i64,
    /// How long ago the lease ended, by the database's clock; `None` while it is valid.
    pub expired_for: Option<Duration>,
    /// What it handles; empty if the column cannot be decoded.
    pub handlers: Vec<DeclaredHandler>,
}

/// Works for the rows of instances, each call in a transaction of its own.
#[async_trait]
pub trait InstanceStore: Store {
    /// Writes the row of an instance that starts, with a lease from now.
    async fn register_instance(
        &self,
        instance: &NewInstance<'_>,
        lease: Duration,
    ) -> Result<(), StoreError>;

    /// Renews the lease of an instance, also one that has ended; `false` when its row is gone.
    async fn renew_instance(&self, id: &str, lease: Duration) -> Result<bool, StoreError>;

    /// Reads the rows of a consumer, in no order.
    async fn instances(&self, consumer: &str) -> Result<Vec<InstanceRow>, StoreError>;

    /// Removes the row of an instance; with `if_expired` only if its lease has ended.
    async fn remove_instance(&self, id: &str, if_expired: bool) -> Result<(), StoreError>;
}
