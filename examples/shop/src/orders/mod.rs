//! The orders service: it accepts orders, runs a saga for each, and gets the event of shipping that
//! it was sent.

mod saga;
mod tables;

pub use saga::PlaceOrder;
pub use tables::order;

use crate::{
    Release,
    events::{ORDERS, ParcelSent, REPLIES},
    next,
    service::{Database, Service, Wire},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use outbox_sea_orm::{prelude::*, saga::SagasError};
use sea_orm::{ActiveValue::Set, entity::prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// Sagas that run at once.
const AT_ONCE: usize = 4;
/// The lease of sagas, after which another instance takes over those of one that crashed; shorter
/// than usual, for the audience.
const LEASE: Duration = Duration::from_secs(2);

/// The request of a customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewOrder {
    pub customer: String,
    pub product: String,
    pub total: i64,
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("an order has a positive total")]
    NotPositive,
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Sagas(#[from] SagasError),
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Saves an order and starts its saga, in one transaction.
#[transactional_outbox]
pub async fn place_order(
    tx: &OutboxTransaction,
    sagas: &Sagas,
    release: Release,
    new: NewOrder,
) -> Result<order::Model, OrderError> {
    let order = order::ActiveModel {
        customer: Set(new.customer),
        product: Set(new.product),
        total: Set(new.total),
        status: Set(order::Status::Placed),
        ..Default::default()
    };
    let order = order.insert(tx).await?;
    let correlation = format!("order-{}", order.id);
    match release {
        Release::This => sagas.start(tx, PlaceOrder::from(&order)).correlation(correlation).await?,
        Release::Next => {
            sagas.start(tx, next::PlaceOrder::from(&order)).correlation(correlation).await?
        }
    };
    if order.total <= 0 {
        // Late on purpose: the order is written and its saga started, and the error rolls both
        // back.
        return Err(OrderError::NotPositive);
    }
    Ok(order)
}

/// Marks an order as shipped. Runs once an event: the inbox row commits with the order's new
/// status.
async fn note_shipped(event: ParcelSent, cx: &HandlerContext) -> Result<(), HandlerError> {
    shipped(event.order_id, cx).await
}

/// Sets the status of a shipped order.
pub async fn shipped(order_id: i64, cx: &HandlerContext) -> Result<(), HandlerError> {
    let Some(order) = order::Entity::find_by_id(order_id).one(&cx.tx).await? else {
        return Err(HandlerError::reject(format!("there is no order {order_id}")));
    };
    let mut order: order::ActiveModel = order.into();
    order.status = Set(order::Status::Shipped);
    order.update(&cx.tx).await?;
    Ok(())
}

/// The state of the HTTP handlers.
#[derive(Clone)]
struct Orders {
    outbox: Outbox,
    sagas: Sagas,
    release: Release,
}

async fn post_order(
    State(orders): State<Orders>,
    Json(new): Json<NewOrder>,
) -> Result<(StatusCode, Json<order::Model>), OrderError> {
    let order = place_order(&orders.outbox, &orders.sagas, orders.release, new).await?;
    Ok((StatusCode::CREATED, Json(order)))
}

async fn get_order(
    State(orders): State<Orders>,
    Path(id): Path<i64>,
) -> Result<Response, OrderError> {
    Ok(match order::Entity::find_by_id(id).one(orders.outbox.connection()).await? {
        Some(order) => Json(order).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

impl IntoResponse for OrderError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotPositive => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Outbox(_) | Self::Sagas(_) | Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

/// Starts the coordinator of the orders' sagas.
pub async fn start_sagas(outbox: &Outbox, release: Release) -> Result<Sagas, SagasError> {
    let mut sagas = Sagas::builder(outbox).register(PlaceOrder::saga()).reply_to(REPLIES);
    if release == Release::Next {
        // Beside the first version, until its last saga has ended.
        sagas = sagas.register(next::PlaceOrder::saga());
    }
    sagas.concurrency(AT_ONCE).lease(LEASE).start().await
}

/// Starts the service, without its relay, which needs the addresses of the other services.
pub async fn start(database: Database, wire: &Wire, release: Release) -> anyhow::Result<Service> {
    database.create_table(order::Entity).await?;
    let outbox = database.outbox(ORDERS).install().await?;
    let sagas = start_sagas(&outbox, release).await?;
    let (events, subscriber) = wire.receive("orders")?;
    let consumer = Consumer::builder("orders", &outbox).replies(&sagas).subscribe(subscriber);
    let consumer = match release {
        Release::This => consumer.on("note-shipped", note_shipped),
        Release::Next => consumer.on("note-shipped", next::note_shipped),
    };
    let api =
        Router::new().route("/orders", post(post_order)).route("/orders/{id}", get(get_order));
    #[cfg(feature = "otel")]
    let api = api.layer(axum::middleware::from_fn(crate::telemetry::traced));
    let api = api.with_state(Orders { outbox: outbox.clone(), sagas: sagas.clone(), release });
    Ok(Service::start("orders", outbox, database, consumer, api.merge(events))
        .await?
        .with_sagas(sagas))
}
