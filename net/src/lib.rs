//! Frames between authenticated addresses over QUIC. Knows no Raft and no disk.
