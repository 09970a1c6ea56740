//! Users who bring the hash of their password from another system.

use tonic::{Code, Request, Status};
use usersd::domain::scope::Scopes;
use usersd::pb::{CreateRequest, LoginRequest, UpdatePasswordRequest};

use crate::support::{PASSWORD, Service, assert_refused, create, fields, login};

crate::on_every_backend!(
    each_logs_in_and_its_hash_becomes_ours,
    log_ins_at_the_same_time_all_succeed_while_the_hash_is_renewed,
    a_password_is_changed_though_a_log_in_renews_its_hash_meanwhile,
    a_hash_of_ours_is_renewed_when_the_cost_was_raised,
    a_password_is_checked_as_it_was_typed_until_the_hash_is_ours,
    an_unknown_user_costs_the_same_work_as_a_stored_one,
    an_exhausted_account_costs_the_same_work,
    what_is_no_hash_or_costs_too_much_is_refused_before_any_work,
    a_hash_needs_the_scope_of_administrators,
    a_password_and_a_hash_are_one_too_many,
);

/// Of the password of all tests, by passlib 1.7.4 and argon2-cffi; the micro service's after its code.
const HASHES: [(&str, &str); 12] = [
    ("bcrypt2a", "$2a$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
    ("bcrypt2b", "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
    ("bcrypt2y", "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e"),
    (
        "argon2id",
        "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MjZP1+1U9JUbDWvDvtLyEsZiNXOKEUxfi6O2oe46uxA",
    ),
    ("scrypt", "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$6g3umF+uVrJsObaTZhIbbTlgrvOEFcCItdwSjtPF67M"),
    (
        "pbkdf2",
        "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$OM0FAoIqCVK1sWtxDiffVlBejtLa.ks4TP71JiecwuSZCG8iLbnlIEPOMoVX.i2B2wkSxjQ8CRGR9OkNGuIPMQ",
    ),
    ("django", "pbkdf2_sha256$1000$abcdefghijkl$0zdgqPwvrX5uWgeujZ5fdcMXA2ja2gN9VYtiAbPFU+8="),
    (
        "sha512",
        "$6$rounds=1000$saltstring$YiR6NSM0LQXmu7vAhkMXfkdYk7qtFouVx1Mdr3HmzXspT8kONjlpU3CsV7ezCB62uXJoAdaagsH4ck7/tB9js.",
    ),
    ("md5", "$1$abcdefgh$y6iHhJNbuC0xpbk0w9pm80"),
    ("phpass", "$P$5abcdefghAwHMLXeh48xCQuy..94JO/"),
    ("ssha", "{SSHA}3VnQdqWXgIpwmT0ePlMHrnYygV/b+997"),
    (
        "micro",
        "$micro$abcdefghijklmnop$JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dXVSYTFRMGdxdUF5NFU0VDY5clBYclRSVmxXalkwWVR1",
    ),
];

fn bringing(username: &str, hash: &str) -> CreateRequest {
    CreateRequest { username: username.into(), password_hash: hash.into(), ..CreateRequest::default() }
}

fn attempt(username: &str, password: &str) -> LoginRequest {
    LoginRequest { username: username.into(), password: password.into(), ..LoginRequest::default() }
}

/// How many users have a stored hash that begins like this.
async fn stored(service: &Service, prefix: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM users WHERE password_hash LIKE '{prefix}%'");
    service.number(&sql).await
}

async fn each_logs_in_and_its_hash_becomes_ours(service: &Service) {
    for (n, (username, hash)) in HASHES.into_iter().enumerate() {
        let user = create(service, bringing(username, hash)).await;
        assert_ne!(user.password_updated, 0, "{username}");
        let ours = i64::try_from(n).unwrap();
        assert_eq!(stored(service, "$2b$04$").await, ours, "{username} is kept as it came");
        let status = service.users().login(attempt(username, "wrong")).await.unwrap_err();
        assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
        assert_eq!(stored(service, "$2b$04$").await, ours, "{username}");
        login(service, username).await;
        assert_eq!(stored(service, "$2b$04$").await, ours + 1, "{username} is ours");
        login(service, username).await;
        let read = crate::steps::read(service, &user.id).await;
        assert_eq!(read, user, "to all others nothing has changed");
    }
}

/// (9) The hash that was checked is not the one that is there when the session is to be opened.
async fn log_ins_at_the_same_time_all_succeed_while_the_hash_is_renewed(service: &Service) {
    create(service, bringing("ada", HASHES[0].1)).await;
    let logins = (0..20).map(|_| {
        let mut users = service.users();
        async move { users.login(attempt("ada", PASSWORD)).await }
    });
    for answer in futures_util::future::join_all(logins).await {
        answer.unwrap();
    }
    assert_eq!(stored(service, "$2b$04$").await, 1);
}

async fn a_password_is_changed_though_a_log_in_renews_its_hash_meanwhile(service: &Service) {
    let user = create(service, bringing("ada", HASHES[0].1)).await;
    let mut users = service.users();
    let change = UpdatePasswordRequest {
        user_id: user.id,
        old_password: PASSWORD.into(),
        new_password: "another horse".into(),
        ..UpdatePasswordRequest::default()
    };
    let late =
        async move { Err(users.update_password(change).await.map_or_else(|no| no, |_| Status::ok(""))) };
    let mut other = service.another(|_| {}).await; // whose hasher is free
    let meanwhile = async { drop(other.users.login(attempt("ada", PASSWORD)).await.unwrap()) };
    let status = crate::support::during_the_hash(service, late, meanwhile).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    service.users().login(attempt("ada", "another horse")).await.unwrap();
}

/// (R10)
async fn a_hash_of_ours_is_renewed_when_the_cost_was_raised(service: &Service) {
    create(service, crate::support::ada()).await;
    assert_eq!(stored(service, "$2b$04$").await, 1);
    let dearer = service.another(|config| config.passwords.cost = 5).await;
    dearer.users.clone().login(attempt("ada", PASSWORD)).await.unwrap();
    assert_eq!(stored(service, "$2b$05$").await, 1);
    // A cheaper one stays dear.
    login(service, "ada").await;
    assert_eq!(stored(service, "$2b$05$").await, 1);
}

async fn a_password_is_checked_as_it_was_typed_until_the_hash_is_ours(service: &Service) {
    // Of "pa", a combining diaeresis and "ssword": in NFC it is another text.
    create(service, bringing("ada", "$2b$04$abcdefghijklmnopqrstuuCcPcT8wQe8gRMAxacxslyiZUiep/f2u")).await;
    let status = service.users().login(attempt("ada", "p\u{e4}ssword")).await.unwrap_err();
    assert_refused(&status, Code::Unauthenticated, "BAD_CREDENTIALS");
    service.users().login(attempt("ada", "pa\u{308}ssword")).await.unwrap();
    service.users().login(attempt("ada", "p\u{e4}ssword")).await.unwrap();
}

/// (3) The cost of a dummy hash is that of a stored hash, and not always ours.
async fn an_unknown_user_costs_the_same_work_as_a_stored_one(service: &Service) {
    create(service, bringing("ada", "$2b$06$abcdefghijklmnopqrstuu174eFeoTj0DHmtuueFaS3Wde4P7wHG.")).await;
    let rounds = || service.replica.hasher.work().rounds_done;
    let other = service.another(|_| {}).await;
    for name in ["ada", "nobody", "noone"] {
        let before = (rounds(), other.hasher.work().rounds_done);
        service.users().login(attempt(name, "wrong")).await.unwrap_err();
        other.users.clone().login(attempt(name, "wrong")).await.unwrap_err();
        assert_eq!(rounds() - before.0, 64, "{name}");
        assert_eq!(other.hasher.work().rounds_done - before.1, 64, "{name} on another replica");
    }
}

/// Or else the time would tell that two names are one user's.
async fn an_exhausted_account_costs_the_same_work(service: &Service) {
    let dear = "$2b$06$abcdefghijklmnopqrstuu174eFeoTj0DHmtuueFaS3Wde4P7wHG.";
    create(service, CreateRequest { email: "ada@example.com".into(), ..bringing("ada", dear) }).await;
    for n in 0..8 {
        create(service, crate::support::nth(n)).await; // whose hashes are cheap
    }
    let few = service.another(|config| config.throttle.account = 3).await;
    for name in ["ada", "", "ada", "", ""] {
        let before = few.hasher.work().rounds_done;
        let email = if name.is_empty() { "ada@example.com" } else { "" };
        let guess = LoginRequest { email: email.into(), ..attempt(name, "wrong") };
        assert_refused(
            &few.users.clone().login(guess).await.unwrap_err(),
            Code::Unauthenticated,
            "BAD_CREDENTIALS",
        );
        assert_eq!(few.hasher.work().rounds_done - before, 64);
    }
    let right = LoginRequest { email: "ada@example.com".into(), ..attempt("ada", PASSWORD) };
    assert_refused(
        &few.users.clone().login(right).await.unwrap_err(),
        Code::Unauthenticated,
        "BAD_CREDENTIALS",
    );
}

/// (14)
async fn what_is_no_hash_or_costs_too_much_is_refused_before_any_work(service: &Service) {
    let digest = "MDEyMzQ1Njc4OWFiY2RlZg$ehqGRlXhNY90u1mXokuaGpor9OaG4WSZVb4jCfev4ys";
    let before = (service.counts().await, service.replica.hasher.work());
    for hash in [
        "correct battery".to_owned(),
        format!("$2b$16${}", ".".repeat(53)),
        format!("$2b$31${}", ".".repeat(53)),
        format!("$argon2id$v=19$m=4194304,t=1,p=1${digest}"),
        format!("$pbkdf2-sha256$4000000000${digest}"),
        "x".repeat(10_000),
    ] {
        let status = service.users().create(bringing("ada", &hash)).await.unwrap_err();
        assert_eq!(fields(&status), ["password_hash"], "{hash}");
        assert!(!status.message().contains(&hash), "not even a hash is repeated");
    }
    assert_eq!((service.counts().await, service.replica.hasher.work()), before);
}

async fn a_hash_needs_the_scope_of_administrators(service: &Service) {
    let (secret, _) = service.key("default", Scopes::parse(["users.write"]).unwrap()).await;
    let mut request = Request::new(bringing("ada", HASHES[0].1));
    request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let status = service.users().create(request).await.unwrap_err();
    assert_refused(&status, Code::PermissionDenied, "SCOPE_MISSING");
}

async fn a_password_and_a_hash_are_one_too_many(service: &Service) {
    let both = CreateRequest { password: PASSWORD.into(), ..bringing("ada", HASHES[0].1) };
    let status = service.users().create(both).await.unwrap_err();
    assert_eq!(fields(&status), ["password_hash"]);
}
