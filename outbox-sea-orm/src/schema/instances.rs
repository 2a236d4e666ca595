//! The rows of the instances of consumers.

use super::{
    Schema,
    decode::{count, span},
    micros,
};
use outbox_core::outbox::{InstanceRow, NewInstance};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::{sync::Arc, time::Duration};

#[doc(hidden)]
impl Schema {
    /// Inserts the row of an instance that starts.
    ///
    /// # Errors
    /// The database's error.
    pub async fn register_instance<C: ConnectionTrait>(
        &self,
        conn: &C,
        instance: &NewInstance<'_>,
        lease: Duration,
    ) -> Result<(), DbErr> {
        // The response to an earlier try may have been lost.
        let columns = ["max_in_flight", "handlers", "lease_until"];
        let sql = self.filled(&format!(
            "INSERT INTO {{instances}} (instance_id, consumer, max_in_flight, handlers, started_at, lease_until) \
             VALUES (?, ?, ?, ?, {{now}}, {{now}} + ?){}",
            self.dialect.or_replace("instance_id", &columns)
        ));
        let bound = vec![
            Value::from(&**instance.id),
            Value::from(instance.consumer),
            Value::from(i64::from(instance.max_in_flight)),
            Value::from(serde_json::json!(instance.handlers).to_string()),
            Value::from(micros(lease)),
        ];
        conn.execute_raw(self.statement(&sql, bound)).await.map(|_| ())
    }

    /// Renews the lease of an instance; `false` when its row was deleted.
    ///
    /// # Errors
    /// The database's error.
    pub async fn renew_instance<C: ConnectionTrait>(
        &self,
        conn: &C,
        id: &str,
        lease: Duration,
    ) -> Result<bool, DbErr> {
        let sql =
            self.filled("UPDATE {instances} SET lease_until = {now} + ? WHERE instance_id = ?");
        let bound = vec![Value::from(micros(lease)), Value::from(id)];
        Ok(conn.execute_raw(self.statement(&sql, bound)).await?.rows_affected() > 0)
    }

    /// Reads the rows of a consumer's instances.
    ///
    /// # Errors
    /// The database's error.
    pub async fn instances<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
    ) -> Result<Vec<InstanceRow>, DbErr> {
        let sql = self.filled(
            "SELECT instance_id, max_in_flight, lease_until, {now} - lease_until, handlers FROM {instances} \
             WHERE consumer = ?",
        );
        let rows = conn.query_all_raw(self.statement(&sql, vec![Value::from(consumer)])).await?;
        rows.iter()
            .map(|row| {
                let over: i64 = row.try_get_by_index(3)?;
                Ok(InstanceRow {
                    id: Arc::from(row.try_get_by_index::<String>(0)?),
                    max_in_flight: count(row.try_get_by_index(1)?),
                    lease_until: row.try_get_by_index(2)?,
                    expired_for: (over >= 0).then(|| span(over)),
                    // A later program may write another form.
                    handlers: serde_json::from_str(&row.try_get_by_index::<String>(4)?)
                        .unwrap_or_default(),
                })
            })
            .collect()
    }

    /// Deletes the row of an instance; with `if_expired` only where its lease has expired.
    ///
    /// # Errors
    /// The database's error.
    pub async fn remove_instance<C: ConnectionTrait>(
        &self,
        conn: &C,
        id: &str,
        if_expired: bool,
    ) -> Result<(), DbErr> {
        let condition = if if_expired { " AND lease_until < {now}" } else { "" };
        let sql =
            self.filled(&format!("DELETE FROM {{instances}} WHERE instance_id = ?{condition}"));
        conn.execute_raw(self.statement(&sql, vec![Value::from(id)])).await.map(|_| ())
    }
}
