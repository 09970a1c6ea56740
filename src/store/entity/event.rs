use sea_orm::entity::prelude::*;

/// PostgreSQL has one more column, `tx`, which fills itself.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub seq: i64,
    pub namespace: String,
    pub user_id: String,
    pub at: i64,
    pub action: String,
    pub caller: String,
    pub address: String,
    pub user_agent: String,
    pub version: i64,
    pub changed: String,
    pub session: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
