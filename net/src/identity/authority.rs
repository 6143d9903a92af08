//! The cluster's authority: it alone says who is a node and who is a client.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::files::{self, PRIVATE, PUBLIC};
use super::name::{self, ClusterId, Name, Role};
use super::{CA_FILE, CA_KEY_FILE, CERT_FILE, Identity, IdentityError, KEY_FILE, SERVER_NAME, malformed};

/// Makes a new cluster authority in `dir`: `ca.pem`, which every member gets, and `ca-key.pem`, which stays here.
///
/// # Errors
/// [`IdentityError::Exists`] when there is one already, [`IdentityError::Io`] when it cannot be written.
pub fn new_cluster(dir: &Path) -> Result<ClusterId, IdentityError> {
    let authority = Authority::new()?;
    authority.save(dir)?;
    Ok(authority.cluster())
}

/// Makes the identity of node `id` (at least 1) in `out`, signed by the authority in `cluster_dir`.
///
/// # Errors
/// [`IdentityError::Exists`] when `out` holds an identity already, and whatever keeps the authority from being read.
pub fn issue_node(cluster_dir: &Path, id: u64, out: &Path) -> Result<(), IdentityError> {
    Authority::load(cluster_dir)?.issue_to(&Role::Node(id), out)
}

/// Makes the identity of client `name` in `out`, signed by the authority in `cluster_dir`.
///
/// # Errors
/// [`IdentityError::ClientName`] when the name cannot stand in a certificate; otherwise as [`issue_node`].
pub fn issue_client(cluster_dir: &Path, name: &str, out: &Path) -> Result<(), IdentityError> {
    Authority::load(cluster_dir)?.issue_to(&Role::Client(name.into()), out)
}

/// A cluster's authority with its private key.
pub struct Authority {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The key stays out of logs.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .field("key", &"redacted")
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a new key, in memory.
    ///
    /// # Errors
    /// [`IdentityError::Make`] when the system gives no randomness.
    pub fn new() -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let cluster = name::cluster_of(&key.subject_public_key_info());
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("raftmap cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            cluster,
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads `ca.pem` and `ca-key.pem` from `dir`.
    ///
    /// # Errors
    /// [`IdentityError`] when one is missing or malformed, when the key may be read by others, or is another's.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (cert_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
        let key = KeyPair::from_pem(&files::read_private(&key_path)?)
            .map_err(|why| malformed(&key_path, "private key", why.to_string()))?;
        let certificate = files::certificate(&cert_path)?;
        let cluster =
            name::read_authority(&certificate).map_err(|why| malformed(&cert_path, "certificate", why))?;
        if cluster != name::cluster_of(&key.subject_public_key_info()) {
            return Err(malformed(
                &key_path,
                "private key",
                format!("it is not the key of {}", cert_path.display()),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let certificate_pem = files::text(&cert_path)?;
        Ok(Authority { cluster, certificate, certificate_pem, issuer })
    }

    /// Writes the authority into `dir`, which is made when it is missing.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] when there is one already, [`IdentityError::Io`] when it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        files::make_dir(dir)?;
        files::refuse_existing(dir, &[CA_FILE, CA_KEY_FILE])?;
        files::write_new(&dir.join(CA_KEY_FILE), PRIVATE, &self.issuer.key().serialize_pem())?;
        files::write_new(&dir.join(CA_FILE), PUBLIC, &self.certificate_pem)
    }

    /// The cluster it speaks for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// An identity with a new key, in memory.
    ///
    /// # Errors
    /// [`IdentityError::ClientName`] when a client's name cannot stand in a certificate.
    pub fn issue(&self, role: &Role) -> Result<Identity, IdentityError> {
        let (certificate, key) = self.sign(self.cluster, role)?;
        self.identity(certificate.der().clone(), &key)
    }

    /// As [`issue`](Self::issue), but with the name of another cluster in it: what a careless authority might sign.
    #[doc(hidden)]
    pub fn issue_for(&self, cluster: ClusterId, role: &Role) -> Result<Identity, IdentityError> {
        let (certificate, key) = self.sign(cluster, role)?;
        self.identity(certificate.der().clone(), &key)
    }

    /// Writes an identity with a new key into `out`, which is made when it is missing.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] when there is one already, [`IdentityError::Io`] when it cannot be written.
    pub fn issue_to(&self, role: &Role, out: &Path) -> Result<(), IdentityError> {
        self.issue_for_to(self.cluster, role, out)
    }

    /// As [`issue_to`](Self::issue_to), but with the name of another cluster in it.
    ///
    /// # Errors
    /// As there.
    #[doc(hidden)]
    pub fn issue_for_to(&self, cluster: ClusterId, role: &Role, out: &Path) -> Result<(), IdentityError> {
        let (certificate, key) = self.sign(cluster, role)?;
        files::make_dir(out)?;
        files::refuse_existing(out, &[CERT_FILE, KEY_FILE, CA_FILE])?;
        files::write_new(&out.join(KEY_FILE), PRIVATE, &key.serialize_pem())?;
        files::write_new(&out.join(CERT_FILE), PUBLIC, &certificate.pem())?;
        files::write_new(&out.join(CA_FILE), PUBLIC, &self.certificate_pem)
    }

    fn sign(&self, cluster: ClusterId, role: &Role) -> Result<(rcgen::Certificate, KeyPair), IdentityError> {
        let name = Name { cluster, role: role.clone() };
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("raftmap {role}"));
        params.subject_alt_names = vec![SanType::URI(name.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        match role {
            Role::Node(0) => return Err(IdentityError::NodeId),
            Role::Node(_) => {
                params.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into()?));
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            Role::Client(name) if name::is_client_name(name) => {}
            Role::Client(name) => return Err(IdentityError::ClientName { name: name.clone() }),
        }
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    fn identity(
        &self,
        certificate: CertificateDer<'static>,
        key: &KeyPair,
    ) -> Result<Identity, IdentityError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Identity::from_der(self.certificate.clone(), certificate, key)
            .map_err(|why| malformed(Path::new("new certificate"), "certificate", why))
    }
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
