use outbox_sea_orm::prelude::*;
use std::pin::Pin;

type Lines = Vec<i64>;

#[transactional_outbox(retry = 3)]
async fn drained(tx: &OutboxTransaction, mut lines: Lines) -> Result<usize, OutboxError> {
    let _ = tx.is_nested();
    Ok(lines.drain(..).count())
}

#[transactional_outbox(retry = 3)]
async fn borrowed(tx: &OutboxTransaction, lines: &mut Lines, more: Option<&mut Lines>) -> Result<usize, OutboxError> {
    let _ = (tx.is_nested(), more);
    Ok(lines.drain(..).count())
}

#[transactional_outbox(retry = 3)]
async fn taken_apart(
    tx: &OutboxTransaction,
    (first, mut second): (Lines, Lines),
    [ref mut third]: [Lines; 1],
    _: &mut Lines,
    (fourth, _): (&mut Lines, i64),
) -> Result<usize, OutboxError> {
    let _ = tx.is_nested();
    Ok(first.len() + second.drain(..).count() + third.drain(..).count() + fourth.len())
}

#[transactional_outbox(retry = 3)]
async fn called(tx: &OutboxTransaction, mut next: impl FnMut(&mut Lines) -> i64) -> Result<i64, OutboxError> {
    let _ = tx.is_nested();
    Ok(next(&mut Vec::new()))
}

struct Cart {
    outbox: Outbox,
    lines: Lines,
}

impl Cart {
    #[transactional_outbox(retry = 3)]
    async fn unique(&mut self, tx: &OutboxTransaction) -> Result<usize, OutboxError> {
        let _ = tx.is_nested();
        Ok(self.lines.drain(..).count())
    }

    #[transactional_outbox(tx = self.outbox, retry = 3)]
    async fn owned(mut self) -> Result<usize, OutboxError> {
        let _ = tx.is_nested();
        Ok(self.lines.drain(..).count())
    }

    #[transactional_outbox(retry = 3)]
    async fn pinned(self: Pin<&mut Self>, tx: &OutboxTransaction) -> Result<bool, OutboxError> {
        Ok(tx.is_nested())
    }
}

#[::async_trait::async_trait]
trait Repo: Send + Sync {
    async fn save(&self, tx: &dyn Transactional, lines: Lines) -> Result<usize, OutboxError>;
    async fn fill(&mut self, tx: &dyn Transactional) -> Result<usize, OutboxError>;
}

#[::async_trait::async_trait]
impl Repo for Cart {
    #[transactional_outbox(retry = 3)]
    async fn save(&self, tx: &OutboxTransaction, mut lines: Lines) -> Result<usize, OutboxError> {
        let _ = tx.is_nested();
        Ok(lines.drain(..).count())
    }

    #[transactional_outbox(retry = 3)]
    async fn fill(&mut self, tx: &OutboxTransaction) -> Result<usize, OutboxError> {
        let _ = tx.is_nested();
        Ok(self.lines.drain(..).count())
    }
}

fn main() {}
