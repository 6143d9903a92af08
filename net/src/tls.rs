//! TLS 1.3 on both sides of every connection, and QUIC with numbers of our own instead of the open internet's.
//!
//! The handshake proves that both certificates come from the cluster's authority and that the server is a node. What
//! the certificate says beyond that is checked by [`admit`] right after it, before a byte of the stream is read.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, version};
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::{Certified, Identity, Role};
use crate::limits::Limits;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// Node to node.
    Peer,
    /// Client (or node as a client) to node.
    Client,
}

impl Alpn {
    const ALL: [Alpn; 2] = [Alpn::Peer, Alpn::Client];

    fn name(self) -> &'static [u8] {
        match self {
            Alpn::Peer => b"raftmap-peer/1",
            Alpn::Client => b"raftmap-client/1",
        }
    }
}

/// Why an identity gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate, key or authority do not fit together.
    #[error("certificate and key do not fit together")]
    Rustls(#[from] rustls::Error),
    /// The authority's certificate is no usable root.
    #[error("the authority's certificate is no usable root")]
    Root(#[from] rustls::client::VerifierBuilderError),
    /// Never with the cipher suites that are built in.
    #[error("no cipher suite for the first packets")]
    Initial(#[from] NoInitialCipherSuite),
}

/// Why a connection is refused although its handshake succeeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate names another cluster than ours.
    #[error("it belongs to cluster {theirs}, this side to {ours}")]
    Cluster {
        /// Their cluster.
        theirs: crate::ClusterId,
        /// Our cluster.
        ours: crate::ClusterId,
    },
    /// The certificate's role may not do what this connection is for.
    #[error("its certificate is for {found}, {wanted} is needed here")]
    Role {
        /// What its certificate says.
        found: Role,
        /// What would be accepted.
        wanted: String,
    },
    /// The certificate cannot be read.
    #[error("its certificate has no usable name: {0}")]
    Name(String),
    /// The other side speaks no protocol of ours.
    #[error("it speaks no protocol of this side")]
    Protocol,
}

/// The protocol and the name of the other side of an established connection.
pub(crate) fn admit(connection: &quinn::Connection, ours: &Identity) -> Result<(Alpn, Certified), Refusal> {
    let alpn = protocol(connection).ok_or(Refusal::Protocol)?;
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| Refusal::Name("it showed no certificate".into()))?;
    let leaf = chain.first().ok_or_else(|| Refusal::Name("it showed no certificate".into()))?;
    let certified = Certified::read(leaf).map_err(Refusal::Name)?;
    let (theirs, ours) = (certified.name.cluster, ours.cluster());
    if theirs != ours {
        return Err(Refusal::Cluster { theirs, ours });
    }
    Ok((alpn, certified))
}

/// The node id of the other side, which must be a node.
pub(crate) fn require_node(certified: &Certified, wanted: Option<u64>) -> Result<u64, Refusal> {
    match (&certified.name.role, wanted) {
        (Role::Node(id), None) => Ok(*id),
        (Role::Node(id), Some(wanted)) if *id == wanted => Ok(*id),
        (found, Some(wanted)) => {
            Err(Refusal::Role { found: found.clone(), wanted: Role::Node(wanted).to_string() })
        }
        (found, None) => Err(Refusal::Role { found: found.clone(), wanted: "a node".into() }),
    }
}

fn protocol(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let name = data.protocol?;
    Alpn::ALL.into_iter().find(|alpn| alpn.name() == name)
}

/// Both protocols on one port.
pub(crate) fn server_config(
    identity: &Identity,
    limits: &Limits,
    local: bool,
) -> Result<ServerConfig, TlsError> {
    let crypto = QuicServerConfig::try_from(rustls_server(identity)?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    // The dialling side keeps the connection alive; its signs of life are answered.
    let mut transport = transport(limits, None, local);
    if !bug!(34) {
        transport.receive_window(VarInt::from_u32(STRANGER_RECEIVE_WINDOW));
    }
    config.transport_config(Arc::new(transport));
    config.migration(false).max_incoming(limits.handshakes);
    config.incoming_buffer_size(64 * 1024).incoming_buffer_size_total(1024 * 1024);
    config.retry_token_lifetime(Duration::from_secs(5));
    Ok(config)
}

pub(crate) fn client_config(
    identity: &Identity,
    alpn: Alpn,
    limits: &Limits,
    local: bool,
) -> Result<ClientConfig, TlsError> {
    let crypto = QuicClientConfig::try_from(rustls_client(identity, alpn)?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(limits, Some(limits.keep_alive), local)));
    Ok(config)
}

/// Whether certificate, key and authority fit together.
pub(crate) fn check(identity: &Identity) -> Result<(), TlsError> {
    rustls_client(identity, Alpn::Client).map(|_| ())
}

fn rustls_server(identity: &Identity) -> Result<rustls::ServerConfig, TlsError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider.clone()).build()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate().clone()], identity.key())?;
    config.alpn_protocols = Alpn::ALL.map(|alpn| alpn.name().to_vec()).to_vec();
    // No resumption and so no 0-RTT: what a replayed first flight could do need not be thought about.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn rustls_client(identity: &Identity, alpn: Alpn) -> Result<rustls::ClientConfig, TlsError> {
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider.clone()).build()?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.key())?;
    config.alpn_protocols = vec![alpn.name().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// AES-128 first: it is the fastest of the three and beyond reach all the same.
fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority().clone())?;
    Ok(Arc::new(roots))
}

/// At most this many packets go to the kernel in one call (quinn's number), and one call carries at most 64 KiB.
const SEGMENTS: u16 = 10;
const MTU_LOCAL: u16 = 65_000 / SEGMENTS;
const MTU_REMOTE: u16 = 1452;
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What a clerk's connection may use, and a node's may send on, until it is known to be a peer's.
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// What whoever dials a node may have on its way there until it is known to be a peer. As much again may have been taken
/// from there of a request that is not whole.
const STRANGER_RECEIVE_WINDOW: u32 = 64 * 1024;
/// Streams of each kind that a peer may open.
const PEER_STREAMS: u32 = 4;
const PEER_RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;
const PEER_SEND_WINDOW: u64 = 8 * 1024 * 1024;

/// Gives a peer's connection the room that a client does not get.
pub(crate) fn widen_for_peer(connection: &quinn::Connection) {
    if bug!(34) {
        return;
    }
    connection.set_receive_window(VarInt::from_u32(PEER_RECEIVE_WINDOW));
    connection.set_send_window(PEER_SEND_WINDOW);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(PEER_STREAMS));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS));
}

/// Lets a request of this length come as fast as it can, and no more than that: a window that shrinks takes nothing back,
/// but what is read then gives nothing new until it is as small again.
pub(crate) fn widen_for_request(connection: &quinn::Connection, length: usize) {
    if bug!(34) {
        return;
    }
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    connection.set_receive_window(VarInt::from_u32(STRANGER_RECEIVE_WINDOW.saturating_add(length)));
    connection.set_receive_window(VarInt::from_u32(STRANGER_RECEIVE_WINDOW));
}

fn transport(limits: &Limits, keep_alive: Option<Duration>, local: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    if bug!(34) {
        config.max_idle_timeout(limits.idle.try_into().ok()).keep_alive_interval(keep_alive);
        return config;
    }
    config
        // The one that a client needs.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_idle_timeout(limits.idle.try_into().ok())
        .keep_alive_interval(keep_alive)
        .initial_rtt(Duration::from_millis(20))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(limits.segmentation_offload)
        .allow_spin(false)
        .crypto_buffer_size(16 * 1024)
        .mtu_discovery_config(Some(mtu_discovery(local)))
        .ack_frequency_config(Some(ack_frequency()));
    config
}

/// Loopback carries packets of 64 KiB, and each one costs the same; elsewhere Ethernet's size is the most.
fn mtu_discovery(local: bool) -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(if local { MTU_LOCAL } else { MTU_REMOTE });
    config
}

/// Fewer acknowledgements than one for every other packet: each is a packet to seal, send, receive and open.
fn ack_frequency() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(10)).max_ack_delay(Some(Duration::from_millis(5)));
    config
}

/// The endpoint's own settings. A reset key that outlives the process lets peers notice at once that it was restarted.
pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let mut config =
        EndpointConfig::new(Arc::new(ResetKey(identity.derived_secret("raftmap stateless reset"))));
    // Ids without a check sum: those of an earlier life must not look foreign, or they would get no reset.
    config.cid_generator(|| Box::new(quinn_proto::RandomConnectionIdGenerator::new(8)));
    // Above 1200, as it is: `MTU_LOCAL` is a constant.
    let _ = config.max_udp_payload_size(MTU_LOCAL);
    config
}

/// Makes and checks reset tokens.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = blake3::keyed_hash(&self.0, data);
        signature_out.iter_mut().zip(signature.as_bytes()).for_each(|(out, byte)| *out = *byte);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; blake3::OUT_LEN] = signature.try_into().map_err(|_| CryptoError)?;
        // The comparison of `blake3::Hash` takes the same time wherever they differ.
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// A bound socket with buffers that hold a burst. Returns the smaller buffer when the system gave less than wanted.
pub(crate) fn bind(addr: SocketAddr, wanted: usize) -> std::io::Result<(UdpSocket, Option<usize>)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(wanted)?;
    socket.set_send_buffer_size(wanted)?;
    socket.bind(&addr.into())?;
    let got = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    Ok((socket.into(), (got < wanted).then_some(got)))
}
