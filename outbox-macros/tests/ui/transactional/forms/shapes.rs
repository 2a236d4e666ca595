//! Generics, patterns, lifetimes, and what else a signature may have.

use std::fmt::{Debug, Display};
use crate::support::*;

type AppResult<T> = Result<T, AppError>;

#[transactional_outbox]
async fn generic<T: Display, E>(tx: &OutboxTransaction, value: T) -> Result<String, E>
where
    E: From<OutboxError> + Debug + Send,
{
    tx.emit(OrderPlaced { order_id: 1 })?;
    Ok(value.to_string())
}

#[transactional_outbox]
async fn patterns(
    (first, mut second): (i64, i64),
    transaction: &OutboxTransaction,
    [a, _]: [i64; 2],
    _: (),
) -> AppResult<i64> {
    second += first;
    transaction.emit(OrderPlaced { order_id: second + a })?;
    Ok(second)
}

#[transactional_outbox]
async fn borrowed<'a>(tx: &'a OutboxTransaction, text: &'a str, list: &mut Vec<String>) -> AppResult<&'a str> {
    list.push(text.to_owned());
    tx.emit(OrderPlaced { order_id: 1 })?;
    Ok(text)
}

#[transactional_outbox]
async fn opaque(tx: &OutboxTransaction, values: impl Iterator<Item = i64> + Send) -> AppResult<impl Iterator<Item = i64>> {
    for order_id in values {
        tx.emit(OrderPlaced { order_id })?;
    }
    Ok([1, 2].into_iter())
}

#[transactional_outbox]
async fn moved(tx: &OutboxTransaction, text: String) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    tx.emit(OrderPlaced { order_id: 1 })?;
    if text.is_empty() {
        return Err("empty".into());
    }
    Ok(text.into_bytes())
}

#[transactional_outbox]
async fn unused(_tx: &OutboxTransaction) -> Result<(), DbErr> {
    Ok(())
}

#[transactional_outbox]
async fn nameless(_: &OutboxTransaction) -> Result<(), OutboxError> {
    Ok(())
}

#[transactional_outbox]
async fn qualified(tx: &outbox_sea_orm::OutboxTransaction) -> anyhow::Result<()> {
    tx.emit(OrderPlaced { order_id: 1 })?;
    anyhow::ensure!(1 + 1 == 2, "arithmetic");
    Ok(())
}

/// Names of the user's own, which emitted code must not meet.
#[allow(non_upper_case_globals)]
mod names {
    pub const scope: i64 = 1;
    pub const answer: i64 = 2;
    pub enum Result {}
    pub enum Option {}
}

mod hostile {
    use super::names::{Option, Result, answer, scope};
    use super::{OrderPlaced, OutboxTransaction, transactional_outbox};

    #[transactional_outbox(retry = 1)]
    pub async fn place(tx: &OutboxTransaction) -> std::result::Result<i64, super::AppError> {
        let _unused: (fn(Result), fn(Option)) = (drop, drop);
        tx.emit(OrderPlaced { order_id: scope + answer })?;
        Ok(scope + answer)
    }
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        assert_eq!(generic::<_, AppError>(&outbox, 5).await.unwrap(), "5");
        assert_eq!(patterns((1, 2), &outbox, [3, 4], ()).await.unwrap(), 3);
        let mut list = Vec::new();
        assert_eq!(send(borrowed(&outbox, "text", &mut list)).await.unwrap(), list[0]);
        assert_eq!(send(opaque(&outbox, 0..2)).await.unwrap().count(), 2);
        assert_eq!(moved(&outbox, "ab".to_owned()).await.unwrap().len(), 2);
        unused(&outbox).await.unwrap();
        nameless(&outbox).await.unwrap();
        qualified(&outbox).await.unwrap();
        assert_eq!(hostile::place(&outbox).await.unwrap(), 3);
        assert_eq!(events(&outbox).await, 8);
    });
}
