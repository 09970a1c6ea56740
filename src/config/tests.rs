use super::sections::DAY;
use super::*;

fn assemble(file: &str, environment: &[(&str, &str)], overrides: &Overrides) -> Result<Config, String> {
    assemble_with_warnings(file, environment, overrides).map(|(config, _)| config)
}

fn assemble_with_warnings(
    file: &str,
    environment: &[(&str, &str)],
    overrides: &Overrides,
) -> Result<(Config, Vec<String>), String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::assemble(Some(file), environment, overrides, Problems::default()).map_err(|p| p.to_string())
}

#[test]
fn the_annotated_file_holds_the_defaults_and_every_setting() {
    let text = include_str!("../../deploy/usersd.toml");
    assert_eq!(assemble(text, &[], &Overrides::default()), Ok(Config::default()));
    let table = text.parse::<toml::Table>().unwrap();
    let mut listed: Vec<String> = flatten(&table).into_iter().map(|(key, _)| key).collect();
    let mut known: Vec<String> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}

#[test]
fn what_check_config_prints_reads_back_as_the_same() {
    let mut config = Config::default();
    config.sessions.idle = Some(DAY);
    config.geoip.database = Some("/srv/a \"b\".mmdb".into());
    assert_eq!(assemble(&config.to_toml(), &[], &Overrides::default()), Ok(config));
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = "listen = '127.0.0.1:1'\ndatabase = 'sqlite://a.db'\n[passwords]\ncost = 11";
    let environment = [("USERSD_LISTEN", "127.0.0.1:2"), ("USERSD_DATABASE", "sqlite://b.db")];
    let flags = Overrides { listen: Some("127.0.0.1:3".into()), database: None };
    let config = assemble(file, &environment, &flags).unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.database, "sqlite://b.db");
    assert_eq!(config.passwords.cost, 11);
}

/// A cost below 10 among them (R10).
#[test]
fn all_faults_are_named_at_once_with_the_place_to_mend() {
    let file = "lisen = 'x'\nauth = 'maybe'\n[passwords]\ncost = 9\nmax_wait = 3\n[http]\nmax_body = 'a lot'";
    let environment = [("USERSD_PASSWORDS_COSTS", "12"), ("USERSD_SESSIONS_LIFETIME", "soon")];
    let flags = Overrides { listen: Some("nowhere".into()), database: Some("mysql://x".into()) };
    let said = assemble(file, &environment, &flags).unwrap_err();
    for part in [
        "lisen is not a setting; is listen meant?",
        "auth must be `keys` or `off`",
        "passwords.cost must be 10 to 15",
        "passwords.max_wait must be a duration",
        "http.max_body must be a size",
        "USERSD_PASSWORDS_COSTS is not a setting; is passwords.cost meant?",
        "USERSD_SESSIONS_LIFETIME must be a duration",
        "--listen must be an address and port",
        "--database must begin with",
    ] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
    assert_eq!(said.lines().count(), 9, "{said}");
}

#[test]
fn a_proxy_is_not_every_address() {
    for every in ["0.0.0.0/0", "10.0.0.0/8, ::/0"] {
        let environment = [("USERSD_HTTP_TRUSTED_PROXIES", every)];
        let said = assemble("", &environment, &Overrides::default()).unwrap_err();
        assert!(said.contains("must not hold every address"), "{said}");
    }
}

#[test]
fn what_kubernetes_adds_is_no_fault() {
    let environment = [("USERSD_SERVICE_HOST", "10.0.0.1"), ("USERSD_PORT", "tcp://10.0.0.1:8080")];
    assert!(assemble("", &environment, &Overrides::default()).is_ok());
}

#[test]
fn a_database_password_is_not_shown() {
    let shown = |database: &str| {
        let text = Config { database: database.into(), ..Config::default() }.to_toml();
        text.lines().find_map(|line| line.strip_prefix("database = ")).unwrap().to_owned()
    };
    for (database, text) in [
        ("postgres://u:secret@h/db", "postgres://u:***@h/db"),
        ("postgres://u:se@cret@h/db", "postgres://u:***@h/db"),
        ("postgres:///db?host=/run/pg&password=secret", "postgres:///db?host=/run/pg&password=***"),
        ("postgres:///db?pass%77ord=secret&user=u", "postgres:///db?password=***&user=u"),
        ("postgres://u:secret@h:port/db", "***"),
        ("postgres://u@h/db?options=-c%20a=b", "postgres://u@h/db?options=-c%20a=b"),
        ("sqlite://a b.db?mode=rwc", "sqlite://a b.db?mode=rwc"),
    ] {
        assert_eq!(shown(database), format!("\"{text}\""));
    }
}

#[test]
fn a_database_address_of_several_hosts_leads_to_the_primary() {
    let with = |url: &str| {
        let flags = Overrides { database: Some(url.to_owned()), ..Overrides::default() };
        assemble("", &[], &flags).map(|_| ())
    };
    assert_eq!(with("postgres://u:p,w@h1:5432,h2:5433/db?target_session_attrs=read-write"), Ok(()));
    let said = with("postgres://u@h1,h2/db?target_session_attrs=standby").unwrap_err();
    assert!(said.contains("--database must have target_session_attrs=read-write"), "{said}");
}

#[test]
fn a_read_replica_is_of_postgres_and_its_password_is_not_shown() {
    let replica = [("USERSD_POOL_READ_URL", "postgres://u:secret@h/db")];
    let said = assemble("", &replica, &Overrides::default()).unwrap_err();
    assert!(said.contains("pool.read_url needs PostgreSQL"), "{said}");
    let flags = Overrides { database: Some("postgres://h/db".to_owned()), ..Overrides::default() };
    let config = assemble("", &replica, &flags).unwrap();
    assert!(config.to_toml().contains("read_url = \"postgres://u:***@h/db\""), "{}", config.to_toml());
    let said = assemble("", &[("USERSD_POOL_READ_URL", "sqlite://a.db")], &flags).unwrap_err();
    assert!(said.contains("must be `off` or begin with postgres://"), "{said}");
}

#[test]
fn origins_are_as_browsers_write_them() {
    let read = |origins: &str| {
        let said = assemble("", &[("USERSD_HTTP_CORS_ORIGINS", origins)], &Overrides::default());
        said.map(|config| config.http.cors_origins)
    };
    for (origins, want) in [
        (
            "https://App.Example.com, http://localhost:3000",
            vec!["https://app.example.com", "http://localhost:3000"],
        ),
        ("https://a.example:443,http://[::1]:80", vec!["https://a.example", "http://[::1]"]),
        ("http://a.example:443,capacitor://localhost", vec!["http://a.example:443", "capacitor://localhost"]),
        ("", vec![]),
    ] {
        assert_eq!(read(origins).unwrap(), want, "{origins}");
    }
    for wrong in
        ["*", "https://*", "null", "a.example", "https://", "https://a.example/", "https://u@a.example"]
    {
        let said = read(wrong).unwrap_err();
        assert!(said.contains("must be origins like"), "{wrong}: {said}");
    }
}

#[test]
fn the_old_name_of_the_throttle_is_read_with_a_warning_that_says_the_new_one() {
    let file = "[guard]\naccount = 7\nfree = 3\n[throttle]\nfree = 3\naddress = 8";
    let environment = [("USERSD_GUARD_ADDRESS", "9")];
    let (config, warnings) = assemble_with_warnings(file, &environment, &Overrides::default()).unwrap();
    let throttle = &config.throttle;
    // The environment wins over the file, by whichever name.
    assert_eq!((throttle.account, throttle.free, throttle.address), (7, 3, 9));
    let warning =
        |old: &str, new: &str| format!("{old} is now called {new}; the old name is read until version 0.2");
    let want = [
        warning("guard.account", "throttle.account"),
        warning("guard.free", "throttle.free"),
        warning("USERSD_GUARD_ADDRESS", "USERSD_THROTTLE_ADDRESS"),
    ];
    assert_eq!(warnings, want);
    let (_, warnings) = assemble_with_warnings(&config.to_toml(), &[], &Overrides::default()).unwrap();
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn old_and_new_name_of_the_throttle_with_different_values_are_a_problem() {
    let file = "[guard]\naccount = 7\nfree = 3000\ncalls = 1\n[throttle]\naccount = 8";
    let environment = [("USERSD_GUARD_FREE", "2"), ("USERSD_THROTTLE_FREE", "3"), ("USERSD_GUARD_FRE", "3")];
    let said = assemble(file, &environment, &Overrides::default()).unwrap_err();
    let want = [
        "guard.account and throttle.account are one setting with two values: remove guard.account, its old name",
        "guard.calls is not a setting; is throttle.caller meant?",
        "guard.free must be 1 to 1000",
        "USERSD_GUARD_FREE and USERSD_THROTTLE_FREE are one setting with two values: remove USERSD_GUARD_FREE, \
         its old name",
        "USERSD_GUARD_FRE is not a setting; is throttle.free meant?",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), want);
}

#[test]
fn a_changed_password_is_a_difference_that_names_its_setting() {
    let config = |url: &str| {
        let flags = Overrides { database: Some(url.to_owned()), ..Overrides::default() };
        assemble("", &[], &flags).unwrap()
    };
    let (one, other) = (config("postgres://a:first@h/db"), config("postgres://a:second@h/db"));
    assert_eq!(one.to_toml(), other.to_toml());
    assert_eq!(one.differences(&other), ["database"]);
    assert_eq!(one.differences(&one), [""; 0]);
}
