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

/// What somebody shows who knocks.
pub(crate) type Shown = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// The certificate and key in a directory.
pub(crate) fn shown(dir: &Path) -> Shown {
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    Some((certificate, PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap()))
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

pub(crate) fn quic(tls: rustls::ClientConfig) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Knocks from a port of its own.
pub(crate) async fn knock(
    config: quinn::ClientConfig,
    addr: SocketAddr,
) -> Result<Connection, ConnectionError> {
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
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
