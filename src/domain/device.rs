//! Details of an end user's device.

use std::borrow::Cow;

/// Details derived from a stored address and user agent. A field is empty if they do not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Three letters, as Matomo's device detector has them: `WIN`, `LIN`, `MAC`.
    pub os_code: &'static str,
    /// Such as `Windows`.
    pub os_name: Cow<'static, str>,
    /// Such as `10` or `17.4.1`.
    pub os_version: String,
    /// `browser`, `library` or `bot`.
    pub client_type: &'static str,
    /// Two letters, as Matomo's device detector has them: `CH`, `FF`, `SF`. Browsers alone have one.
    pub client_code: &'static str,
    /// Such as `Chrome` or `curl`.
    pub client_name: Cow<'static, str>,
    /// Such as `124.0.0.0`.
    pub client_version: String,
    /// `Blink`, `WebKit`, `Gecko`, `Trident` or `Presto`.
    pub client_engine: &'static str,
    /// Such as `605.1.15`; of Blink, the version of Chrome that it came with.
    pub client_engine_version: String,
    /// `desktop`, `smartphone`, `tablet`, `tv`, `console` or `wearable`.
    pub device_name: &'static str,
    /// Such as `Samsung`.
    pub device_brand: String,
    /// Such as `SM-S911B`.
    pub device_model: String,
    /// Where its address is.
    pub country: Country,
}

/// A country.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Country {
    /// ISO 3166-1, two letters, upper case.
    pub code: Cow<'static, str>,
    /// In English.
    pub name: Cow<'static, str>,
}

/// The country of an address that is in none, or not known.
impl Default for Country {
    fn default() -> Self {
        Self { code: "--".into(), name: "Unknown".into() }
    }
}
