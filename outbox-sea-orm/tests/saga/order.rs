//! The saga of the tests: each step leaves an effect, and fails as often as the table of plans
//! says.

use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlaceOrder {
    pub(crate) order_id: i64,
    pub(crate) gift: bool,
    #[serde(default)]
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reservation {
    pub(crate) place: String,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.shipped")]
pub(crate) struct Shipped {
    #[outbox(key)]
    pub(crate) order_id: i64,
}

impl PlaceOrder {
    pub(crate) fn number(order_id: i64) -> Self {
        Self { order_id, gift: false, notes: Vec::new() }
    }

    /// Leaves an effect, then fails if it is planned: the effect must go with the failure.
    pub(crate) async fn does(&self, what: &str, cx: &StepContext) -> Result<(), StepError> {
        let saga = cx.saga();
        cx.tx
            .execute_unprepared(&format!(
                "INSERT INTO effects (saga, what) VALUES ('{saga}', '{what}')"
            ))
            .await?;
        let query = format!(
            "SELECT failures FROM plans WHERE of_order = {} AND step = '{what}'",
            self.order_id
        );
        let backend = ConnectionTrait::get_database_backend(&cx.tx);
        let row = cx.tx.query_one_raw(Statement::from_string(backend, query)).await?;
        let failures: i32 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        if failures < 0 {
            return Err(StepError::abort(format!("no {what} today")));
        }
        if cx.attempt() <= failures.unsigned_abs() {
            return Err(StepError::retry(format!("{what} failed")));
        }
        Ok(())
    }

    pub(crate) async fn reserve(&mut self, cx: &StepContext) -> Result<Reservation, StepError> {
        self.does("reserve", cx).await?;
        self.notes.push("reserved".to_owned());
        Ok(Reservation { place: format!("shelf {}", self.order_id) })
    }

    pub(crate) async fn release(
        &mut self,
        reservation: Reservation,
        cx: &StepContext,
    ) -> Result<(), StepError> {
        assert_eq!(reservation.place, format!("shelf {}", self.order_id));
        self.does("release", cx).await
    }

    pub(crate) async fn wrap(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.does("wrap", cx).await
    }

    pub(crate) async fn charge(&mut self, cx: &StepContext) -> Result<i64, StepError> {
        assert_eq!(self.notes, ["reserved"], "the data of the step before");
        self.does("charge", cx).await?;
        Ok(self.order_id * 100)
    }

    pub(crate) async fn refund(&mut self, amount: i64, cx: &StepContext) -> Result<(), StepError> {
        assert_eq!(amount, self.order_id * 100);
        self.does("refund", cx).await
    }

    pub(crate) async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.does("ship", cx).await?;
        cx.tx.emit(Shipped { order_id: self.order_id })?;
        Ok(())
    }

    pub(crate) async fn thank(&mut self, cx: &StepContext) -> Result<(), DbErr> {
        let sql = format!("INSERT INTO effects (saga, what) VALUES ('{}', 'thank')", cx.saga());
        cx.tx.execute_unprepared(&sql).await.map(drop)
    }
}

pub(crate) fn quickly(attempts: u32) -> RetryPolicy {
    RetryPolicy::attempts(attempts, Duration::from_millis(20))
}

pub(crate) fn place_order(version: u32) -> Saga<PlaceOrder> {
    Saga::builder("place-order", version)
        .step("reserve", PlaceOrder::reserve)
        .compensate(PlaceOrder::release)
        .compensate_retry(quickly(3))
        .retry(quickly(3))
        .step("wrap", PlaceOrder::wrap)
        .skip_if(|order: &PlaceOrder| !order.gift)
        .step("charge", PlaceOrder::charge)
        .compensate(PlaceOrder::refund)
        .compensate_retry(quickly(3))
        .retry(quickly(3))
        .step("ship", PlaceOrder::ship)
        .pivot()
        .retry(quickly(3))
        .step("thank", PlaceOrder::thank)
        .build()
}
