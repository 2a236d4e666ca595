//! The samples of the last day.

use super::{column, instant, name, query, short};
use crate::outbox::Outbox;
use async_trait::async_trait;
use outbox_core::{
    admin::{Sample, SampleStore},
    event::Timestamp,
    outbox::StoreError,
};
use sea_orm::{QueryResult, Value};

/// Most samples of one answer: a day of seven routes, some 2 MiB.
const MOST: u32 = 10_000;

#[async_trait]
impl SampleStore for Outbox {
    async fn samples(&self, since: Timestamp, limit: u32) -> Result<Vec<Sample>, StoreError> {
        let sql = format!(
            "SELECT at_us, route, {} FROM {{samples}} WHERE at_us >= ? ORDER BY at_us, route LIMIT ?",
            short(self, "body")
        );
        let values = vec![Value::from(since.as_micros()), Value::from(i64::from(limit.min(MOST)))];
        let rows = query(self, &sql, values).await?;
        rows.iter().map(sample).filter_map(Result::transpose).collect()
    }
}

/// Reads a sample; `None` for one of a later version that this program cannot read.
fn sample(row: &QueryResult) -> Result<Option<Sample>, StoreError> {
    let Some(body) = column::<Option<String>>(row, 2)? else { return Ok(None) };
    let Ok(figures) = serde_json::from_str(&body) else { return Ok(None) };
    Ok(Some(Sample { at: instant(row, 0)?, route: name(row, 1)?, figures }))
}
