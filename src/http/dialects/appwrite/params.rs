//! Parameters: a null or an empty text is one that was not given, and each has a sentence for what it must
//! be.

use http::request::Parts;
use serde_json::{Map, Value};

use super::refusal::Failure;
use super::sentences::{
    self, EMAIL, LIMIT, NAME, OFFSET, ORDER, PASSWORD, PREFS, SEARCH, STATUS, VERIFICATION, required,
};
use crate::http::dialects::params as shared;

type Result<T> = std::result::Result<T, Failure>;

/// Which users a list shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) search: String,
    pub(super) limit: i64,
    pub(super) offset: i64,
    pub(super) order: String,
}

impl Page {
    /// Most users of one page.
    const MAX: i64 = 100;

    pub(super) fn read(head: &Parts) -> Result<Self> {
        let search = query(head, "search", SEARCH)?.unwrap_or_default();
        let limit = number(head, "limit", LIMIT, Self::MAX)?.unwrap_or(25);
        let offset = number(head, "offset", OFFSET, i64::MAX)?.unwrap_or(0);
        let order = query(head, "orderType", ORDER)?.unwrap_or_else(|| "ASC".to_owned());
        if order != "ASC" && order != "DESC" {
            return Err(invalid("orderType", ORDER));
        }
        Ok(Self { search, limit, offset, order })
    }
}

fn query(head: &Parts, name: &str, must: &str) -> Result<Option<String>> {
    let value = shared::parameter(head, name).map_err(|_| invalid(name, must))?;
    Ok(value.filter(|value| !value.is_empty()))
}

fn number(head: &Parts, name: &str, must: &str, limit: i64) -> Result<Option<i64>> {
    let Some(text) = query(head, name, must)? else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (0..=limit).contains(number));
    number.map(Some).ok_or_else(|| invalid(name, must))
}

/// The parameters in a body.
pub(super) struct Params<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Params<'a> {
    fn given(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn needed(&self, name: &str) -> Result<&'a Value> {
        self.given(name).ok_or_else(|| Failure::Parameter(required(name)))
    }

    fn text(&self, name: &str, must: &str) -> Result<Option<String>> {
        let Some(value) = self.given(name) else { return Ok(None) };
        value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| invalid(name, must))
    }

    fn needed_text(&self, name: &str, must: &str) -> Result<String> {
        self.text(name, must)?.ok_or_else(|| Failure::Parameter(required(name)))
    }

    pub(super) fn email(&self) -> Result<String> {
        self.needed_text("email", EMAIL)
    }

    pub(super) fn password(&self) -> Result<String> {
        self.needed_text("password", PASSWORD)
    }

    pub(super) fn name(&self) -> Result<String> {
        self.needed_text("name", NAME)
    }

    pub(super) fn optional_name(&self) -> Result<String> {
        Ok(self.text("name", NAME)?.unwrap_or_default())
    }

    pub(super) fn status(&self) -> Result<u64> {
        let status = self.needed("status")?.as_u64().filter(|status| *status <= 2);
        status.ok_or_else(|| invalid("status", STATUS))
    }

    /// Its manual calls it needed, its server took an absent one for false.
    pub(super) fn verification(&self) -> Result<bool> {
        let Some(value) = self.given("emailVerification") else { return Ok(false) };
        value.as_bool().ok_or_else(|| invalid("emailVerification", VERIFICATION))
    }

    /// As JSON. An empty list is an empty object: PHP callers cannot write the latter.
    pub(super) fn prefs(&self) -> Result<String> {
        match self.needed("prefs")? {
            Value::Array(items) if items.is_empty() => Ok("{}".to_owned()),
            object @ Value::Object(_) => Ok(object.to_string()),
            _ => Err(invalid("prefs", PREFS)),
        }
    }
}

/// Returns true if a text can be an id: session ids are looked up, not parsed, and some characters cannot be
/// looked up.
pub(super) fn is_uid(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._|@-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

pub(super) fn invalid(name: &str, must: &str) -> Failure {
    Failure::Parameter(sentences::invalid(name, must))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(query: &str) -> std::result::Result<(String, i64, i64, String), String> {
        let uri = format!("/appwrite/v1/users?{query}");
        let head = http::Request::builder().uri(uri).body(()).unwrap().into_parts().0;
        match Page::read(&head) {
            Ok(page) => Ok((page.search, page.limit, page.offset, page.order)),
            Err(Failure::Parameter(text)) => Err(text),
            Err(Failure::Status(status)) => panic!("{status}"),
        }
    }

    #[test]
    fn pages_have_defaults_and_bounds() {
        let of = |search: &str, limit, offset, order: &str| Ok((search.into(), limit, offset, order.into()));
        assert_eq!(page(""), of("", 25, 0, "ASC"));
        assert_eq!(page("search=&limit=&offset=&orderType="), of("", 25, 0, "ASC"));
        assert_eq!(page("search=jo+hn&limit=0&offset=5000&orderType=DESC"), of("jo hn", 0, 5000, "DESC"));
        assert_eq!(page("limit=100"), of("", 100, 0, "ASC"));
        let offset = format!("offset={}", i64::MAX);
        assert_eq!(page(&offset), of("", 25, i64::MAX, "ASC"));
        for limit in ["101", "-1", "25.0", "ten", "1e1", "99999999999999999999", "%31%FF"] {
            let want = "Invalid limit: Value must be a valid range between 0 and 100";
            assert_eq!(page(&format!("limit={limit}")), Err(want.into()), "{limit}");
        }
        let want = "Invalid offset: Value must be a valid range between 0 and 2,000";
        assert_eq!(page("offset=-1"), Err(want.into()));
        for order in ["asc", "Desc", "ASC%20", "1"] {
            let want = "Invalid orderType: Value must be one of (ASC, DESC)";
            assert_eq!(page(&format!("orderType={order}")), Err(want.into()), "{order}");
        }
    }

    #[test]
    fn types_are_not_guessed_at() {
        let said = |name: &str, value: Value| {
            let body = json!({ name: value });
            let params = Params(body.as_object().unwrap());
            let failure = match name {
                "status" => params.status().map(|status| status.to_string()),
                "emailVerification" => params.verification().map(|flag| flag.to_string()),
                "prefs" => params.prefs(),
                "email" => params.email(),
                "password" => params.password(),
                _ => params.name(),
            };
            failure.unwrap_or_else(|failure| match failure {
                Failure::Parameter(text) => text,
                Failure::Status(status) => panic!("{status}"),
            })
        };
        for (name, value, want) in [
            ("status", json!(0), "0"),
            ("status", json!(2), "2"),
            ("status", json!("2"), "Invalid status: Value must be one of (1, 2, 0)"),
            ("status", json!(true), "Invalid status: Value must be one of (1, 2, 0)"),
            ("status", json!(2.0), "Invalid status: Value must be one of (1, 2, 0)"),
            ("status", json!(3), "Invalid status: Value must be one of (1, 2, 0)"),
            ("status", json!(-1), "Invalid status: Value must be one of (1, 2, 0)"),
            ("status", json!(""), "Param \"status\" is not optional."),
            ("status", json!(null), "Param \"status\" is not optional."),
            ("emailVerification", json!(true), "true"),
            ("emailVerification", json!(null), "false"),
            ("emailVerification", json!(1), "Invalid emailVerification: Value must be a valid boolean"),
            ("emailVerification", json!("true"), "Invalid emailVerification: Value must be a valid boolean"),
            ("prefs", json!({"a": {}}), r#"{"a":{}}"#),
            ("prefs", json!([]), "{}"),
            ("prefs", json!([1]), "Invalid prefs: Value must be a valid object."),
            ("prefs", json!("bad-string"), "Invalid prefs: Value must be a valid object."),
            ("prefs", json!(""), "Param \"prefs\" is not optional."),
            ("email", json!(""), "Param \"email\" is not optional."),
            ("email", json!(["a@b.co"]), "Invalid email: Value must be a valid email address"),
            ("password", json!(12_345_678), "Invalid password: must be a string"),
            ("name", json!(1), "Invalid name: Value must be a valid string and no longer than 128 chars"),
        ] {
            assert_eq!(said(name, value.clone()), want, "{name} {value}");
        }
    }
}
