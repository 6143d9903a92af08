//! Frames between authenticated addresses over QUIC. Knows no Raft and no disk.
#![forbid(unsafe_code)]

pub mod frame;
pub mod identity;
mod limits;
mod tls;

pub use identity::{Authority, Certified, ClusterId, Identity, IdentityError, Name, Role};
pub use limits::{Limits, LimitsError};
pub use tls::{Refusal, TlsError};
