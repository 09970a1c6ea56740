//! Real user agents and what they tell; databases made on the spot.

mod mmdb;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;
use mmdb::Value::{Map, Text};

fn device(user_agent: &str) -> Device {
    Device { address: None, user_agent: user_agent.to_owned() }
}

/// All that a user agent tells, in the order of the contract.
fn summary(user_agent: &str) -> String {
    let d = Devices::open(None).unwrap().describe(&device(user_agent));
    assert_eq!((&*d.country.code, &*d.country.name), ("--", "Unknown"));
    let system = format!("{}|{}|{}", d.os_code, d.os_name, d.os_version);
    let client = format!("{}|{}|{}|{}", d.client_type, d.client_code, d.client_name, d.client_version);
    let engine = format!("{}|{}", d.client_engine, d.client_engine_version);
    format!("{system} {client} {engine} {}|{}|{}", d.device_name, d.device_brand, d.device_model)
}

#[test]
fn user_agents_tell_what_they_tell() {
    let mut wrong = String::new();
    let table = include_str!("tests/agents.txt");
    let mut rows = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut count = 0;
    while let (Some(agent), Some(want)) = (rows.next(), rows.next()) {
        let got = summary(agent);
        if got != want.trim_start() {
            let _ = write!(wrong, "{agent}\n    {got}\n");
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 60, "{count} rows");
}

#[test]
fn the_data_of_the_parser_is_built_in() {
    // An empty or half-read file would leave fewer; the data only grows.
    assert!(data::USER_AGENT_PARSERS.len() >= 362, "{}", data::USER_AGENT_PARSERS.len());
    assert!(data::OS_PARSERS.len() >= 201, "{}", data::OS_PARSERS.len());
    assert!(data::DEVICE_PARSERS.len() >= 633, "{}", data::DEVICE_PARSERS.len());
}

#[test]
fn an_empty_user_agent_tells_nothing() {
    assert_eq!(Devices::open(None).unwrap().describe(&device("")), Details::default());
}

#[test]
fn hostile_user_agents_take_no_longer_than_others_by_much() {
    let devices = Devices::open(None).unwrap();
    let _ = devices.describe(&device("curl/8.5.0")); // makes the parser
    let parts = [
        "a",
        "; ",
        "Build/",
        "Android ; ",
        "Mozilla/5.0 (",
        "; Android 1.1 ; Build",
        "/1.1.1.1",
        "bot",
        "ä",
        "((((",
        "\u{202e}",
        "\u{0}",
        "Chrome/",
        "rv:",
        "iPhone OS 1_",
        "%00",
        "$1",
        "\\d+",
        "CFNetwork/1 Darwin/",
    ];
    for part in parts {
        let hostile = device(&Device::clean_user_agent(&part.repeat(512)));
        // The shortest of some: what else the machine does is not the parser's fault.
        let took = (0..5).map(|_| {
            let begun = Instant::now();
            let details = devices.describe(&hostile);
            assert!(details.client_name.len() <= 512 && details.device_model.len() <= 512, "{part:?}");
            begun.elapsed()
        });
        let took = took.min().unwrap();
        assert!(took < Duration::from_millis(50), "{part:?} took {took:?}");
    }
}

/// A record as GeoLite2 has them, with a second country that must not be taken for the first.
fn record(code: &'static str, name: &'static str) -> mmdb::Value {
    let country = Map(vec![
        ("iso_code", Text(code)),
        ("names", Map(vec![("de", Text("nicht dieser")), ("en", Text(name))])),
    ]);
    let registered = Map(vec![("iso_code", Text("ZZ")), ("names", Map(vec![("en", Text("elsewhere"))]))]);
    Map(vec![("city", Map(vec![])), ("country", country), ("registered_country", registered)])
}

fn open(database: &[u8]) -> Result<Devices, OpenError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countries.mmdb");
    std::fs::write(&file, database).unwrap();
    Devices::open(Some(&file))
}

fn located(devices: &Devices, address: &str) -> String {
    let device = Device { address: Some(address.parse().unwrap()), user_agent: String::new() };
    let details = devices.describe(&device);
    format!("{} {}", details.country.code, details.country.name)
}

#[test]
fn addresses_are_found_in_databases_by_country_and_by_city() {
    let networks = [
        ("203.0.113.0/24", record("de", "Germany")),
        ("198.51.100.128/25", record("FR", "France")),
        ("2001:db8:7::/48", record("NL", "Netherlands")),
        ("192.0.2.0/24", Map(vec![("country", Map(vec![("iso_code", Text("SE"))]))])),
        ("10.0.0.0/8", Map(vec![("country", Map(vec![("iso_code", Text("none"))]))])),
    ];
    for kind in ["GeoLite2-Country", "GeoIP2-City", "DBIP-Country-Lite"] {
        let devices = open(&mmdb::database(kind, 6, &networks)).unwrap();
        let cases = [
            ("203.0.113.0", "DE Germany"),
            ("203.0.113.255", "DE Germany"),
            ("::ffff:203.0.113.9", "DE Germany"),
            ("203.0.114.0", "-- Unknown"),
            ("198.51.100.127", "-- Unknown"),
            ("198.51.100.128", "FR France"),
            ("2001:db8:7::1", "NL Netherlands"),
            ("2001:db8:8::1", "-- Unknown"),
            ("192.0.2.1", "SE Unknown"),
            ("10.1.2.3", "-- Unknown"),
            ("::1", "-- Unknown"),
        ];
        for (address, want) in cases {
            assert_eq!(located(&devices, address), want, "{address} in {kind}");
        }
        assert_eq!(devices.clone().describe(&Device::default()), Details::default());
    }
}

#[test]
fn a_database_of_one_kind_of_addresses_does_not_know_the_other() {
    let networks = [("203.0.113.0/24", record("DE", "Germany"))];
    let devices = open(&mmdb::database("GeoLite2-Country", 4, &networks)).unwrap();
    assert_eq!(located(&devices, "203.0.113.7"), "DE Germany");
    assert_eq!(located(&devices, "2001:db8:7::1"), "-- Unknown");
}

#[test]
fn a_database_that_cannot_be_used_is_refused_with_the_setting_and_the_reason() {
    let said = |opened: Result<Devices, OpenError>| {
        let error = opened.err().unwrap();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    let good = mmdb::database("GeoLite2-Country", 6, &[("203.0.113.0/24", record("DE", "Germany"))]);
    let asn = mmdb::database("GeoLite2-ASN", 6, &[("203.0.113.0/24", Map(vec![("asn", Text("1"))]))]);
    let cases = [
        (Devices::open(Some(Path::new("/nowhere/x.mmdb"))), "/nowhere/x.mmdb: No such file"),
        (Devices::open(Some(Path::new("/"))), "cannot read /: Is a directory"),
        (open(b""), "is not a MaxMind database"),
        (open(b"<html>404</html>"), "is not a MaxMind database"),
        (open(&good[..good.len() / 2]), "is not a MaxMind database"),
        (open(&asn), "has no countries: its type is \"GeoLite2-ASN\""),
    ];
    for (opened, why) in cases {
        let said = said(opened);
        assert!(said.starts_with("geoip.database: ") && said.contains(why), "{said}");
    }
}
