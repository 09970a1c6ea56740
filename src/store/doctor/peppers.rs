//! Finds what needs a key that the file of `passwords.pepper` lacks.

use std::fmt::Write as _;

use crate::domain::password::PasswordHash;
use crate::error::Result;
use crate::store::Store;

use super::{Finding, Grade, number};

impl Store {
    /// Counts the users whose passwords, and the TOTP secrets that, need another key than those of `versions`.
    pub async fn examine_peppers(&self, versions: &[u32]) -> Result<Finding> {
        let prefix = PasswordHash::PEPPERED;
        let mut passwords = format!("SELECT count(*) FROM users WHERE password_hash LIKE '{prefix}%'");
        let mut secrets = "SELECT count(*) FROM totp_factors WHERE key_version <> 0".to_owned();
        for version in versions {
            // Neither prefix nor version has a wildcard.
            let _ = write!(passwords, " AND password_hash NOT LIKE '{prefix}{version},%'");
            let _ = write!(secrets, " AND key_version <> {version}");
        }
        let db = self.connection().await?;
        let (passwords, secrets) = (number(&db, &passwords).await?, number(&db, &secrets).await?);
        db.close().await?;
        if (passwords, secrets) == (0, 0) {
            return Ok(Finding::ok("peppers", "no password and no TOTP secret needs a key that is missing"));
        }
        let found = format!(
            "{passwords} passwords and {secrets} TOTP secrets need a key that passwords.pepper lacks"
        );
        let advice = "put the lines that were there before back into the file, after the first";
        Ok(Finding::new("peppers", Grade::Fault, found, advice))
    }
}
