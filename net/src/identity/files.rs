//! Reading and writing the files of identities: keys for their owner's eyes only, nothing ever overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{IdentityError, malformed};

/// No certificate or key of ours comes near it.
const FILE_MAX: u64 = 64 * 1024;

pub(super) const PRIVATE: u32 = 0o600;
pub(super) const PUBLIC: u32 = 0o644;

/// Makes a new file. `AlreadyExists` becomes [`IdentityError::Exists`].
pub(super) fn write_new(path: &Path, mode: u32, content: &str) -> Result<(), IdentityError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => IdentityError::Exists { path: path.into() },
        _ => io("write", path, source),
    })
}

/// Refuses before the first file is written, so that no half identity is left.
pub(super) fn refuse_existing(dir: &Path, files: &[&str]) -> Result<(), IdentityError> {
    match files.iter().map(|file| dir.join(file)).find(|path| path.exists()) {
        Some(path) => Err(IdentityError::Exists { path }),
        None => Ok(()),
    }
}

/// Makes a directory that only its owner may enter, and its parents. One that is there stays as it is.
pub(super) fn make_dir(dir: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| io("make", dir, source))
}

pub(super) fn certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(text(path)?.as_bytes())
        .map_err(|why| malformed(path, "certificate", why.to_string()))
}

/// Reads a private key, unless anybody but its owner may read it.
pub(super) fn read_private(path: &Path) -> Result<String, IdentityError> {
    refuse_open(path, PRIVATE)?;
    text(path)
}

/// Refuses a file or directory that gives anything to group or others.
pub(super) fn refuse_open(path: &Path, wanted: u32) -> Result<(), IdentityError> {
    let mode = fs::metadata(path).map_err(|source| io("read", path, source))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(IdentityError::Permissions { path: path.into(), mode, wanted })
}

pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.into(), source }
}

pub(super) fn text(path: &Path) -> Result<String, IdentityError> {
    let mut content = String::new();
    let file = fs::File::open(path).map_err(|source| io("open", path, source))?;
    file.take(FILE_MAX).read_to_string(&mut content).map_err(|source| io("read", path, source))?;
    Ok(content)
}
