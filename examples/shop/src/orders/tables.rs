//! The tables of the orders service.

/// Orders.
pub mod order {
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
    #[sea_orm(table_name = "shop_orders")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub customer: String,
        pub product: String,
        pub total: i64,
        pub status: Status,
    }

    #[derive(
        Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize,
    )]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))", rename_all = "lowercase")]
    #[serde(rename_all = "lowercase")]
    pub enum Status {
        Placed,
        Accepted,
        Confirmed,
        Shipped,
        Cancelled,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
