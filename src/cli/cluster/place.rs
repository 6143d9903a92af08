//! Where a run's data goes: a directory of the caller's, or one of ours that stays only if there is something to look at.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;

/// Where the nodes' data is.
#[derive(Debug)]
pub(crate) enum Place {
    /// The caller's.
    Given(PathBuf),
    /// Ours.
    Temporary(tempfile::TempDir),
}

impl Place {
    /// The given directory, which must be empty, or a temporary one whose name begins with `prefix`.
    pub(crate) fn new(given: Option<&Path>, prefix: &str) -> Result<Self, Failure> {
        let Some(dir) = given else {
            let temporary = tempfile::Builder::new().prefix(prefix).tempdir();
            return temporary.map(Self::Temporary).map_err(|error| {
                Failure::not_done(format!("cannot make a temporary directory: {error}; name one with --dir"))
            });
        };
        // What an older run wrote would be taken for something that nobody sent.
        match is_empty(dir) {
            Ok(true) => Ok(Self::Given(dir.to_owned())),
            Ok(false) => {
                Err(Failure::usage(format!("{} is not empty: name an empty directory", dir.display())))
            }
            Err(error) => Err(Failure::not_done(format!("cannot use {}: {error}", dir.display()))),
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }

    /// Ends its use, and says where it was kept. One of ours is removed if it has `served`.
    pub(crate) fn leave(self, served: bool) -> Option<PathBuf> {
        match self {
            Self::Given(dir) => Some(dir),
            Self::Temporary(_) if served => None,
            Self::Temporary(dir) => Some(dir.keep()),
        }
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    std::fs::create_dir_all(dir)?;
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let fresh = dir.path().join("run");
        assert!(Place::new(Some(&fresh), "").is_ok(), "it is made");
        assert!(Place::new(Some(&fresh), "").is_ok(), "it is still empty");
        std::fs::write(fresh.join("node-1.log"), b"").expect("written");
        assert!(Place::new(Some(&fresh), "").is_err());
    }

    #[test]
    fn data_is_kept_where_there_is_something_to_look_at() {
        let place = Place::new(None, "raftmap-test-").expect("temporary directory");
        let path = place.path().to_owned();
        assert_eq!(place.leave(false).as_deref(), Some(path.as_path()));
        assert!(path.exists());
        std::fs::remove_dir(path).expect("removed");
        let place = Place::new(None, "raftmap-test-").expect("temporary directory");
        let path = place.path().to_owned();
        assert_eq!(place.leave(true), None);
        assert!(!path.exists());
    }
}
