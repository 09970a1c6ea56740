//! Which operation a verb and a path mean, and what is fixed about each.

use http::{Method as Verb, StatusCode};

/// The operation that a verb and a path name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    List,
    Get,
    GetPrefs,
    GetSessions,
    GetLogs,
    UpdateStatus,
    UpdateVerification,
    UpdatePrefs,
    UpdateName,
    UpdateEmail,
    UpdatePassword,
    DeleteSession,
    DeleteSessions,
    Delete,
}

impl Operation {
    /// The operation, the user's id and the session's as they stand in the path, empty where it has none.
    pub(super) fn find<'p>(verb: &Verb, path: &'p str) -> Option<(Self, [&'p str; 2])> {
        let path = path.strip_prefix("/appwrite/v1/users")?;
        let (user, rest) = match path.strip_prefix('/') {
            Some(path) => path.split_once('/').map_or((path, None), |(user, rest)| (user, Some(rest))),
            None => ("", Some(path)),
        };
        if user.is_empty() == path.starts_with('/') {
            return None;
        }
        let verb = if verb == Verb::HEAD { "GET" } else { verb.as_str() };
        let operation = match (verb, user, rest) {
            ("GET", "", Some("")) => Self::List,
            ("POST", "", Some("")) => Self::Create,
            (_, "", _) => return None,
            ("GET", _, None) => Self::Get,
            ("DELETE", _, None) => Self::Delete,
            ("GET", _, Some("prefs")) => Self::GetPrefs,
            ("GET", _, Some("sessions")) => Self::GetSessions,
            ("GET", _, Some("logs")) => Self::GetLogs,
            ("PATCH", _, Some("status")) => Self::UpdateStatus,
            ("PATCH", _, Some("verification")) => Self::UpdateVerification,
            ("PATCH", _, Some("prefs")) => Self::UpdatePrefs,
            ("PATCH", _, Some("name")) => Self::UpdateName,
            ("PATCH", _, Some("email")) => Self::UpdateEmail,
            ("PATCH", _, Some("password")) => Self::UpdatePassword,
            ("DELETE", _, Some("sessions")) => Self::DeleteSessions,
            ("DELETE", _, Some(rest)) => {
                let session = rest.strip_prefix("sessions/")?;
                let one = !session.is_empty() && !session.contains('/');
                return one.then_some((Self::DeleteSession, [user, session]));
            }
            _ => return None,
        };
        Some((operation, [user, ""]))
    }

    /// Returns true if its parameters come in the body.
    pub(super) fn has_body(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::UpdateStatus
                | Self::UpdateVerification
                | Self::UpdatePrefs
                | Self::UpdateName
                | Self::UpdateEmail
                | Self::UpdatePassword
        )
    }

    /// The scope that a key needs for it, by the names there.
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::List | Self::Get | Self::GetPrefs | Self::GetSessions | Self::GetLogs => "users.read",
            _ => "users.write",
        }
    }

    /// The status of an answer that has a body.
    pub(super) fn success(self) -> StatusCode {
        if self == Self::Create { StatusCode::CREATED } else { StatusCode::OK }
    }

    /// The answer to an e-mail address that another user has.
    pub(super) fn taken(self) -> StatusCode {
        match self {
            Self::UpdateEmail => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        }
    }

    /// The RPC that does it.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Create => "/users.Users/Create",
            Self::List => "/users.Users/List",
            Self::Get => "/users.Users/Read",
            Self::GetPrefs => "/users.Users/ReadPrefs",
            Self::GetSessions => "/users.Users/ListSessions",
            Self::GetLogs => "/users.Users/ListLogs",
            Self::UpdateStatus => "/users.Users/UpdateStatus",
            Self::UpdateVerification => "/users.Users/UpdateVerification",
            Self::UpdatePrefs => "/users.Users/UpdatePrefs",
            Self::UpdateName | Self::UpdateEmail => "/users.Users/Update",
            Self::UpdatePassword => "/users.Users/SetPassword",
            Self::DeleteSession => "/users.Users/DeleteSession",
            Self::DeleteSessions => "/users.Users/DeleteSessions",
            Self::Delete => "/users.Users/Delete",
        }
    }

    /// Further RPCs that it calls.
    pub(super) fn more_methods(self) -> &'static [&'static str] {
        match self {
            // Our sessions and logs outlive the user; there a deleted one is not found.
            Self::GetSessions | Self::GetLogs => &["/users.Users/Read"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_verb_and_path() {
        let find = |verb: &str, path: &str| {
            let path = format!("/appwrite/v1{path}");
            let found = Operation::find(&verb.parse().unwrap(), &path);
            found.map(|(operation, [user, session])| (operation, user.to_owned(), session.to_owned()))
        };
        let found = |operation, user: &str, session: &str| Some((operation, user.into(), session.into()));
        for (verb, path, operation, user) in [
            ("POST", "/users", Operation::Create, ""),
            ("GET", "/users", Operation::List, ""),
            ("HEAD", "/users", Operation::List, ""),
            ("GET", "/users/7", Operation::Get, "7"),
            ("GET", "/users/logs", Operation::Get, "logs"),
            ("HEAD", "/users/7", Operation::Get, "7"),
            ("GET", "/users/7/prefs", Operation::GetPrefs, "7"),
            ("GET", "/users/7/sessions", Operation::GetSessions, "7"),
            ("GET", "/users/7/logs", Operation::GetLogs, "7"),
            ("PATCH", "/users/7/status", Operation::UpdateStatus, "7"),
            ("PATCH", "/users/7/verification", Operation::UpdateVerification, "7"),
            ("PATCH", "/users/7/prefs", Operation::UpdatePrefs, "7"),
            ("PATCH", "/users/7/name", Operation::UpdateName, "7"),
            ("PATCH", "/users/7/email", Operation::UpdateEmail, "7"),
            ("PATCH", "/users/7/password", Operation::UpdatePassword, "7"),
            ("DELETE", "/users/7/sessions", Operation::DeleteSessions, "7"),
            ("DELETE", "/users/7", Operation::Delete, "7"),
        ] {
            assert_eq!(find(verb, path), found(operation, user, ""), "{verb} {path}");
        }
        assert_eq!(find("DELETE", "/users/7/sessions/8"), found(Operation::DeleteSession, "7", "8"));
        for (verb, path) in [
            ("GET", ""),
            ("GET", "/user"),
            ("GET", "/usersx"),
            ("GET", "/users/"),
            ("POST", "/users/"),
            ("GET", "/users//"),
            ("GET", "/users//prefs"),
            ("GET", "/users/7/"),
            ("GET", "/users/7/nothing"),
            ("GET", "/users/7/prefs/"),
            ("GET", "/users/7/status"),
            ("POST", "/users/7"),
            ("PUT", "/users"),
            ("DELETE", "/users"),
            ("DELETE", "/users/7/prefs"),
            ("DELETE", "/users/7/sessions/"),
            ("DELETE", "/users/7/sessions/8/9"),
            ("GET", "/users/7/sessions/8"),
        ] {
            assert_eq!(find(verb, path), None, "{verb} {path}");
        }
    }
}
