//! `[[tls.callers]]`: the callers that names in client certificates stand for.

use crate::domain::caller::Caller;
use crate::domain::key::AllowedNamespaces;
use crate::domain::scope::Scopes;

use super::TlsCaller;

const FORM: &str =
    "must be tables like { san = \"orders.internal\", namespace = \"default\", scopes = [\"users.read\"] }";

/// Reads a TOML array of tables; an empty text is none.
pub(super) fn read(text: &str) -> Result<Vec<TlsCaller>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let document = format!("callers = {text}").parse::<toml::Table>().map_err(|_| FORM.to_owned())?;
    let callers = document.get("callers").and_then(toml::Value::as_array).ok_or(FORM)?;
    callers.iter().map(caller).collect()
}

fn caller(value: &toml::Value) -> Result<TlsCaller, String> {
    let table = value.as_table().ok_or(FORM)?;
    if let Some(unknown) = table.keys().find(|key| !["san", "namespace", "scopes"].contains(&key.as_str())) {
        return Err(format!("has a table with {unknown:?}, which is not known; {FORM}"));
    }
    let text = |name: &str| table.get(name).and_then(toml::Value::as_str).ok_or(FORM);
    let san = text("san")?;
    if san.is_empty() {
        return Err("has a table whose san is empty".to_owned());
    }
    if [Caller::OPEN, Caller::SERVER].contains(&&*san.to_ascii_lowercase())
        || uuid::Uuid::try_parse(san).is_ok()
    {
        return Err(format!(
            "has a table for {san}, which events call others: `open`, `usersd` and UUIDs are taken"
        ));
    }
    let of = |why: &dyn std::fmt::Display, what: &str| format!("has a table for {san} whose {what} {why}");
    let namespaces = AllowedNamespaces::parse(text("namespace")?).map_err(|why| of(&why, "namespace"))?;
    let names = table.get("scopes").and_then(toml::Value::as_array).ok_or(FORM)?;
    let names = names.iter().map(|name| name.as_str().unwrap_or_default());
    let scopes = Scopes::parse(names).map_err(|why| of(&why, "scopes"))?;
    // Names of hosts are the same in any case; URIs are compared as they are.
    let san = if san.contains(':') { san.to_owned() } else { san.to_ascii_lowercase() };
    Ok(TlsCaller { san, namespaces, scopes })
}

/// As TOML.
pub(super) fn show(callers: &[TlsCaller]) -> String {
    let callers = callers.iter().map(|caller| {
        let scopes = caller.scopes.names().map(|name| toml::Value::String(name.to_owned())).collect();
        toml::Value::Table(toml::Table::from_iter([
            ("san".to_owned(), toml::Value::String(caller.san.clone())),
            ("namespace".to_owned(), toml::Value::String(caller.namespaces.as_str().to_owned())),
            ("scopes".to_owned(), toml::Value::Array(scopes)),
        ]))
    });
    toml::Value::Array(callers.collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_read_back() {
        let text = r#"[{ san = "Orders.Internal", namespace = "a", scopes = ["users.read", "sessions.read"] },
            { san = "spiffe://prod/Root", namespace = "*", scopes = ["users.admin"] }]"#;
        let callers = read(text).unwrap();
        assert_eq!(callers[0].san, "orders.internal");
        assert_eq!(
            (callers[1].san.as_str(), &callers[1].namespaces),
            ("spiffe://prod/Root", &AllowedNamespaces::All)
        );
        assert_eq!(read(&show(&callers)), Ok(callers));
        assert_eq!(read(""), Ok(Vec::new()));
        assert_eq!(read(&show(&[])), Ok(Vec::new()));
    }

    #[test]
    fn every_fault_of_a_caller_is_named() {
        let one = |inner: &str| read(&format!("[{{ {inner} }}]")).unwrap_err();
        for (inner, part) in [
            ("san = 'a'", "must be tables like"),
            ("san = 'Open', namespace = 'a', scopes = ['users.read']", "for Open, which events call others"),
            (
                "san = 'usersd', namespace = 'a', scopes = ['users.read']",
                "for usersd, which events call others",
            ),
            (
                "san = '018bcfe5-6800-7000-8000-000000000000', namespace = 'a', scopes = ['users.read']",
                "UUIDs are taken",
            ),
            ("san = '', namespace = 'a', scopes = ['users.read']", "san is empty"),
            ("san = 'a', namespace = 'A', scopes = ['users.read']", "for a whose namespace must be 1 to 63"),
            ("san = 'a', namespace = 'a', scopes = []", "whose scopes must name at least one"),
            ("san = 'a', namespace = 'a', scopes = [1]", "is not a scope"),
            ("san = 'a', namespace = 'a', scope = ['users.read']", "\"scope\", which is not known"),
        ] {
            assert!(one(inner).contains(part), "{inner}: {}", one(inner));
        }
        assert!(read("everyone").is_err() && read("['a']").is_err() && read("{}").is_err());
    }
}
