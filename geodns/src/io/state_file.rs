//! The state file: read at the start, replaced as a whole, never by an older generation.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use shared::io::files;

use crate::state::Saved;

/// Where it lies, and the last generation written.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    written: Mutex<u64>,
}

impl StateFile {
    /// Reads it. None: there is none yet.
    ///
    /// # Errors
    /// It cannot be told from it what the operator wants. To go on without would send clients to what was drained.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Option<Saved>), String> {
        let saved = match std::fs::read(&path) {
            Ok(content) => {
                let (saved, lost) = Saved::read(&content).map_err(|why| {
                    format!("{} is damaged: {why}; remove it to go on without", path.display())
                })?;
                for why in lost {
                    tracing::warn!(file = %path.display(), "a part of the state is damaged, it begins anew: {why}");
                }
                Some(saved)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        Ok((Self { path, written: Mutex::new(0) }, saved))
    }
}

/// Something to be written.
#[derive(Debug)]
pub(super) struct Save {
    file: Arc<StateFile>,
    generation: u64,
    content: Result<Vec<u8>, String>,
}

impl Save {
    pub(super) fn new(file: &Arc<StateFile>, saved: &Saved) -> Self {
        Self { file: Arc::clone(file), generation: saved.generation, content: saved.content() }
    }

    /// Writes it, unless something newer has been.
    pub(super) fn write(self) -> Result<(), String> {
        let mut written = self.file.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= self.generation {
            return Ok(());
        }
        let path = &self.file.path;
        files::replace(path, &self.content?)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        *written = self.generation;
        Ok(())
    }
}
