//! The row that a relay writes about itself, on the janitor's connection: a lock on it, or a slow
//! database, delays no renewal.

use super::SqlStore;
use crate::{
    pool::Arg,
    schema::live::{DELETE, write_sql},
};
use async_trait::async_trait;
use outbox_core::{
    admin::{Live, LiveStore},
    outbox::StoreError,
};

#[async_trait]
impl LiveStore for SqlStore {
    async fn write_live(&self, id: &str, name: &str, live: Live) -> Result<(), StoreError> {
        let sql = self.sql("write live", 1, || write_sql(self.dialect()));
        let kind = live.kind();
        let body = live.bounded_json();
        let args = [id, kind, name, &body].map(|text| Arg::Text(Some(text)));
        self.janitor.execute(&sql, &args).await.map(|_| ())
    }

    async fn delete_live(&self, id: &str) -> Result<(), StoreError> {
        let sql = self.sql("delete live", 1, || DELETE.to_owned());
        self.janitor.execute(&sql, &[Arg::Text(Some(id))]).await.map(|_| ())
    }
}
