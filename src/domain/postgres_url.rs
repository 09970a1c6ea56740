//! Addresses of PostgreSQL that name several servers, as libpq reads them.

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

/// The values of `target_session_attrs` that ask for the server that takes writes, or leave the choice to us.
const FOR_PRIMARY: [&str; 3] = ["read-write", "primary", "any"];

/// Returns an address with one host for each that `url` names, in their order: in
/// `postgres://u:p@h1:5432,h2:5433/db`, or in the parameters `host=h1,h2&port=5432,5433`. Without
/// `target_session_attrs`, which is checked.
///
/// # Errors
///
/// The form that the address must have, in words an operator can act on.
pub fn split_hosts(url: &str) -> Result<Vec<String>, String> {
    let (location, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = location.split_once("://").unwrap_or((location, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut parameters = Vec::new();
    let (mut named, mut ports) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let value = form_urlencoded::parse(pair.as_bytes())
            .next()
            .map_or_else(String::new, |(_, value)| value.into());
        match pair.split_once('=').map_or(pair, |(name, _)| name) {
            "target_session_attrs" if FOR_PRIMARY.contains(&&*value) => {}
            "target_session_attrs" => {
                return Err(format!(
                    "must have target_session_attrs=read-write, not {value}: it is the primary that is used"
                ));
            }
            "hostaddr" if value.contains(',') => {
                return Err("must name several servers by `host`, not by `hostaddr`".to_owned());
            }
            "host" => named = Some(value),
            "port" => ports = Some(value),
            _ => parameters.push(pair),
        }
    }
    let hosts = hosts.replace("%2c", ",").replace("%2C", ",");
    let listed: Vec<&str> = named.as_deref().unwrap_or(&hosts).split(',').collect();
    if listed.len() > 1 && listed.iter().any(|host| host.is_empty()) {
        return Err("names a host without a name".to_owned());
    }
    let ports: Vec<&str> = ports.as_deref().map_or_else(Vec::new, |ports| ports.split(',').collect());
    if ports.len() > 1 && ports.len() != listed.len() {
        return Err(format!("names {} hosts and {} ports", listed.len(), ports.len()));
    }
    let address = |(at, host): (usize, &&str)| {
        let mut parameters: Vec<String> = parameters.iter().map(|&pair| pair.to_owned()).collect();
        if named.is_some() {
            parameters.push(parameter("host", host));
        }
        parameters.extend(ports.get(at).or(ports.first()).map(|port| parameter("port", port)));
        // Named twice, the parameter counts.
        let host = if named.is_some() { hosts.split(',').next().unwrap_or_default() } else { host };
        let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
        format!("{scheme}://{login}{host}{path}{query}")
    };
    Ok(listed.iter().enumerate().map(address).collect())
}

fn parameter(name: &str, value: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
}

/// Returns the host and port that an address names, for the log; without user and password.
pub fn server_name(url: &str) -> String {
    let (location, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = location.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let named = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let host = named("host").unwrap_or_else(|| percent_decode_str(host).decode_utf8_lossy().into_owned());
    match named("port") {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_becomes_an_address() {
        for (url, addresses) in [
            ("postgres://h/db", &["postgres://h/db"][..]),
            ("postgres:///db?host=/run/pg&user=u", &["postgres:///db?user=u&host=%2Frun%2Fpg"]),
            (
                "postgres://u:p,w@h1:5432,h2:5433/db?target_session_attrs=read-write&sslmode=require",
                &[
                    "postgres://u:p,w@h1:5432/db?sslmode=require",
                    "postgres://u:p,w@h2:5433/db?sslmode=require",
                ],
            ),
            ("postgresql://u@h1%2Ch2", &["postgresql://u@h1", "postgresql://u@h2"]),
            ("postgres://[::1]:1,[::2]:2/db", &["postgres://[::1]:1/db", "postgres://[::2]:2/db"]),
            (
                "postgres:///db?host=a,b&port=1",
                &["postgres:///db?host=a&port=1", "postgres:///db?host=b&port=1"],
            ),
            (
                "postgres://u:p@x/db?host=%2Fa%2C%2Fb&port=1,2&target_session_attrs=any",
                &["postgres://u:p@x/db?host=%2Fa&port=1", "postgres://u:p@x/db?host=%2Fb&port=2"],
            ),
            ("postgres://u@h/db?options=-c%20a=b,c", &["postgres://u@h/db?options=-c%20a=b,c"]),
        ] {
            assert_eq!(split_hosts(url).unwrap(), addresses, "{url}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        for (url, why) in [
            ("postgres://h1,h2/db?target_session_attrs=standby", "read-write, not standby"),
            ("postgres://h/db?target_session_attrs=prefer-standby", "not prefer-standby"),
            ("postgres://h/db?hostaddr=10.0.0.1,10.0.0.2", "by `host`"),
            ("postgres://h1,/db", "without a name"),
            ("postgres://h1,h2/db?port=1,2,3", "2 hosts and 3 ports"),
        ] {
            let refused = split_hosts(url).unwrap_err();
            assert!(refused.contains(why), "{url}: {refused}");
        }
    }

    #[test]
    fn the_log_names_a_server_without_its_user() {
        for (url, named) in [
            ("postgres://u:secret@h1:5432/db", "h1:5432"),
            ("postgres://u:secret@x/db?host=%2Frun%2Fpg&port=5433&password=secret", "/run/pg:5433"),
            ("postgres://%2Frun%2Fpg/db", "/run/pg"),
        ] {
            assert_eq!(server_name(url), named);
        }
    }
}
