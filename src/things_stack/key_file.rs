//! The file that the API key came from: a new key in it is used without a restart.

use std::path::PathBuf;
use std::{fs, io};

use crate::secret::Secret;

pub struct KeyFile {
    path: PathBuf,
    /// The key that is in use.
    key: Secret,
    /// Whether the log has said that the file cannot be used.
    is_failing: bool,
}

impl KeyFile {
    /// `key` is what was read from the file at the start.
    pub fn new(path: PathBuf, key: Secret) -> KeyFile {
        KeyFile {
            path,
            key,
            is_failing: false,
        }
    }

    /// Another key than before, if the file holds one now. The log has one line about a file
    /// that cannot be used, until it can.
    pub fn renewed(&mut self) -> Option<Secret> {
        let path = self.path.display();
        let read = self.read();
        if let Err(error) = &read
            && !self.is_failing
        {
            log::warn!("cannot use the API key of {path}: {error}; the old one stays in use");
        }
        self.is_failing = read.is_err();
        let key = read.ok().filter(|key| *key != self.key)?;
        log::info!("a new API key is in {path}: it is used from now on");
        self.key = key.clone();
        Some(key)
    }

    /// A pipe is not read again: it would block, or be empty.
    fn read(&self) -> io::Result<Secret> {
        let kind = fs::metadata(&self.path)?.file_type();
        match kind.is_file() || kind.is_dir() {
            true => Secret::from_file(&self.path),
            false => Ok(self.key.clone()),
        }
    }
}
