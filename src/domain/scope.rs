//! Scopes: the permissions of a caller.

use super::value::named_enum;

named_enum! {
    /// One kind of calls.
    Scope {
        /// See users, the trash and logs.
        UsersRead = "users.read",
        /// Create and change users, but for what is [`Scope::UsersAdmin`]'s.
        UsersWrite = "users.write",
        /// Operations that can take an account over or lose it.
        UsersAdmin = "users.admin",
        /// Ask what a session token opens, and list sessions.
        SessionsRead = "sessions.read",
        /// Sign in and out.
        SessionsWrite = "sessions.write",
        /// Create, list and revoke the keys of a namespace.
        KeysAdmin = "keys.admin",
        /// Make codes, which can take an account over.
        CodesWrite = "codes.write",
        /// Create, limit and delete namespaces. In a root key only.
        NamespacesAdmin = "namespaces.admin",
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// Why a list of scopes is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopesInvalid {
    /// A key that may do nothing is a mistake.
    #[error("must name at least one scope")]
    Empty,
    /// No such scope.
    #[error("{0:?} is not a scope; there are {known}", known = Scopes::ALL)]
    Unknown(String),
}

impl Scopes {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX >> (8 - Scope::ALL.len()));

    /// Reads scopes by their names.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopesInvalid> {
        let mut scopes = Self::default();
        for name in names {
            let scope = Scope::from_name(name).ok_or_else(|| ScopesInvalid::Unknown(name.to_owned()))?;
            scopes.0 |= 1 << scope as u8;
        }
        if scopes.0 == 0 { Err(ScopesInvalid::Empty) } else { Ok(scopes) }
    }

    /// Scopes from our own table. One that only a newer server knows gives nothing here.
    pub fn from_trusted(text: &str) -> Self {
        let known = text.split(' ').filter_map(Scope::from_name);
        known.fold(Self::default(), |scopes, scope| Self(scopes.0 | 1 << scope as u8))
    }

    /// Returns true if `scope` is one of them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Those of them that `others` lack.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Returns true if there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope)).map(Scope::name)
    }
}

/// Their names with spaces between, as stored.
impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, name) in self.names().enumerate() {
            write!(f, "{}{name}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let all = Scopes::parse(Scope::ALL.map(Scope::name)).unwrap();
        assert_eq!(all, Scopes::ALL);
        assert_eq!(Scopes::from_trusted(&all.to_string()), all);
        let some = Scopes::parse(["sessions.read", "users.read"]).unwrap();
        assert_eq!(some.to_string(), "users.read sessions.read");
        assert!(some.contains(Scope::UsersRead) && !some.contains(Scope::UsersWrite));
        assert_eq!(all.without(some).names().count(), Scope::ALL.len() - 2);
        assert_eq!(Scopes::from_trusted("users.read later.scope"), Scopes::parse(["users.read"]).unwrap());
    }

    #[test]
    fn unknown_scopes_are_named() {
        assert_eq!(Scopes::parse([]), Err(ScopesInvalid::Empty));
        for wrong in ["", "users", "USERS.READ", "users.read,users.write", "*"] {
            assert_eq!(Scopes::parse(["users.read", wrong]), Err(ScopesInvalid::Unknown(wrong.to_owned())));
        }
        let message = Scopes::parse(["users.reed"]).unwrap_err().to_string();
        assert!(
            message.starts_with("\"users.reed\" is not a scope; there are users.read users.write"),
            "{message}"
        );
    }
}
