//! Changes of a user, as every operation writes them.

use crate::domain::caller::Caller;
use crate::domain::event::Event;
use crate::domain::idempotency::CallDigests;
use crate::domain::password::PasswordHash;
use crate::domain::user::User;
use crate::error::Result;
use crate::store::{self, Transaction};

use super::Operations;

/// The result of an edit of a user.
#[derive(Default)]
pub(super) struct Edit {
    /// The fields that changed; without any nothing is written.
    pub(super) fields: Vec<&'static str>,
    /// A new password.
    pub(super) password: Option<PasswordHash>,
    /// True if all sessions of the user end.
    pub(super) end_sessions: bool,
    /// The call that makes the change, if it may be repeated.
    pub(super) call: Option<CallDigests>,
}

impl Edit {
    /// One field, and nothing else.
    pub(super) fn of(field: &'static str) -> Self {
        Self { fields: vec![field], ..Self::default() }
    }
}

impl Operations {
    /// Writes a user that `tx` has locked as `edit` left it, with its event. What ends the user's sessions ends its codes and
    /// the log-ins that wait for a second factor.
    pub(super) async fn write_edit(
        &self,
        tx: &Transaction,
        caller: &Caller,
        before: &User,
        user: &mut User,
        edit: Edit,
        event: Event,
    ) -> Result<()> {
        let namespace = &caller.namespace;
        if edit.password.is_some() {
            user.password_updated = Some(user.updated);
        }
        if edit.end_sessions || self.is_ending(&edit.fields) {
            store::factors::end_challenges(tx, namespace, &user.id, user.updated).await?;
            store::sessions::delete_of_user(tx, namespace, &user.id, None).await?;
            store::codes::delete_of_user(tx, namespace, &user.id).await?;
        }
        store::users::update(tx, namespace, before, user, edit.password.as_ref()).await?;
        store::events::append(tx, caller, &event.changing(user.version, edit.fields)).await
    }

    /// Returns true if a change of these fields ends the sessions of the user.
    fn is_ending(&self, fields: &[&str]) -> bool {
        self.rules.end_sessions_on_change
            && fields.iter().any(|field| ["email", "sso_enabled"].contains(field))
    }
}
