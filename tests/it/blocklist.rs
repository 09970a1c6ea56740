//! `passwords.blocklist`: passwords of a file are refused wherever one is chosen.

use std::io::Write as _;

use http::Method;
use serde_json::json;
use sha1::{Digest as _, Sha1};
use usersd::pb::{
    CreateOrRestoreRequest, CreateRequest, DeleteRequest, SetPasswordRequest, UpdatePasswordRequest,
    UpdateRequest,
};

use crate::support::{PASSWORD, Replica, Service, create, fields, login, nth};

crate::on_every_backend!(a_listed_password_is_refused_wherever_one_is_chosen);

/// Not in the list that is built in.
const LISTED: &str = "Zebra crossing 7";

async fn a_listed_password_is_refused_wherever_one_is_chosen(service: &Service) {
    let hashes =
        ["another one", LISTED, "a third one"].map(|text| hex::encode_upper(Sha1::digest(text)) + ":3");
    let mut hashes = hashes.to_vec();
    hashes.sort();
    let text = format!("another one\n{}\n", LISTED.to_lowercase());
    for (n, content) in [(1, hashes.join("\n")), (3, text)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let path = file.path().to_owned();
        let replica = service.another(|config| config.passwords.blocklist = Some(path)).await;
        assert_refused_everywhere(service, &replica, n).await;
        replica.stop.cancel();
    }
    // Without the setting it is a password like others.
    let plain = CreateRequest { password: LISTED.into(), ..nth(9) };
    create(service, plain).await;
}

async fn assert_refused_everywhere(service: &Service, replica: &Replica, n: usize) {
    let mut users = replica.users.clone();
    let listed = || LISTED.to_owned();
    let status = users.create(CreateRequest { password: listed(), ..nth(n) }).await.unwrap_err();
    assert_eq!(fields(&status), ["password"]);
    let id = create(service, nth(n)).await.id;
    let update = UpdateRequest { id: id.clone(), password: Some(listed()), ..Default::default() };
    assert_eq!(fields(&users.update(update).await.unwrap_err()), ["password"]);
    let set = SetPasswordRequest { user_id: id.clone(), new_password: listed(), ..Default::default() };
    assert_eq!(fields(&users.set_password(set).await.unwrap_err()), ["new_password"]);
    let change = UpdatePasswordRequest {
        user_id: id.clone(),
        old_password: PASSWORD.into(),
        new_password: listed(),
        ..Default::default()
    };
    assert_eq!(fields(&users.update_password(change.clone()).await.unwrap_err()), ["new_password"]);
    let body = json!({"username": "json", "password": LISTED}).to_string();
    let (status, answer) = replica.json(Method::POST, "/v1/users", &body).await;
    assert_eq!(
        (status.as_u16(), answer["details"][0]["reason"].as_str()),
        (400, Some("FIELD_INVALID")),
        "{answer}"
    );
    // Nothing of all that changed the password; another one is taken.
    login(service, &nth(n).username).await;
    let other = UpdatePasswordRequest { new_password: "zebra crossing 8".into(), ..change };
    users.update_password(other).await.unwrap();
    let gone = create(service, nth(n + 1)).await;
    users.delete(DeleteRequest { id: gone.id, ..Default::default() }).await.unwrap();
    let CreateRequest { username, email, .. } = nth(n + 1);
    let back = CreateOrRestoreRequest { username, email, password: listed(), ..Default::default() };
    assert_eq!(fields(&users.create_or_restore(back).await.unwrap_err()), ["password"]);
}
