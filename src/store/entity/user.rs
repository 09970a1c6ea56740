use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub namespace: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub generation: i64,
    pub version: i64,
    pub username: String,
    pub email: String,
    pub email_verified: bool,
    pub name: String,
    pub status: i16,
    pub sso_enabled: bool,
    pub password_hash: String,
    pub password_updated: i64,
    pub prefs: String,
    pub labels: String,
    pub metadata: String,
    pub created: i64,
    pub updated: i64,
    pub deleted: i64,
    pub id_folded: String,
    pub name_folded: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
