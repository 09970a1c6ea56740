//! Addresses to countries, by a database in MaxMind's format: GeoLite2, GeoIP2, DB-IP and others, by country
//! or by city.

use std::net::IpAddr;
use std::path::Path;

use maxminddb::{LookupResult, Reader, WithinOptions, path};

use super::OpenError;
use crate::domain::device::Country;

/// The number of networks that are searched for one with a country. A database by country has it on almost
/// every one.
const SAMPLE: usize = 1_000;

/// A country database.
///
/// It is read into memory, not mapped: a program that replaces the file in place, as some updaters do, would
/// change what is being read or end the process by a signal, and Rust calls that unsafe with reason. A
/// database by country takes some MB.
pub(super) struct Countries(Reader<Vec<u8>>);

impl Countries {
    pub(super) fn open(file: &Path) -> Result<Self, OpenError> {
        let bytes = std::fs::read(file).map_err(|error| OpenError::Read(file.to_owned(), error))?;
        let broken = |error: maxminddb::MaxMindDbError| OpenError::Format(file.to_owned(), error.into());
        let reader = Reader::from_source(bytes).map_err(broken)?;
        let mut networks = reader.networks(WithinOptions::default()).map_err(broken)?.take(SAMPLE);
        if !networks.any(|network| network.is_ok_and(|network| country(&network).is_some())) {
            let kind = reader.metadata().database_type.clone();
            return Err(OpenError::NoCountries(file.to_owned(), kind));
        }
        Ok(Self(reader))
    }

    /// `None` if the database does not know the address, or has only the other kind of addresses.
    pub(super) fn find(&self, address: IpAddr) -> Option<Country> {
        country(&self.0.lookup(address.to_canonical()).ok()?)
    }
}

/// The country that the network is in; not the one where it is registered, nor that of its users.
fn country(found: &LookupResult<'_, Vec<u8>>) -> Option<Country> {
    let code: &str = found.decode_path(&path!["country", "iso_code"]).ok().flatten()?;
    let shaped = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
    let name: Option<String> = found.decode_path(&path!["country", "names", "en"]).ok().flatten();
    let name = name.map_or_else(|| Country::default().name, Into::into);
    shaped.then(|| Country { code: code.to_ascii_uppercase().into(), name })
}
