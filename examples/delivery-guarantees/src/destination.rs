//! The payments service, behind a network that loses responses.

use async_trait::async_trait;
use outbox_sea_orm::{
    prelude::*,
    transport::{PublishError, Publisher, Receipt},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// The traffic of the network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<HashMap<&'static str, Traffic>>>);

#[derive(Debug, Default)]
struct Traffic {
    sent: u64,
    lost: HashSet<MessageId>,
}

impl Faults {
    /// Tells whether the network loses the response to a message: it loses the first one.
    fn strike(&self, guarantee: &'static str, message: &Message) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let traffic = all.entry(guarantee).or_default();
        traffic.sent += 1;
        traffic.lost.insert(message.id)
    }

    /// Gives the number of requests under a guarantee, and of lost responses.
    pub(crate) fn of(&self, guarantee: &str) -> (u64, usize) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(guarantee).map_or((0, 0), |traffic| (traffic.sent, traffic.lost.len()))
    }
}

/// Books one payment.
pub(crate) async fn book<C: ConnectionTrait>(
    guarantee: &str,
    order_id: u64,
    db: &C,
) -> Result<(), DbErr> {
    let sql = "INSERT INTO payments (guarantee, order_id) VALUES (?, ?)";
    let values = [guarantee.into(), order_id.into()];
    db.execute_raw(Statement::from_sql_and_values(
        ConnectionTrait::get_database_backend(db),
        sql,
        values,
    ))
    .await?;
    Ok(())
}

/// Counts the payments of a guarantee.
pub(crate) async fn payments(db: &DatabaseConnection, guarantee: &str) -> Result<i64, DbErr> {
    let sql = "SELECT COUNT(*) FROM payments WHERE guarantee = ?";
    let asked = Statement::from_sql_and_values(
        ConnectionTrait::get_database_backend(db),
        sql,
        [guarantee.into()],
    );
    db.query_one_raw(asked).await?.map_or(Ok(0), |row| row.try_get_by_index(0))
}

/// A publisher to the payments service that loses the first response to every message.
pub(crate) struct Lossy {
    guarantee: &'static str,
    service: Service,
    faults: Faults,
}

enum Service {
    /// Books at once, without an inbox.
    Booking(DatabaseConnection),
    /// Publishes to a consumer with an inbox.
    Inbox(Memory),
}

impl Lossy {
    pub(crate) fn booking(
        guarantee: &'static str,
        db: &DatabaseConnection,
        faults: &Faults,
    ) -> Self {
        Self { guarantee, service: Service::Booking(db.clone()), faults: faults.clone() }
    }

    pub(crate) fn passing_on(inbox: Memory, faults: &Faults) -> Self {
        Self {
            guarantee: "effectively once",
            service: Service::Inbox(inbox),
            faults: faults.clone(),
        }
    }
}

#[async_trait]
impl Publisher for Lossy {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        match &self.service {
            Service::Booking(db) => {
                let order_id =
                    message.key.as_deref().and_then(|key| key.parse().ok()).unwrap_or_default();
                let booked = book(self.guarantee, order_id, db).await;
                booked.map_err(|e| {
                    PublishError::unavailable("the payment cannot be booked").caused_by(e)
                })?;
            }
            Service::Inbox(inbox) => _ = inbox.publish(message).await?,
        }
        if self.faults.strike(self.guarantee, message) {
            return Err(PublishError::transient("the answer is lost"));
        }
        Ok(Receipt::new())
    }
}
