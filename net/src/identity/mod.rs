//! Who a process is: a certificate of the cluster's authority, and the name inside it.
//!
//! A certificate carries exactly one name, as a URI: `raftmap://<cluster>/node/<id>` or
//! `raftmap://<cluster>/client/<name>`, where `<cluster>` is 32 lower-case hex digits. Nothing that a peer sends later
//! changes who it is. A node's certificate also holds for the server name [`SERVER_NAME`]; a client's does not, so that
//! a client can never pass for a server.
//!
//! An identity is a directory: `ca.pem` (whom to trust), `cert.pem`, `key.pem` (readable by its owner only). The
//! directory of the authority itself holds `ca.pem` and `ca-key.pem`.
//!
//! Certificates have no end date that a clock could reach: wall clocks never matter to a cluster, and one must not stop
//! because a date went by. A certificate is taken away by making a new cluster authority.

mod authority;
mod dev;
mod files;
mod name;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use authority::{Authority, issue_client, issue_node, new_cluster};
pub use dev::{dev_identity, is_loopback};
pub use name::{ClusterId, Name, Role};

/// The server name that every node's certificate is valid for.
pub const SERVER_NAME: &str = "node.raftmap";

pub(crate) const CA_FILE: &str = "ca.pem";
pub(crate) const CA_KEY_FILE: &str = "ca-key.pem";
pub(crate) const CERT_FILE: &str = "cert.pem";
pub(crate) const KEY_FILE: &str = "key.pem";

/// Why an identity cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there already; nothing was written. Choose another directory.
    #[error("{} exists already and is left as it is; choose another directory", path.display())]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// A private key or its directory is open to other users. Close it.
    #[error("{} has mode {mode:04o} and is open to other users; run: chmod {wanted:04o} {}", path.display(), path.display())]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits now.
        mode: u32,
        /// The permission bits it should have.
        wanted: u32,
    },
    /// The directory of the development identity belongs to another user. Choose another place.
    #[error("{} belongs to user {owner}, not to user {user}; set RAFTMAP_DEV_DIR to a directory of your own", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// A file does not hold what it should. Make the identity again.
    #[error("{} holds no usable {what}: {why}; make it again with: raftmap cert", path.display())]
    Malformed {
        /// The file, or where the bytes came from.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A client's name that cannot stand in a certificate. Choose another.
    #[error("client name {name:?} must have 1 to 64 letters, digits, '.', '_' or '-'; choose another")]
    ClientName {
        /// The name.
        name: String,
    },
    /// Node ids count from 1. Choose another.
    #[error("node id 0 is no id; choose one from 1 on")]
    NodeId,
    /// The identity is another's than the one needed. Name the right directory.
    #[error("identity in {} is {found}, {wanted} is needed; name its directory with --identity", path.display())]
    WrongRole {
        /// The identity's directory.
        path: PathBuf,
        /// Whose it is.
        found: Role,
        /// Whose is needed.
        wanted: Role,
    },
    /// Outside of loopback there is no identity to fall back on. Make one.
    #[error(
        "{addr} is not a loopback address, so an identity is needed: make one with {command} and name it with --identity DIR"
    )]
    Needed {
        /// The address.
        addr: SocketAddr,
        /// The command that makes an identity.
        command: String,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The development identity was about to be shown beyond this machine. Make one for this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{addr} is not a loopback address, and the development identity is good for those only: make one with {command} and name it with --identity DIR"
)]
pub struct OutOfReach {
    addr: SocketAddr,
    command: String,
}

/// A certificate with its key, and the authority that it trusts. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    name: Name,
    fingerprint: [u8; 32],
    authority: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    /// Every process of this user can be anybody by this authority: it says nothing beyond this machine.
    loopback_only: bool,
}

/// The key stays out of logs.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.0.name)
            .field("key", &"redacted")
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` from `dir`.
    ///
    /// # Errors
    /// [`IdentityError`] when a file is missing, is malformed, or is a key that others may read.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (key_path, cert_path, ca_path) = (dir.join(KEY_FILE), dir.join(CERT_FILE), dir.join(CA_FILE));
        let key = files::read_private(&key_path)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|why| malformed(&key_path, "private key", why.to_string()))?;
        let identity = Self::from_der(files::certificate(&ca_path)?, files::certificate(&cert_path)?, key)
            .map_err(|why| malformed(&cert_path, "certificate", why))?;
        identity.check_usable().map_err(|why| malformed(&cert_path, "identity", why))?;
        Ok(identity)
    }

    /// The identity to use towards or at `addr`: the one in `dir` when given, else the shared development identity,
    /// which exists for loopback addresses only.
    ///
    /// # Errors
    /// [`IdentityError::Needed`] without a directory away from loopback, [`IdentityError::WrongRole`] when a node's
    /// identity is not that node's. A client may use any identity.
    pub fn resolve(dir: Option<&Path>, addr: SocketAddr, role: &Role) -> Result<Self, IdentityError> {
        match dir {
            Some(dir) => {
                let identity = Self::load(dir)?;
                match role {
                    Role::Node(_) if identity.role() != role => Err(IdentityError::WrongRole {
                        path: dir.into(),
                        found: identity.role().clone(),
                        wanted: role.clone(),
                    }),
                    Role::Node(_) | Role::Client(_) => Ok(identity),
                }
            }
            None if is_loopback(addr) => dev_identity(role),
            None => Err(IdentityError::Needed { addr, command: command_for(role) }),
        }
    }

    /// Which node or client this is.
    pub fn role(&self) -> &Role {
        &self.0.name.role
    }

    /// The cluster that it belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.0.name.cluster
    }

    /// Cluster and role together.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// 32 bytes that stand for the certificate's public key.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    pub(crate) fn from_der(
        authority: CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let (name, fingerprint) = name::read(&certificate)?;
        Ok(Identity(Arc::new(Inner { name, fingerprint, authority, certificate, key, loopback_only: false })))
    }

    /// The same, good on loopback addresses only.
    fn kept_to_loopback(self) -> Self {
        let Inner { name, fingerprint, authority, certificate, key, loopback_only: _ } = &*self.0;
        Identity(Arc::new(Inner {
            name: name.clone(),
            fingerprint: *fingerprint,
            authority: authority.clone(),
            certificate: certificate.clone(),
            key: key.clone_key(),
            loopback_only: true,
        }))
    }

    /// Whether it may be shown to, and believed of, who is at `addr`.
    pub(crate) fn check_reach(&self, addr: SocketAddr) -> Result<(), OutOfReach> {
        if self.0.loopback_only && !is_loopback(addr) {
            return Err(OutOfReach { addr, command: command_for(self.role()) });
        }
        Ok(())
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.0.authority
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.0.key.clone_key()
    }

    /// A secret of its own for each purpose, the same after a restart.
    pub(crate) fn derived_secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.0.key.secret_der())
    }

    /// Key and certificate belong together, and the authority signs: found at start, not at the first handshake.
    fn check_usable(&self) -> Result<(), String> {
        crate::tls::check(self).map_err(|why| why.to_string())
    }
}

/// The name in a certificate of which nothing is known yet. For tests and fuzzing: a chain is verified before this counts.
#[doc(hidden)]
pub fn read_certificate(der: &[u8]) -> Result<Certified, String> {
    Certified::read(&CertificateDer::from(der))
}

/// Who is on the other side of a connection, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its cluster and role.
    pub name: Name,
    /// 32 bytes that stand for its public key: the same for as long as it keeps its key.
    pub fingerprint: [u8; 32],
}

impl Certified {
    /// Reads the name from a certificate whose chain was verified already.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        name::read(certificate).map(|(name, fingerprint)| Certified { name, fingerprint })
    }
}

fn command_for(role: &Role) -> String {
    match role {
        Role::Node(id) => format!("`raftmap cert node --id {id} --cluster DIR --out DIR`"),
        Role::Client(_) => "`raftmap cert client --name NAME --cluster DIR --out DIR`".into(),
    }
}

fn malformed(path: &Path, what: &'static str, why: String) -> IdentityError {
    IdentityError::Malformed { path: path.into(), what, why }
}
