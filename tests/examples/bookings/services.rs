//! Bookings as a user of Spring writes them: services with fields that call each other, a handler
//! and a saga that call services. None of them passes a transaction on.

use outbox_sea_orm::{prelude::*, saga::SagasError};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, DbErr, EntityTrait, IntoActiveModel, QuerySelect,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};

#[expect(unreachable_pub, reason = "the entities' macros need public names")]
pub(crate) mod entities {
    macro_rules! table {
        ($module:ident, $name:literal, $($field:ident: $ty:ty),*) => {
            pub mod $module {
                use sea_orm::entity::prelude::*;

                #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
                #[sea_orm(table_name = $name)]
                pub struct Model {
                    #[sea_orm(primary_key)]
                    pub id: i64,
                    $(pub $field: $ty,)*
                }

                #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
                pub enum Relation {}

                impl ActiveModelBehavior for ActiveModel {}
            }
        };
    }
    table!(booking, "bookings", customer: String, state: String);
    table!(audit, "booking_audit", booking: i64, what: String);
    table!(invoice, "booking_invoices", booking: i64);
    table!(stock, "booking_stock", remaining: i64);
}
use entities::{audit, booking, invoice, stock};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BookingError {
    #[error(transparent)]
    Db(#[from] DbErr),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Saga(#[from] SagasError),
    #[error("{0} may book nothing")]
    Blocked(String),
    #[error("nothing is left")]
    SoldOut,
    #[error("there is no booking {0}")]
    Unknown(i64),
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "booking.placed", topic = "bookings")]
pub(crate) struct BookingPlaced {
    #[outbox(key)]
    booking: i64,
}

/// Records what happens.
pub(crate) struct Audit {
    outbox: Outbox,
}

impl Audit {
    #[transactional_outbox(tx = self.outbox)]
    async fn note(&self, booking: i64, what: &str) -> Result<(), BookingError> {
        audit::ActiveModel {
            booking: Set(booking),
            what: Set(what.to_owned()),
            ..Default::default()
        }
        .insert(tx)
        .await?;
        Ok(())
    }
}

/// Counts the remaining stock.
pub(crate) struct Stock {
    outbox: Outbox,
    audit: Arc<Audit>,
}

impl Stock {
    #[transactional_outbox(tx = self.outbox)]
    async fn reserve(&self, booking: i64) -> Result<(), BookingError> {
        let there = stock::Entity::find_by_id(1)
            .lock_exclusive()
            .one(tx)
            .await?
            .ok_or(BookingError::SoldOut)?;
        if there.remaining == 0 {
            return Err(BookingError::SoldOut);
        }
        let remaining = there.remaining - 1;
        stock::ActiveModel { id: Set(1), remaining: Set(remaining) }.update(tx).await?;
        self.audit.note(booking, "reserved").await
    }
}

/// Writes an invoice for each booking.
pub(crate) struct Invoices {
    outbox: Outbox,
    audit: Arc<Audit>,
}

impl Invoices {
    #[transactional_outbox(tx = self.outbox)]
    async fn write(&self, booking: i64) -> Result<(), BookingError> {
        invoice::ActiveModel { booking: Set(booking), ..Default::default() }.insert(tx).await?;
        self.audit.note(booking, "invoiced").await
    }
}

#[event_handler]
impl Invoices {
    #[on("write-invoice")]
    async fn placed(&self, event: BookingPlaced, _cx: &HandlerContext) -> Result<(), BookingError> {
        self.write(event.booking).await
    }
}

/// Takes bookings.
pub(crate) struct Bookings {
    outbox: Outbox,
    audit: Arc<Audit>,
}

impl Bookings {
    /// Three services deep; the failure of the last one rolls all of it back.
    #[transactional_outbox(tx = self.outbox)]
    pub(crate) async fn place(&self, customer: &str) -> Result<i64, BookingError> {
        let new = booking::ActiveModel {
            customer: Set(customer.to_owned()),
            state: Set("placed".to_owned()),
            ..Default::default()
        };
        let booking = new.insert(tx).await?.id;
        self.audit.note(booking, "placed").await?;
        tx.emit(BookingPlaced { booking })?;
        tx.start_saga(Confirmation { booking }).correlation(format!("booking-{booking}")).await?;
        self.check(customer).await?;
        Ok(booking)
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn check(&self, customer: &str) -> Result<(), BookingError> {
        booking::Entity::find().one(tx).await?;
        if customer == "mallory" { Err(BookingError::Blocked(customer.to_owned())) } else { Ok(()) }
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn settle(&self, booking: i64, state: &str) -> Result<(), BookingError> {
        let found = booking::Entity::find_by_id(booking)
            .one(tx)
            .await?
            .ok_or(BookingError::Unknown(booking))?;
        let mut change = found.into_active_model();
        change.state = Set(state.to_owned());
        change.update(tx).await?;
        self.audit.note(booking, state).await
    }
}

/// The services of this process, as a container would hold them.
pub(crate) struct Services {
    pub(crate) bookings: Bookings,
    pub(crate) invoices: Option<Invoices>,
    stock: Stock,
}

static SERVICES: OnceLock<Services> = OnceLock::new();

impl Services {
    pub(crate) fn of(outbox: &Outbox) -> Self {
        let audit = Arc::new(Audit { outbox: outbox.clone() });
        Self {
            bookings: Bookings { outbox: outbox.clone(), audit: audit.clone() },
            invoices: Some(Invoices { outbox: outbox.clone(), audit: audit.clone() }),
            stock: Stock { outbox: outbox.clone(), audit },
        }
    }

    pub(crate) fn publish(self) -> &'static Self {
        SERVICES.get_or_init(|| self)
    }

    fn get() -> &'static Self {
        SERVICES.get().expect("published at the start")
    }
}

/// Confirms a booking, or cancels it where the stock is empty.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    booking: i64,
}

#[saga(name = "confirmation")]
impl Confirmation {
    #[step(retries = 50)]
    async fn reserve(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        match Services::get().stock.reserve(self.booking).await {
            Err(BookingError::SoldOut) => Err(StepError::abort("nothing is left")),
            other => Ok(other?),
        }
    }

    #[on_completed]
    async fn confirmed(&self, _cx: &StepContext) -> Result<(), BookingError> {
        Services::get().bookings.settle(self.booking, "confirmed").await
    }

    #[on_compensated]
    async fn cancelled(&self, _cx: &StepContext) -> Result<(), BookingError> {
        Services::get().bookings.settle(self.booking, "cancelled").await
    }
}
