//! Sagas.

use sea_orm::entity::prelude::*;

/// One saga.
///
/// ```
/// # use outbox_sea_orm::entity::saga;
/// # use sea_orm::{ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter};
/// # async fn example(db: &DatabaseConnection) -> Result<(), DbErr> {
/// let stuck = saga::Entity::find().filter(saga::Column::State.eq("stuck")).all(db).await?;
/// # let _ = stuck; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_sagas")]
pub struct Model {
    /// Its identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub saga_id: Uuid,
    /// The definition's name.
    pub name: String,
    /// The definition's version.
    pub version: i32,
    /// Its correlation id.
    pub correlation_id: String,
    /// `running`, `compensating`, `stuck`, `completed` or `compensated`.
    pub state: String,
    /// Its steps and where they stand, as JSON.
    #[sea_orm(column_type = "Text")]
    pub progress: String,
    /// Its data, as JSON.
    #[sea_orm(column_type = "Text")]
    pub data: String,
    /// Place of the last record in its log.
    pub seq: i64,
    /// Raised by one when a coordinator claims it and when it releases it: odd while claimed.
    pub epoch: i64,
    /// When a coordinator claims it again.
    pub due_at: Option<i64>,
    /// When it starts to compensate, unless it is past its pivot.
    pub deadline_at: Option<i64>,
    /// When it was started.
    pub started_at: i64,
    /// When its last record was written.
    pub changed_at: i64,
    /// When it was completed or compensated.
    pub ended_at: Option<i64>,
}

/// There are none: rows come and go without asking one another.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
