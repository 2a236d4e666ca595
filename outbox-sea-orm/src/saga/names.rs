//! The names of the definitions under which sagas are stored, found by steps through the index of
//! names and correlation ids: no index has correlation ids alone.

use super::row::column;
use crate::{error::database, outbox::Outbox};
use outbox_core::outbox::StoreError;
use sea_orm::{ConnectionTrait, Value};

/// Reads the names in their order, at most so many, each by a statement that reads one row.
pub(crate) async fn definition_names(
    outbox: &Outbox,
    most: usize,
) -> Result<Vec<String>, StoreError> {
    let schema = outbox.schema();
    let mut names: Vec<String> = Vec::new();
    while names.len() < most {
        let (condition, values) = match names.last() {
            None => ("1 = 1", Vec::new()),
            Some(last) => ("name > ?", vec![Value::from(last.as_str())]),
        };
        let sql = schema
            .filled(&format!("SELECT name FROM {{sagas}} WHERE {condition} ORDER BY name LIMIT 1"));
        let statement = schema.statement(&sql, values);
        match outbox.reads().query_one_raw(statement).await.map_err(database)? {
            Some(row) => names.push(column(&row, 0)?),
            None => break,
        }
    }
    Ok(names)
}
