//! The samples that a relay writes, on the janitor's connection: a slow count delays no renewal.

use super::SqlStore;
use crate::{
    pool::Arg,
    schema::{
        OLDEST_EVENT,
        decode::{column, span},
        live::RENEWED_WITHIN,
    },
};
use async_trait::async_trait;
use outbox_core::{
    admin::{Bounded, Live, Sample},
    event::Timestamp,
    outbox::{SampleBasis, SampleWriter, SampledRelay, StoreError},
};
use sea_orm::QueryResult;

/// Samples of one INSERT: each has some 300 bytes.
const CHUNK: usize = 200;
/// Relays whose rows are read: each has up to 16 KiB.
const MOST_RELAYS: u32 = 200;
/// Events up to which a backlog is counted.
const MOST_EVENTS: i64 = 10_000;

#[async_trait]
impl SampleWriter for SqlStore {
    async fn sample_basis(&self, relay: &str) -> Result<SampleBasis, StoreError> {
        let most = MOST_EVENTS + 1;
        let sql = self.sql("sample basis", 1, || {
            format!(
                "SELECT {{now}}, CASE WHEN EXISTS (SELECT 1 FROM {{partitions}} o WHERE o.partition_no = 0 AND o.owner = ?) \
                 THEN 1 ELSE 0 END, (SELECT count(*) FROM (SELECT 1 AS one FROM {{events}} LIMIT {most}) w), \
                 {{now}} - ({OLDEST_EVENT})"
            )
        });
        let rows = self.janitor.query(&sql, &[Arg::Text(Some(relay))]).await?;
        let Some(row) = rows.first() else {
            return Err(StoreError::Mismatch("the database gives no clock".to_owned()));
        };
        let count: i64 = column(row, 2)?;
        Ok(SampleBasis {
            now: Timestamp::from_micros(column(row, 0)?),
            is_elected: column::<i32>(row, 1)? != 0,
            backlog: Bounded {
                count: count.clamp(0, MOST_EVENTS).unsigned_abs(),
                or_more: count > MOST_EVENTS,
            },
            oldest: column::<Option<i64>>(row, 3)?.map(span),
            relays: self.sampled_relays().await?,
        })
    }

    async fn write_samples(&self, samples: &[Sample]) -> Result<(), StoreError> {
        for chunk in samples.chunks(CHUNK) {
            let sql = self.sql("write samples", chunk.len(), || {
                let rows = vec!["(?, ?, ?)"; chunk.len()].join(", ");
                let replaced = self.dialect().or_replace("at_us, route", &["body"]);
                format!("INSERT INTO {{samples}} (at_us, route, body) VALUES {rows}{replaced}")
            });
            // Numbers only: it cannot fail.
            let body = |sample: &Sample| serde_json::to_string(&sample.figures).unwrap_or_default();
            let bodies: Vec<String> = chunk.iter().map(body).collect();
            let args = chunk.iter().zip(&bodies).flat_map(|(sample, body)| {
                let texts = [&sample.route, body].map(|text| Arg::Text(Some(text.as_str())));
                [Arg::int(sample.at.as_micros())].into_iter().chain(texts)
            });
            self.janitor.execute(&sql, &args.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }
}

impl SqlStore {
    async fn sampled_relays(&self) -> Result<Vec<SampledRelay>, StoreError> {
        let sql = self.sql("sampled relays", 1, || {
            let bytes = self.dialect().bytes_of(&["l.body"]);
            format!(
                "SELECT l.id, CASE WHEN EXISTS (SELECT 1 FROM {{relays}} r WHERE r.relay_id = l.id \
                 AND r.lease_until >= {{now}}) THEN 1 ELSE 0 END, l.body FROM {{live}} l WHERE l.kind = 'relay' \
                 AND l.written_at >= {{now}} - {RENEWED_WITHIN} AND {bytes} <= {} \
                 ORDER BY l.written_at DESC LIMIT {MOST_RELAYS}",
                Live::LONGEST
            )
        });
        let relay = |row: &QueryResult| -> Result<Option<SampledRelay>, StoreError> {
            // A relay of a later version may write another form.
            let Ok(Live::Relay(state)) = serde_json::from_str(&column::<String>(row, 2)?) else {
                return Ok(None);
            };
            Ok(Some(SampledRelay { id: column(row, 0)?, live: column::<i32>(row, 1)? != 0, state }))
        };
        let rows = self.janitor.query(&sql, &[]).await?;
        rows.iter().map(relay).filter_map(Result::transpose).collect()
    }
}
