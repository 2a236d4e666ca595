//! The service of the tests: each handler leaves an effect, and ends as its command says.

use outbox_sea_orm::{event_handler, prelude::*};
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charge", topic = "payments")]
pub(crate) struct Charge {
    pub(crate) how: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.refund", topic = "payments")]
pub(crate) struct Refund {
    pub(crate) how: String,
}

/// What came of a charge.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charged", version = 3, topic = "payments.told", header("tenant" = "acme"), ttl = "1h")]
pub(crate) struct Charged {
    #[outbox(key)]
    pub(crate) order: i64,
    /// Differs each time that a handler runs.
    pub(crate) receipt: String,
}

/// Why nothing came of it.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.declined", topic = "payments.told")]
pub(crate) struct Declined {
    pub(crate) limit: i64,
}

pub(crate) struct Payments;

#[event_handler]
impl Payments {
    #[on_command("charge")]
    async fn charge(&self, command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
        ends(cx, "charge", &command.how).await
    }

    #[on_command("refund")]
    async fn refund(&self, command: Refund, cx: &HandlerContext) -> Result<(), HandlerError> {
        ends(cx, "refund", &command.how).await
    }
}

/// Leaves an effect and an event, and ends as the command says.
async fn ends(cx: &HandlerContext, what: &str, how: &str) -> Result<(), HandlerError> {
    effect(cx, what).await?;
    if how.contains("emit") {
        cx.tx.emit(Declined { limit: -1 })?;
    }
    let charged = || Charged { order: 7, receipt: MessageId::generate().to_string() };
    match how.split(' ').next().unwrap_or_default() {
        "reply" => cx.reply(charged())?,
        "reject" => cx.reject(Declined { limit: 100 })?,
        "refuse" => cx.reject_with_reason("over the limit")?,
        "twice" => {
            cx.reply(charged())?;
            cx.reject_with_reason("or not")?;
        }
        "fail" => return Err("down".into()),
        "fail-first" if cx.attempt() == 1 => return Err("down".into()),
        "dead" => return Err(HandlerError::reject("no such order")),
        _ => {}
    }
    Ok(())
}

async fn effect(cx: &HandlerContext, what: &str) -> Result<(), DbErr> {
    let of = cx.command_id().map_or("nobody".to_owned(), |command| command.saga.to_string());
    cx.tx
        .execute_unprepared(&format!("INSERT INTO effects (saga, what) VALUES ('{of}', '{what}')"))
        .await?;
    Ok(())
}
