//! An order over four services, as a saga that this service orchestrates.
//!
//! `accept` and `confirm` are transactions on this service's database. The other steps return a
//! command: the outbox saves it in the step's transaction, another service runs it, and the saga
//! continues by the reply.

use super::tables::order::{self, Status};
use crate::events::{
    OrderEvent, PaymentDeclined, PaymentTaken, RefundPayment, ReleaseStock, ReserveStock,
    SendParcel, SoldOut, TakePayment,
};
use outbox_sea_orm::prelude::*;
use sea_orm::{entity::prelude::*, sea_query::Expr};
use serde::{Deserialize, Serialize};

/// The data of the saga, saved with every step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceOrder {
    pub order_id: i64,
    pub customer: String,
    pub product: String,
    pub total: i64,
}

#[saga(name = "place-order", version = 1)]
impl PlaceOrder {
    #[step(compensate = cancel)]
    async fn accept(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.becomes(Status::Accepted, cx).await
    }

    // A rejection starts the compensation of the earlier steps, last step first. So does a missing
    // reply, and then this step is compensated too, since it may have been done.
    #[step(remote = "stock", reject = SoldOut, timeout = "1m", compensate = release_stock)]
    async fn reserve_stock(&mut self, _cx: &StepContext) -> Result<ReserveStock, StepError> {
        Ok(ReserveStock { order_id: self.order_id, product: self.product.clone() })
    }

    #[step(remote = "payments", reply = PaymentTaken, reject = PaymentDeclined, timeout = "1m", compensate = refund)]
    async fn take_payment(&mut self, _cx: &StepContext) -> Result<TakePayment, StepError> {
        Ok(TakePayment {
            order_id: self.order_id,
            customer: self.customer.clone(),
            amount: self.total,
        })
    }

    #[step(pivot)] // from here on only forward
    async fn confirm(&mut self, cx: &StepContext) -> Result<(), StepError> {
        cx.tx.emit(OrderEvent::Confirmed {
            order_id: self.order_id,
            customer: self.customer.clone(),
        })?;
        self.becomes(Status::Confirmed, cx).await
    }

    #[step(remote = "shipping", timeout = "5s")] // the command is sent again until there is a reply
    async fn ship(&mut self, _cx: &StepContext) -> Result<SendParcel, StepError> {
        Ok(SendParcel { order_id: self.order_id, product: self.product.clone() })
    }

    async fn cancel(&mut self, cx: &StepContext) -> Result<(), StepError> {
        cx.tx.emit(OrderEvent::Cancelled {
            order_id: self.order_id,
            customer: self.customer.clone(),
        })?;
        self.becomes(Status::Cancelled, cx).await
    }

    async fn release_stock(&mut self, _cx: &StepContext) -> Result<ReleaseStock, StepError> {
        Ok(ReleaseStock { order_id: self.order_id, product: self.product.clone() })
    }

    /// Gets the reply to `take_payment`, or `None` if there was none in time. Payments refunds only
    /// what it took.
    async fn refund(
        &mut self,
        taken: Option<PaymentTaken>,
        _cx: &StepContext,
    ) -> Result<RefundPayment, StepError> {
        let amount = taken.map_or(self.total, |taken| taken.amount);
        Ok(RefundPayment { order_id: self.order_id, customer: self.customer.clone(), amount })
    }
}

impl From<&order::Model> for PlaceOrder {
    fn from(order: &order::Model) -> Self {
        let (customer, product) = (order.customer.clone(), order.product.clone());
        Self { order_id: order.id, customer, product, total: order.total }
    }
}

impl PlaceOrder {
    /// Sets the order's status.
    pub async fn becomes(&self, status: Status, cx: &StepContext) -> Result<(), StepError> {
        let order =
            order::Entity::update_many().col_expr(order::Column::Status, Expr::value(status));
        order.filter(order::Column::Id.eq(self.order_id)).exec(&cx.tx).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Location;
    use outbox_core::testing::saga::{SagaKit, SagaRun};
    use outbox_sea_orm::saga::SagaState;
    use sea_orm::Statement;

    const SEEDS: std::ops::Range<u64> = 0..40;

    /// Whichever step or message fails: an order is confirmed with all its effects, or has none.
    #[tokio::test]
    async fn whatever_fails_an_order_is_confirmed_or_nothing_is_left_of_it() {
        let location = Location::choose(None, None).unwrap();
        let database = location.open("orders").await.unwrap();
        database.create_table(order::Entity).await.unwrap();
        let outbox = database.outbox("orders").install().await.unwrap();
        let kit = SagaKit::new(&outbox, PlaceOrder::saga)
            .replying("take-payment", |_| PaymentTaken { amount: 1_000 });
        let order = |n| PlaceOrder {
            order_id: n,
            customer: "ada".into(),
            product: "lamp".into(),
            total: 1_000,
        };
        let events = async |event_type: &str| {
            let asked =
                format!("SELECT message_id FROM outbox_events WHERE event_type = '{event_type}'");
            let asked = Statement::from_string(database.observer.get_database_backend(), asked);
            database.observer.query_all_raw(asked).await.unwrap().len()
        };
        let (mut confirmed, mut cancelled) = (0, 0);
        let mut check = async |run: &SagaRun| {
            match run.state() {
                SagaState::Completed => {
                    run.expect_done_remotely(&["reserve-stock", "ship", "take-payment"]);
                    confirmed += 1;
                }
                SagaState::Compensated => {
                    run.expect_done_remotely(&[]);
                    let accepted =
                        run.instance.reason.as_ref().is_none_or(|why| !why.starts_with("`accept`"));
                    cancelled += usize::from(accepted);
                }
                // Shipping rejected past the pivot: an operator has to decide, and the order stays
                // confirmed.
                _ => {
                    run.expect_stuck_at("ship")
                        .expect_done_remotely(&["reserve-stock", "take-payment"]);
                    confirmed += 1;
                }
            }
            assert_eq!(events("order.confirmed").await, confirmed);
            assert_eq!(events("order.cancelled").await, cancelled);
        };
        check(&kit.given(order(1)).run().await).await;
        kit.fail_every_step(order, &mut check).await;
        kit.fail_every_compensation(order, &mut check).await;
        kit.crash_before_every_commit(order, &mut check).await;
        kit.inject_every_fault(order, &mut check).await;
        kit.inject_random_faults(SEEDS, order, &mut check).await;
        assert!(confirmed > 10 && cancelled > 10, "{confirmed} confirmed, {cancelled} cancelled");
        assert!(events("payment.refund").await > 0, "there was a payment to give back");
    }
}
