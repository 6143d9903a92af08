//! The name in a certificate, as text and back, and nothing else that looks like one.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "raftmap://";
const CLIENT_NAME_MAX: usize = 64;

/// Which cluster: 16 bytes, made from the public key of its authority. Shown as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClusterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        match u128::from_str_radix(text, 16) {
            Ok(id) if text.len() == 32 && text.bytes().all(digits) => Ok(ClusterId(id.to_be_bytes())),
            _ => Err(format!("cluster id {text:?} is not 32 lower-case hex digits")),
        }
    }
}

/// What a certificate lets its holder be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A member of the cluster, by its id, at least 1. May also speak as a client.
    Node(u64),
    /// A client, by a name of 1 to 64 letters, digits, '.', '_' or '-'.
    Client(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Node(id) => write!(f, "node/{id}"),
            Role::Client(name) => write!(f, "client/{name}"),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = match text.split_once('/') {
            Some(("node", id)) => id.parse().ok().filter(|id| *id > 0).map(Role::Node),
            Some(("client", name)) if is_client_name(name) => Some(Role::Client(name.into())),
            _ => None,
        };
        // Written back it must be the same text: "007" and "+7" are not node 7.
        role.filter(|role| role.to_string() == text)
            .ok_or_else(|| format!("role {text:?} is neither node nor client"))
    }
}

/// Cluster and role: everything that a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Who in it.
    pub role: Role,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.cluster, self.role)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest =
            text.strip_prefix(SCHEME).ok_or_else(|| format!("{text:?} does not start with {SCHEME}"))?;
        let (cluster, role) = rest.split_once('/').ok_or_else(|| format!("{text:?} names no role"))?;
        Ok(Name { cluster: cluster.parse()?, role: role.parse()? })
    }
}

pub(super) fn is_client_name(name: &str) -> bool {
    (1..=CLIENT_NAME_MAX).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// The name and the fingerprint of a certificate.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<(Name, [u8; 32]), String> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|why| why.to_string())?;
    if !rest.is_empty() {
        return Err("bytes after the certificate".into());
    }
    let name = the_only_uri(&parsed)?.parse()?;
    Ok((name, *blake3::hash(parsed.public_key().raw).as_bytes()))
}

/// The name of the cluster that an authority's certificate is for.
pub(super) fn read_authority(certificate: &CertificateDer<'_>) -> Result<ClusterId, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|why| why.to_string())?;
    Ok(cluster_of(parsed.public_key().raw))
}

/// A cluster is named by its authority's key: two authorities are never the same cluster.
pub(super) fn cluster_of(public_key_info: &[u8]) -> ClusterId {
    let mut id = [0; 16];
    blake3::Hasher::new_derive_key("raftmap cluster id").update(public_key_info).finalize_xof().fill(&mut id);
    ClusterId(id)
}

/// Two names in one certificate would let its holder choose; so there is one or there is none.
fn the_only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|why| why.to_string())?
        .ok_or("certificate has no alternative name")?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err("certificate has no URI name".into()),
        (Some(_), Some(_)) => Err("certificate has more than one URI name".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "00112233445566778899aabbccddeeff";

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        let uri = |uri: &&str| rcgen::SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn a_certificate_has_exactly_one_name() {
        let (one, two) = (format!("raftmap://{CLUSTER}/node/1"), format!("raftmap://{CLUSTER}/client/eve"));
        let (name, fingerprint) = read(&certificate(&[&one])).unwrap();
        assert_eq!(name.to_string(), one);
        assert_ne!(read(&certificate(&[&one])).unwrap().1, fingerprint, "another key is another print");
        assert!(read(&certificate(&[&one, &two])).unwrap_err().contains("more than one"));
        assert!(read(&certificate(&[])).is_err());
        assert!(read(&certificate(&["https://example.org/node/1"])).is_err());
    }

    #[test]
    fn damaged_certificates_are_refused_or_read_but_never_panic() {
        let sound = certificate(&[&format!("raftmap://{CLUSTER}/node/1")]);
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The chain's signature would refuse it before; here only reading is tried.
            let _ = read(&CertificateDer::from(damaged));
        }
        for cut in 0..sound.len() {
            assert!(read(&CertificateDer::from(sound[..cut].to_vec())).is_err());
        }
        assert!(read(&CertificateDer::from([&sound[..], &[0]].concat())).is_err());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for role in ["node/1", "node/18446744073709551615", "client/alice", "client/a.b_c-9"] {
            let text = format!("raftmap://{CLUSTER}/{role}");
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_only_resembles_a_name_is_none() {
        for role in [
            "node/0",
            "node/007",
            "node/+7",
            "node/-1",
            "node/18446744073709551616",
            "node/",
            "node",
            "client/",
            "client/a/b",
            "client/a b",
            "Node/1",
            "admin/1",
            "node/1/",
            "",
        ] {
            assert!(format!("raftmap://{CLUSTER}/{role}").parse::<Name>().is_err(), "{role:?} passed");
        }
        for cluster in
            ["", "0011", &CLUSTER.to_uppercase(), &format!("{CLUSTER}0"), "+0112233445566778899aabbccddeef"]
        {
            assert!(format!("raftmap://{cluster}/node/1").parse::<Name>().is_err(), "{cluster:?} passed");
        }
        assert!(format!("http://{CLUSTER}/node/1").parse::<Name>().is_err());
    }
}
