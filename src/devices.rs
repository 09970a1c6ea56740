//! Derives system, program, device and country from a stored address and user agent, at each read.

mod agent;
mod country;
mod data;
mod engine;
mod kind;
mod names;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::domain::device::Details;
use crate::domain::session::Device;

use country::Countries;

/// Tells what devices are. Cheap to clone.
#[derive(Clone)]
pub struct Devices {
    countries: Option<Arc<Countries>>,
}

/// Why the database of countries cannot be used. Names the setting, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or it may not be read.
    #[error("geoip.database: cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It is something else, or cut off.
    #[error("geoip.database: {} is not a MaxMind database", .0.display())]
    Format(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has no countries of addresses; the second part is its own description.
    #[error("geoip.database: {} has no countries: its type is {:?}", .0.display(), .1)]
    NoCountries(PathBuf, String),
}

impl Devices {
    /// Reads the database of countries, if there is one, into memory: some MB, some milliseconds. User agents
    /// need nothing opened.
    pub fn open(countries: Option<&Path>) -> Result<Self, OpenError> {
        let countries = countries.map(Countries::open).transpose()?;
        Ok(Self { countries: countries.map(Arc::new) })
    }

    /// Returns what the address and the user agent of `device` tell.
    ///
    /// Keeps a CPU busy for 5 to 12 µs, for up to 5 ms with the worst user agents; the first time in the life
    /// of the process for 0.1 s more, while others that ask wait. Never fails: unknown fields are empty,
    /// or an unknown country.
    pub fn describe(&self, device: &Device) -> Details {
        let mut details = agent::describe(&device.user_agent);
        let country = self.countries.as_ref().zip(device.address);
        let country = country.and_then(|(countries, address)| countries.find(address));
        details.country = country.unwrap_or_default();
        details
    }
}
