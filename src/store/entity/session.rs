use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub namespace: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    pub public_id: String,
    pub user_id: String,
    pub created: i64,
    pub expires: i64,
    pub seen: i64,
    pub address: String,
    pub user_agent: String,
    pub auth_time: i64,
    pub amr: String,
}

#[derive(Copy, Clone, Debug, EnumIter)]
pub enum Relation {
    User,
}

impl RelationTrait for Relation {
    fn def(&self) -> RelationDef {
        Entity::belongs_to(super::user::Entity)
            .from((Column::Namespace, Column::UserId))
            .to((super::user::Column::Namespace, super::user::Column::Id))
            .into()
    }
}

impl ActiveModelBehavior for ActiveModel {}
