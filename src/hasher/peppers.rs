//! `passwords.pepper`: the file with the keys, read at start and at SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::domain::key_file::{KeyFile, KeyFileInvalid};

/// The keys as they were last read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peppers(Arc<RwLock<Arc<KeyFile>>>);

/// Why the file cannot be used. Names the setting, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum PeppersError {
    /// There is no such file, or it may not be read.
    #[error("passwords.pepper: cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// It holds no keys in the form that they need.
    #[error("passwords.pepper: {}: {}", .0.display(), .1)]
    Format(PathBuf, KeyFileInvalid),
}

impl Peppers {
    /// Reads the file; without one there are no keys.
    pub fn open(path: Option<&Path>) -> Result<Self, PeppersError> {
        let peppers = Self::default();
        peppers.reload(path)?;
        Ok(peppers)
    }

    /// Reads the file again, or another one, for what begins from now on. On a failure nothing changes.
    pub fn reload(&self, path: Option<&Path>) -> Result<(), PeppersError> {
        let keys = path.map(read).transpose()?.unwrap_or_default();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// The keys as they are now.
    pub fn keys(&self) -> Arc<KeyFile> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(path: &Path) -> Result<KeyFile, PeppersError> {
    let text = std::fs::read_to_string(path).map_err(|error| PeppersError::Read(path.to_owned(), error))?;
    KeyFile::parse(&Zeroizing::new(text)).map_err(|why| PeppersError::Format(path.to_owned(), why))
}
