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
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::device::Details;
use crate::domain::session::Device;

use country::Countries;

/// Tells what devices are. Cheap to clone.
#[derive(Clone)]
pub struct Devices {
    countries: Arc<RwLock<Option<Arc<Countries>>>>,
}

/// Why the country database cannot be used. Names the setting, for the operator.
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
    /// Reads the country database, if there is one, into memory: some MB, some milliseconds. User agents
    /// need nothing opened.
    pub fn open(countries: Option<&Path>) -> Result<Self, OpenError> {
        let countries = countries.map(Countries::open).transpose()?;
        Ok(Self { countries: Arc::new(RwLock::new(countries.map(Arc::new))) })
    }

    /// As [`Devices::open`], for this and all its clones. Fails with the old database in use.
    pub fn reload(&self, countries: Option<&Path>) -> Result<(), OpenError> {
        let countries = countries.map(Countries::open).transpose()?;
        *self.countries.write().unwrap_or_else(PoisonError::into_inner) = countries.map(Arc::new);
        Ok(())
    }

    /// Returns what the address and the user agent of `device` tell.
    ///
    /// Keeps a CPU busy for 5 to 12 µs, for up to 5 ms with the worst user agents; the first time in the life
    /// of the process for 0.1 s more, while others that ask wait. Never fails: unknown fields are empty,
    /// or an unknown country.
    pub fn describe(&self, device: &Device) -> Details {
        let mut details = agent::describe(&device.user_agent);
        let countries = self.countries.read().unwrap_or_else(PoisonError::into_inner).clone();
        let country = countries.zip(device.address);
        let country = country.and_then(|(countries, address)| countries.find(address));
        details.country = country.unwrap_or_default();
        details
    }
}
