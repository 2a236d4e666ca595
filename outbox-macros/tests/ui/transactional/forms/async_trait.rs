//! Implementations under `#[async_trait]`, which has rewritten the methods before.

use ::async_trait::async_trait;
use crate::support::*;

#[async_trait]
trait Repo: Send + Sync {
    async fn save(&self, tx: &dyn Transactional, id: i64, note: String) -> Result<usize, AppError>;
    async fn count(&mut self, tx: &dyn Transactional) -> Result<i64, AppError>;
    async fn place(&self, id: i64) -> Result<i64, AppError>;
    async fn again(&self, tx: &dyn Transactional, notes: (String, String)) -> anyhow::Result<()>;

    #[transactional_outbox]
    async fn provided(&self, tx: &OutboxTransaction) -> Result<i64, AppError> {
        self.save(tx, 1, String::new()).await?;
        Ok(1)
    }
}

struct Orders {
    outbox: Outbox,
    counted: i64,
}

#[async_trait]
impl Repo for Orders {
    #[transactional_outbox]
    async fn save(&self, tx: &OutboxTransaction, id: i64, note: String) -> Result<usize, AppError> {
        tx.emit(OrderPlaced { order_id: id })?;
        let taken = note;
        Ok(taken.len())
    }

    #[transactional_outbox(nested)]
    async fn count(&mut self, tx: &OutboxTransaction) -> Result<i64, AppError> {
        self.counted += 1;
        tx.emit(OrderPlaced { order_id: self.counted })?;
        Ok(self.counted)
    }

    #[transactional_outbox(tx = self.outbox, emit = |id| OrderPlaced::from(id))]
    async fn place(&self, id: i64) -> Result<i64, AppError> {
        self.save(tx, id, "note".to_owned()).await?;
        if id < 0 {
            return Err(AppError::Refused);
        }
        Ok(id)
    }

    // Owned parameters are borrowed by each run, not moved into the first.
    #[transactional_outbox(retry = 2)]
    async fn again(&self, tx: &OutboxTransaction, (first, second): (String, String)) -> anyhow::Result<()> {
        self.save(tx, 1, format!("{first}{second}")).await?;
        Ok(())
    }
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        let mut repo: Box<dyn Repo> = Box::new(Orders { outbox: outbox.clone(), counted: 0 });
        assert_eq!(send(repo.save(&outbox, 1, "note".to_owned())).await.unwrap(), 4);
        assert_eq!(repo.count(&outbox).await.unwrap(), 1);
        repo.place(1).await.unwrap();
        assert!(repo.place(-1).await.is_err());
        repo.again(&outbox, (String::new(), String::new())).await.unwrap();
        repo.provided(&outbox).await.unwrap();
        assert_eq!(events(&outbox).await, 6);
    });
}
