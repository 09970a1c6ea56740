//! The scope that each RPC needs. An RPC without a row is not served.

use crate::domain::scope::Scope;

/// The scope that the RPC of a gRPC path needs; `None` if there is no such RPC.
///
/// Some RPCs ask for more depending on the message: `Update` with a password needs `users.admin`, so do changes of second
/// factors without the user's proof, and a key can give no scope that it lacks.
pub fn scope_of(path: &str) -> Option<Scope> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match service {
        "users.Users" => of_users(method),
        "users.Keys" => {
            matches!(method, "Create" | "List" | "Delete" | "ListLogs").then_some(Scope::KeysAdmin)
        }
        "users.Namespaces" => {
            let methods =
                ["CreateNamespace", "ReadNamespace", "ListNamespaces", "UpdateNamespace", "DeleteNamespace"];
            methods.contains(&method).then_some(Scope::NamespacesAdmin)
        }
        _ => None,
    }
}

fn of_users(method: &str) -> Option<Scope> {
    Some(match method {
        "Read" | "BatchRead" | "Search" | "List" | "ReadTrash" | "ListTrash" | "ReadPrefs" | "ListLogs"
        | "ListFactors" => Scope::UsersRead,
        "Create" | "Update" | "Delete" | "Restore" | "UpdatePassword" | "UpdatePrefs"
        // The code proves that the user consents, so these need no `users.admin`.
        | "VerifyEmail" | "ConfirmEmailChange" | "ResetPassword"
        // Without the user's own proof they need it.
        | "EnrollTotp" | "ConfirmTotp" | "RemoveTotp" | "CreateRecoveryCodes" => Scope::UsersWrite,
        // Operations that can take an account over or lose it.
        "CreateOrRestore" | "Purge" | "SetPassword" | "UpdateStatus" | "UpdateVerification" | "Unlock" => {
            Scope::UsersAdmin
        }
        "ReadSession" | "ListSessions" | "IssueAssertion" => Scope::SessionsRead,
        "Login" | "CompleteLogin" | "LoginWithCode" | "VerifyPassword" | "Logout" | "DeleteSession"
        | "DeleteSessions" => Scope::SessionsWrite,
        "CreateCode" => Scope::CodesWrite,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    /// The manual says a scope of each RPC, and this table the same.
    #[test]
    fn every_rpc_needs_the_scope_that_the_proto_says() {
        let pool = DescriptorPool::decode(crate::DESCRIPTOR_SET).unwrap();
        let mut seen = 0;
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let file = service.parent_file();
                let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
                let location =
                    source.location.iter().find(|location| location.path == method.path()).unwrap();
                let manual = location.leading_comments();
                let scope = scope_of(&path).unwrap_or_else(|| panic!("{path} has no scope"));
                assert!(manual.contains(&format!("Scope: `{}`", scope.name())), "{path}: {manual}");
                seen += 1;
            }
        }
        assert!(seen >= 28, "only {seen} RPCs were found");
    }

    #[test]
    fn unknown_rpcs_have_no_scope() {
        for path in [
            "",
            "/",
            "/users.Users",
            "/users.Users/",
            "/users.Users/read",
            "/users.Users/Read/",
            "users.Users/Read",
        ] {
            assert_eq!(scope_of(path), None, "{path:?}");
        }
    }
}
