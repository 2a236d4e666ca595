//! The service that takes bookings, on PostgreSQL.

use super::{ANSWERS, BookingPlaced, Broker, MailRefused, MailSent, SendMail, WithdrawMail};
use outbox_http::HttpPublisher;
use outbox_sea_orm::{BoxError, consumer::Consumer, prelude::*, saga::SagasError};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseConnection, DbErr, EntityTrait,
    QueryFilter, QueryOrder,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(super) use booking::State;

/// A customer whose bookings cannot be paid.
pub(super) const WITHOUT_MONEY: &str = "dora";

mod booking {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "snake_case")]
    pub(crate) enum State {
        Placed,
        Confirmed,
        Cancelled,
    }

    #[sea_orm::model]
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "booking")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) customer: String,
        pub(crate) state: State,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The history of a booking, line by line.
mod audit {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) booking_id: i64,
        pub(crate) what: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AppError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Saga(#[from] SagasError),
}

/// The operations on bookings. Each method is one transaction, or joins the one around it.
pub(super) struct Bookings {
    pub(super) outbox: Outbox,
}

impl Bookings {
    /// Saves a booking, emits its event, and starts the saga that confirms it.
    #[transactional_outbox(tx = self.outbox)]
    pub(super) async fn place(&self, customer: &str) -> Result<booking::Model, AppError> {
        let new = booking::ActiveModel {
            customer: Set(customer.to_owned()),
            state: Set(State::Placed),
            ..Default::default()
        };
        let booking = new.insert(tx).await?;
        self.note(booking.id, "placed").await?;
        tx.emit(BookingPlaced { booking_id: booking.id, customer: booking.customer.clone() })?;
        let saga = ConfirmBooking { booking_id: booking.id, customer: booking.customer.clone() };
        tx.start_saga(saga).correlation(format!("booking-{}", booking.id)).await?;
        Ok(booking)
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn confirm(&self, id: i64) -> Result<(), AppError> {
        let confirmed = booking::ActiveModel {
            id: Set(id),
            state: Set(State::Confirmed),
            ..Default::default()
        };
        confirmed.update(tx).await?;
        self.note(id, "confirmed").await
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn cancel(&self, id: i64, reason: &str) -> Result<(), AppError> {
        let cancelled = booking::ActiveModel {
            id: Set(id),
            state: Set(State::Cancelled),
            ..Default::default()
        };
        cancelled.update(tx).await?;
        self.note(id, &format!("cancelled: {reason}")).await
    }

    #[transactional_outbox(tx = self.outbox)]
    async fn note(&self, id: i64, what: &str) -> Result<(), AppError> {
        let line = audit::ActiveModel {
            booking_id: Set(id),
            what: Set(what.to_owned()),
            ..Default::default()
        };
        line.insert(tx).await?;
        Ok(())
    }

    /// The states of all bookings, the oldest first.
    pub(super) async fn states(&self) -> Result<Vec<State>, DbErr> {
        let all = booking::Entity::find()
            .order_by_asc(booking::Column::Id)
            .all(self.outbox.connection())
            .await?;
        Ok(all.into_iter().map(|booking| booking.state).collect())
    }

    /// The history of a booking.
    pub(super) async fn history(&self, id: i64) -> Result<Vec<String>, DbErr> {
        let lines = audit::Entity::find()
            .filter(audit::Column::BookingId.eq(id))
            .order_by_asc(audit::Column::Id);
        Ok(lines.all(self.outbox.connection()).await?.into_iter().map(|line| line.what).collect())
    }
}

/// Reserves a room, notifies the customer, and charges him.
#[derive(Serialize, Deserialize)]
struct ConfirmBooking {
    booking_id: i64,
    customer: String,
}

#[saga(name = "confirm-booking")]
impl ConfirmBooking {
    #[step(compensate = release_room)]
    async fn hold_room(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(bookings_of(cx).note(self.booking_id, "room held").await?)
    }

    async fn release_room(&mut self, cx: &StepContext) -> Result<(), StepError> {
        Ok(bookings_of(cx).note(self.booking_id, "room released").await?)
    }

    #[step(remote = "mailer", reply = MailSent, reject = MailRefused, timeout = "60s", compensate = withdraw_mail)]
    async fn send_mail(&mut self, _cx: &StepContext) -> Result<SendMail, StepError> {
        Ok(SendMail { booking_id: self.booking_id, customer: self.customer.clone() })
    }

    async fn withdraw_mail(&mut self, _cx: &StepContext) -> Result<WithdrawMail, StepError> {
        Ok(WithdrawMail { booking_id: self.booking_id })
    }

    #[step]
    async fn charge(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.customer == WITHOUT_MONEY {
            return Err(StepError::abort("the customer cannot pay"));
        }
        Ok(())
    }

    #[on_completed]
    async fn confirmed(&self, cx: &StepContext) -> Result<(), StepError> {
        Ok(bookings_of(cx).confirm(self.booking_id).await?)
    }

    #[on_compensated]
    async fn cancelled(&self, cx: &StepContext) -> Result<(), StepError> {
        Ok(bookings_of(cx).cancel(self.booking_id, cx.reason().unwrap_or("no reason")).await?)
    }
}

/// A saga is data, and has no fields for services: this one is built from the transaction's outbox.
fn bookings_of(cx: &StepContext) -> Bookings {
    Bookings { outbox: cx.tx.outbox().clone() }
}

/// The service as it runs.
pub(super) struct BookingService {
    pub(super) bookings: Bookings,
    relay: Relay,
    sagas: Sagas,
    answers: Consumer,
}

impl BookingService {
    /// Starts it. It calls `delivered` with every event that was delivered.
    pub(super) async fn start(
        db: DatabaseConnection,
        broker: &Broker,
        webhook: HttpPublisher,
        delivered: impl Fn(&Message) + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        db.get_schema_builder()
            .register(booking::Entity)
            .register(audit::Entity)
            .apply(&db)
            .await?;
        let outbox = Outbox::builder(db).source("bookings").install().await?;
        let relay = Relay::builder(&outbox)
            .route("mailer-webhook", topic("bookings"), webhook)
            .route("rabbit", topic("mails"), broker.publisher()?)
            .on_delivered(move |message, _receipt| delivered(message))
            .start()
            .await?;
        let sagas = Sagas::builder(&outbox)
            .register(ConfirmBooking::saga())
            .reply_to(ANSWERS)
            .start()
            .await?;
        let answers = broker.subscriber(&broker.answers)?;
        let answers = Consumer::builder("bookings", &outbox)
            .replies(&sagas)
            .subscribe(answers)
            .start()
            .await?;
        Ok(Self { bookings: Bookings { outbox }, relay, sagas, answers })
    }

    pub(super) async fn shutdown(self, within: Duration) -> Result<(), BoxError> {
        let (relay, answers, sagas) = tokio::join!(
            self.relay.shutdown(within),
            self.answers.shutdown(within),
            self.sagas.shutdown(within)
        );
        relay?;
        answers?;
        Ok(sagas?)
    }
}
