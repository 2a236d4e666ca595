//! The README's saga.

use super::{
    Done,
    shop::{order, receipt},
};
use axum::Router;
use outbox_dashboard::{Colour, Dashboard};
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct PlaceOrder {
    order_id: i64,
    total: i64,
}

#[saga(name = "place-order", version = 1)]
impl PlaceOrder {
    #[step(compensate = release_stock, retries = 5)]
    async fn reserve_stock(&mut self, cx: &StepContext) -> Result<i64, StepError> {
        let reserved = receipt::ActiveModel { order_id: Set(self.order_id), ..Default::default() };
        Ok(reserved.insert(&cx.tx).await?.id) // effect and record are one transaction; an error is tried again
    }

    #[step]
    async fn charge(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.total > 1_000 {
            return Err(StepError::abort("over the limit")); // what was done is undone, backwards
        }
        Ok(())
    }

    #[step(pivot)] // from here on only forward
    async fn ship(&mut self, cx: &StepContext) -> Result<(), StepError> {
        order::Entity::delete_by_id(self.order_id).exec(&cx.tx).await?;
        Ok(())
    }

    async fn release_stock(&mut self, reserved: i64, cx: &StepContext) -> Result<(), StepError> {
        receipt::Entity::delete_by_id(reserved).exec(&cx.tx).await?; // gets what its step returned
        Ok(())
    }

    #[on_compensated] // in the transaction of the saga's end, also where the first step has given up
    async fn cancelled(&self, _cx: &StepContext) -> Result<(), StepError> {
        Ok(()) // mark the order as cancelled, for `cx.reason()`
    }
}

struct Orders {
    outbox: Outbox,
}

impl Orders {
    #[transactional_outbox(tx = self.outbox)]
    async fn confirm(&self, order_id: i64) -> Result<(), OutboxError> {
        order::Entity::delete_by_id(order_id).exec(tx).await?;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct ConfirmOrder {
    order_id: i64,
}

#[saga(name = "confirm-order")]
impl ConfirmOrder {
    #[step]
    async fn confirm(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let orders = Orders { outbox: cx.tx.outbox().clone() };
        Ok(orders.confirm(self.order_id).await?) // `#[transactional_outbox(tx = self.outbox)]`
    }
}

#[derive(Serialize, Deserialize)]
struct ChangeOrder {
    order_id: i64,
    total: i64,
}

#[saga(name = "change-order")]
impl ChangeOrder {
    #[step]
    async fn read(&mut self, cx: &StepContext) -> Result<(), StepError> {
        cx.lock(format!("order/{}", self.order_id)).await?; // until this saga has ended; others that lock it wait here
        let order = order::Entity::find_by_id(self.order_id).one(&cx.tx).await?;
        self.total = order.ok_or_else(|| StepError::abort("there is no such order"))?.total;
        Ok(())
    }
}

pub(crate) async fn sagas(outbox: Outbox, tx: OutboxTransaction) -> super::Done {
    let sagas = Sagas::builder(&outbox).register(PlaceOrder::saga()).start().await?;
    tx.start_saga(PlaceOrder { order_id: 7, total: 90 }).correlation("order-7").await?; // two are one saga
    tx.commit().await?;
    drop(sagas);
    let locks = Sagas::builder(&outbox)
        .register(ChangeOrder::saga())
        .register(ConfirmOrder::saga())
        .start()
        .await?;
    let tx = outbox.begin().await?;
    assert_eq!(locks.holder(&tx, "order/7").await?, None);
    Ok(())
}

pub(crate) async fn started(outbox: &Outbox) -> Result<Sagas, Box<dyn std::error::Error>> {
    Ok(Sagas::builder(outbox).register(PlaceOrder::saga()).start().await?)
}

/// The page of the operators, which draws the saga.
pub(crate) fn page(orders: Outbox, billing: Outbox) -> Done {
    let dashboard = Dashboard::builder()
        .database("orders", orders) // an `Outbox`, or any store with the operator's traits
        .database("billing", billing)
        .environment("production", Colour::Red) // on every page
        .saga(PlaceOrder::saga().shape()) // draws the steps that are still ahead, too
        .sensitive("payment.card_added") // neither its content nor its errors are shown
        .build()?;
    let app = Router::new().nest("/outbox", dashboard.router());
    drop::<Router>(app);
    Ok(())
}
