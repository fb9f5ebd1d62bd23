//! The file that the API key came from: a new key in it is used without a restart.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::secret::Secret;

pub struct KeyFile {
    path: PathBuf,
    /// Whether the log has said that the file cannot be used.
    is_failing: bool,
}

impl KeyFile {
    pub fn new(path: PathBuf) -> KeyFile {
        let is_failing = false;
        KeyFile { path, is_failing }
    }

    /// Replaces the key, if the file holds another one now, and says whether it did. The log has one
    /// line about a file that cannot be used, until it can.
    pub fn renew(&mut self, key: &mut Secret) -> bool {
        let path = self.path.display();
        let read = read(&self.path);
        if let Err(error) = &read
            && !self.is_failing
        {
            log::warn!("cannot use the API key of {path}: {error}; the old one stays in use");
        }
        self.is_failing = read.is_err();
        let Some(new) = read.ok().flatten().filter(|new| new != key) else {
            return false;
        };
        log::info!("a new API key is in {path}: it is used from now on");
        *key = new;
        true
    }
}

/// A pipe is not read again: it would block, or be empty.
fn read(path: &Path) -> io::Result<Option<Secret>> {
    let kind = fs::metadata(path)?.file_type();
    let may_be_read = kind.is_file() || kind.is_dir();
    may_be_read.then(|| Secret::from_file(path)).transpose()
}
