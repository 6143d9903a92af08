//! The development identity: one authority for each user, made at first need, good for loopback addresses only.
//!
//! Everything in its directory is made under a lock (three nodes start at once) and appears by a rename, so that a
//! start that is killed leaves nothing half made. A node's key is kept, because what it derives from it must be the
//! same after a restart; a client's lives in memory.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::files::{self, io};
use super::{Authority, Identity, IdentityError, Role};

const DIR_MODE: u32 = 0o700;

/// Whether `addr` stays within this machine, which is where the development identity is good.
pub fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// The shared development identity of this user, for `role`. No connection is made under it to anything but a loopback address.
///
/// It lives in `RAFTMAP_DEV_DIR`, else in `raftmap/dev` under `XDG_STATE_HOME` or `~/.local/state`, else in a
/// directory of the user's own among the temporary files.
///
/// # Errors
/// [`IdentityError`] when the directory is another user's, is open to others, or cannot be made.
pub fn dev_identity(role: &Role) -> Result<Identity, IdentityError> {
    dev_identity_in(&dev_dir()?, role)
}

pub(super) fn dev_identity_in(dir: &Path, role: &Role) -> Result<Identity, IdentityError> {
    check_dir(dir, own_user()?)?;
    let _held_until_return = lock(dir)?;
    let authority_dir = dir.join("authority");
    if !authority_dir.exists() {
        appear(dir, &authority_dir, |new| Authority::new()?.save(new))?;
    }
    let authority = Authority::load(&authority_dir)?;
    let identity = match role {
        Role::Client(_) => authority.issue(role)?,
        Role::Node(id) => {
            let node_dir = dir.join(format!("node-{id}"));
            if !node_dir.exists() {
                appear(dir, &node_dir, |new| authority.issue_to(role, new))?;
            }
            Identity::load(&node_dir)?
        }
    };
    Ok(identity.kept_to_loopback())
}

/// Fills a directory aside and renames it into place. The caller holds the lock.
fn appear(
    dir: &Path,
    place: &Path,
    fill: impl FnOnce(&Path) -> Result<(), IdentityError>,
) -> Result<(), IdentityError> {
    let new = dir.join("new");
    if new.exists() {
        fs::remove_dir_all(&new).map_err(|source| io("remove", &new, source))?;
    }
    fill(&new)?;
    fs::rename(&new, place).map_err(|source| io("rename", &new, source))
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(files::PRIVATE)
        .open(&path)
        .map_err(|source| io("open", &path, source))?;
    fs2::FileExt::lock_exclusive(&file).map_err(|source| io("lock", &path, source))?;
    Ok(file)
}

/// Another user who owns the directory could swap the authority; one who may read it could be any node.
fn check_dir(dir: &Path, user: u32) -> Result<(), IdentityError> {
    let owner = fs::metadata(dir).map_err(|source| io("read", dir, source))?.uid();
    if owner != user {
        return Err(IdentityError::Owner { path: dir.into(), owner, user });
    }
    files::refuse_open(dir, DIR_MODE)
}

/// Finds the directory's place and makes it there.
fn dev_dir() -> Result<PathBuf, IdentityError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("RAFTMAP_DEV_DIR") {
        return files::make_dir(&dir).map(|()| dir);
    }
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    match state.map(|state| state.join("raftmap/dev")) {
        Some(dir) if files::make_dir(&dir).is_ok() => Ok(dir),
        Some(_) | None => {
            let dir = env::temp_dir().join(format!("raftmap-dev-{}", own_user()?));
            files::make_dir(&dir).map(|()| dir)
        }
    }
}

/// The user that files made by this process belong to.
fn own_user() -> Result<u32, IdentityError> {
    let made = tempfile::tempfile().and_then(|file| file.metadata());
    made.map(|metadata| metadata.uid()).map_err(|source| io("make a file in", &env::temp_dir(), source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::runtime::Handle;

    use super::*;
    use crate::{ClientEndpoint, ConnectError, Limits, ReplyHandler};

    fn own_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(DIR_MODE)).unwrap();
        dir
    }

    #[test]
    fn starts_that_race_agree_on_one_authority() {
        for _ in 0..5 {
            let dir = own_dir();
            let identities: Vec<Identity> = thread::scope(|scope| {
                let start = |id| {
                    scope.spawn({
                        let dir = dir.path();
                        move || dev_identity_in(dir, &Role::Node(id)).unwrap()
                    })
                };
                let starts: Vec<_> = [1, 2, 3, 1, 2, 3].map(start).into_iter().collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            assert!(identities.iter().all(|identity| identity.authority() == identities[0].authority()));
            assert_eq!(identities[0].fingerprint(), identities[3].fingerprint(), "one key for node 1");
        }
    }

    #[test]
    fn a_node_keeps_its_key_and_half_made_directories_do_not_matter() {
        let dir = own_dir();
        let first = dev_identity_in(dir.path(), &Role::Node(1)).unwrap();
        fs::create_dir(dir.path().join("new")).unwrap();
        fs::write(dir.path().join("new/key.pem"), "half").unwrap();
        dev_identity_in(dir.path(), &Role::Node(2)).unwrap();
        let again = dev_identity_in(dir.path(), &Role::Node(1)).unwrap();
        assert_eq!(first.derived_secret("x"), again.derived_secret("x"));
        let client = dev_identity_in(dir.path(), &Role::Client("c".into())).unwrap();
        assert_eq!(client.cluster(), first.cluster());
    }

    struct Nobody;

    impl ReplyHandler for Nobody {
        fn reply(&mut self, _payload: Bytes) {}

        fn closed(&mut self, _reason: String) {}
    }

    #[tokio::test]
    async fn it_is_never_shown_beyond_this_machine() {
        let dir = own_dir();
        let far = "192.0.2.1:7001".parse().unwrap();
        for role in [Role::Node(1), Role::Client("c".into())] {
            let identity = dev_identity_in(dir.path(), &role).unwrap();
            assert_eq!(identity.check_reach("127.0.0.1:7001".parse().unwrap()), Ok(()));
            let endpoint = ClientEndpoint::new(identity, Limits::default(), &Handle::current()).unwrap();
            let hello = Bytes::from_static(b"hello");
            let refusal = endpoint.connect(far, hello, Nobody, Duration::from_millis(100)).await.unwrap_err();
            assert!(matches!(refusal, ConnectError::OutOfReach(_)), "{refusal}");
        }
    }

    #[test]
    fn an_open_or_foreign_directory_is_refused() {
        let dir = own_dir();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let refusal = dev_identity_in(dir.path(), &Role::Node(1)).unwrap_err();
        assert!(
            matches!(refusal, IdentityError::Permissions { mode: 0o750, wanted: 0o700, .. }),
            "{refusal}"
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let user = own_user().unwrap();
        let refusal = check_dir(dir.path(), user + 1).unwrap_err();
        assert!(matches!(refusal, IdentityError::Owner { owner, .. } if owner == user), "{refusal}");
    }

    #[test]
    fn loopback_is_only_this_machine() {
        for (addr, expected) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
            ("[::]:1", false),
        ] {
            assert_eq!(is_loopback(addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
