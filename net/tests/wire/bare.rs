//! A bare QUIC client that does what ours never would, with any certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint};
use raftmap_net::{frame, identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) const PEER: &[u8] = b"raftmap-peer/1";
pub(crate) const CLIENT: &[u8] = b"raftmap-client/1";
pub(crate) const HELLO: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
#[allow(dead_code, reason = "of the tests that share this file, one needs it")]
pub(crate) const REPLY: u8 = 3;

/// What somebody shows who knocks.
pub(crate) type Shown = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// The certificate and key in a directory.
pub(crate) fn shown(dir: &Path) -> Shown {
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    Some((certificate, PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap()))
}

/// A certificate of this authority for whoever has this name, good between these years only.
pub(crate) fn dated(authority: &Path, name: &str, (from, to): (i32, i32)) -> Shown {
    let key = std::fs::read_to_string(authority.join("ca-key.pem")).unwrap();
    let certificate = CertificateDer::from_pem_file(authority.join("ca.pem")).unwrap();
    let issuer =
        rcgen::Issuer::from_ca_cert_der(&certificate, rcgen::KeyPair::from_pem(&key).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Some((certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
}

/// TLS as a client of this authority would do it; early data is tried if the server ever offers it.
pub(crate) fn tls(authority: &Path, shown: Shown, alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = true;
    config
}

/// With signs of life: should the packet that closes the connection be lost, the next one brings the answer again.
pub(crate) fn quic(tls: rustls::ClientConfig) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(300)));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}

/// Knocks from a port of its own.
pub(crate) async fn knock(
    config: quinn::ClientConfig,
    addr: SocketAddr,
) -> Result<Connection, ConnectionError> {
    knock_from(&Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap(), config, addr).await
}

/// Knocks from a port that is there: each port takes megabytes for its buffers.
pub(crate) async fn knock_from(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    addr: SocketAddr,
) -> Result<Connection, ConnectionError> {
    let connection = endpoint.connect_with(config, addr, identity::SERVER_NAME).unwrap().await?;
    // With TLS 1.3 the server's verdict on our certificate comes after our handshake's end.
    let _ = tokio::time::timeout(Duration::from_millis(50), connection.closed()).await;
    match connection.close_reason() {
        Some(error) => Err(error),
        None => Ok(connection),
    }
}

/// Whether a connection ended with these words. On a busy machine the last packet, which has them, may be lost or read
/// together with a reset of the connection that the server has forgotten by then.
pub(crate) fn says(end: &str, words: &str) -> bool {
    end.contains(words) || end == "reset by peer"
}

pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame::header(kind, &[Bytes::copy_from_slice(payload)]).unwrap().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}
