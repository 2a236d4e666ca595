//! An order's saga in its second version. Sagas of the first version end in that.

use super::{GiftPromised, TakePayment, events::EURO};
use crate::{
    events::{
        OrderEvent, PaymentDeclined, PaymentTaken, RefundPayment, ReleaseStock, ReserveStock,
        SendParcel, SoldOut,
    },
    orders::{self, order},
};
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};

/// The data of the saga, saved with every step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlaceOrder {
    order: orders::PlaceOrder,
    gift: String,
}

#[saga(name = "place-order", version = 2)]
impl PlaceOrder {
    #[step(compensate = cancel)]
    async fn accept(&mut self, cx: &StepContext) -> Result<(), StepError> {
        self.order.becomes(order::Status::Accepted, cx).await
    }

    #[step(remote = "stock", reject = SoldOut, timeout = "1m", compensate = release_stock)]
    async fn reserve_stock(&mut self, _cx: &StepContext) -> Result<ReserveStock, StepError> {
        Ok(ReserveStock { order_id: self.order.order_id, product: self.order.product.clone() })
    }

    #[step(remote = "payments", reply = PaymentTaken, reject = PaymentDeclined, timeout = "1m", compensate = refund)]
    async fn take_payment(&mut self, _cx: &StepContext) -> Result<TakePayment, StepError> {
        let orders::PlaceOrder { order_id, customer, total, .. } = self.order.clone();
        Ok(TakePayment { order_id, customer, amount: total, currency: EURO.to_owned() })
    }

    #[step(pivot)] // from here on only forward
    async fn confirm(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let orders::PlaceOrder { order_id, customer, .. } = self.order.clone();
        cx.tx.emit(OrderEvent::Confirmed { order_id, customer })?;
        cx.tx.emit(GiftPromised { order_id, gift: self.gift.clone() })?;
        self.order.becomes(order::Status::Confirmed, cx).await
    }

    #[step(remote = "shipping", timeout = "5s")] // asked again until there is an answer
    async fn ship(&mut self, _cx: &StepContext) -> Result<SendParcel, StepError> {
        Ok(SendParcel { order_id: self.order.order_id, product: self.order.product.clone() })
    }

    async fn cancel(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let orders::PlaceOrder { order_id, customer, .. } = self.order.clone();
        cx.tx.emit(OrderEvent::Cancelled { order_id, customer })?;
        self.order.becomes(order::Status::Cancelled, cx).await
    }

    async fn release_stock(&mut self, _cx: &StepContext) -> Result<ReleaseStock, StepError> {
        Ok(ReleaseStock { order_id: self.order.order_id, product: self.order.product.clone() })
    }

    async fn refund(
        &mut self,
        taken: Option<PaymentTaken>,
        _cx: &StepContext,
    ) -> Result<RefundPayment, StepError> {
        let orders::PlaceOrder { order_id, customer, total, .. } = self.order.clone();
        Ok(RefundPayment { order_id, customer, amount: taken.map_or(total, |taken| taken.amount) })
    }
}

impl From<&order::Model> for PlaceOrder {
    fn from(order: &order::Model) -> Self {
        Self { order: order.into(), gift: "a pencil".to_owned() }
    }
}
