//! The service that sends mails to customers, on MariaDB.

use super::{
    ANSWERS, BookingPlaced, Broker, MailRefused, MailSent, SECRET, SendMail, WithdrawMail,
};
use outbox_http::HttpReceiver;
use outbox_sea_orm::{BoxError, consumer::Consumer, prelude::*};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseConnection, DbErr, EntityTrait,
    QueryFilter, QueryOrder,
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A customer who cannot be sent mails.
pub(super) const UNREACHABLE: &str = "carl";

mod mail {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "mail")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) booking_id: i64,
        pub(crate) customer: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// A booking of which this service got the event. Only the inbox keeps it from being here twice.
mod heard {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "heard")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        pub(crate) booking_id: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

async fn hear(event: BookingPlaced, cx: &HandlerContext) -> Result<(), DbErr> {
    heard::ActiveModel { booking_id: Set(event.booking_id), ..Default::default() }
        .insert(&cx.tx)
        .await?;
    Ok(())
}

async fn send(command: SendMail, cx: &HandlerContext) -> Result<(), HandlerError> {
    if command.customer == UNREACHABLE {
        return Ok(cx.reject(MailRefused { reason: "there is no such mailbox".to_owned() })?);
    }
    let mail = mail::ActiveModel {
        booking_id: Set(command.booking_id),
        customer: Set(command.customer),
        ..Default::default()
    };
    Ok(cx.reply(MailSent { mail_id: mail.insert(&cx.tx).await?.id })?)
}

async fn withdraw(command: WithdrawMail, cx: &HandlerContext) -> Result<(), DbErr> {
    let sent = mail::Entity::delete_many().filter(mail::Column::BookingId.eq(command.booking_id));
    sent.exec(&cx.tx).await?;
    Ok(())
}

/// The service as it runs.
pub(super) struct Mailer {
    pub(super) outbox: Outbox,
    relay: Relay,
    consumer: Consumer,
    pub(super) address: SocketAddr,
    server: JoinHandle<io::Result<()>>,
    /// Dropped, it ends the server.
    keep_serving: oneshot::Sender<()>,
}

impl Mailer {
    /// Starts it, with a webhook on a port that the system gives.
    pub(super) async fn start(db: DatabaseConnection, broker: &Broker) -> Result<Self, BoxError> {
        db.get_schema_builder().register(mail::Entity).register(heard::Entity).apply(&db).await?;
        let outbox = Outbox::builder(db).source("mailer").install().await?;
        let relay = Relay::builder(&outbox)
            .route("rabbit", everything(), broker.publisher()?)
            .start()
            .await?;
        let (router, webhooks) = HttpReceiver::builder().path("/events").verify(SECRET).build()?;
        let consumer = Consumer::builder("mailer", &outbox)
            .on("hear-of-booking", hear)
            .on_command("send-mail", send)
            .on_command("withdraw-mail", withdraw)
            .commands_from("bookings", ANSWERS)
            .subscribe(webhooks)
            .subscribe(broker.subscriber(&broker.commands)?)
            .start()
            .await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (keep_serving, ended) = oneshot::channel::<()>();
        let server =
            axum::serve(listener, router).with_graceful_shutdown(async { drop(ended.await) });
        let server = tokio::spawn(server.into_future());
        Ok(Self { outbox, relay, consumer, address, server, keep_serving })
    }

    /// The customers with a mail that was not withdrawn.
    pub(super) async fn mails(&self) -> Result<Vec<String>, DbErr> {
        let all = mail::Entity::find()
            .order_by_asc(mail::Column::Customer)
            .all(self.outbox.connection())
            .await?;
        Ok(all.into_iter().map(|mail| mail.customer).collect())
    }

    /// The bookings of which it got the event, each as often as that had an effect.
    pub(super) async fn heard_of(&self) -> Result<Vec<i64>, DbErr> {
        let all = heard::Entity::find()
            .order_by_asc(heard::Column::BookingId)
            .all(self.outbox.connection())
            .await?;
        Ok(all.into_iter().map(|heard| heard.booking_id).collect())
    }

    pub(super) async fn shutdown(self, within: Duration) -> Result<(), BoxError> {
        drop(self.keep_serving);
        let (consumer, relay, server) =
            tokio::join!(self.consumer.shutdown(within), self.relay.shutdown(within), self.server);
        consumer?;
        relay?;
        Ok(server??)
    }
}
