//! The NODE file: whose directory this is. Published last when a directory is made, never written again.
//!
//! | offset | bytes | field          | note                        |
//! |--------|-------|----------------|-----------------------------|
//! | 0      | 8     | magic          | `RAFTNODE`                  |
//! | 8      | 4     | format version | 1                           |
//! | 12     | 4     | reserved       | 0                           |
//! | 16     | 16    | disk id        | random, drawn with the file |
//! | 32     | 16    | cluster id     |                             |
//! | 48     | 8     | node id        |                             |
//! | 56     | 4     | reserved       | 0                           |
//! | 60     | 4     | crc            | CRC-32 of bytes 0..60       |

use std::path::Path;

use crate::error::OpenError;
use crate::fs::{File, Fs, read_exact_at, write_all_at};
use crate::types::{ClusterId, DiskId, NodeId};

/// The file's name.
pub(crate) const NAME: &str = "NODE";
const LEN: usize = 64;
const MAGIC: [u8; 8] = *b"RAFTNODE";
const VERSION: u32 = 1;

/// Whose log a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub node: NodeId,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeFile {
    pub(crate) disk: DiskId,
    pub(crate) identity: Identity,
}

impl NodeFile {
    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.disk.0);
        bytes[32..48].copy_from_slice(&self.identity.cluster.0);
        bytes[48..56].copy_from_slice(&self.identity.node.0.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; LEN], path: &Path) -> Result<Self, OpenError> {
        let mut crc = [0; 4];
        crc.copy_from_slice(&bytes[60..64]);
        if crc32fast::hash(&bytes[..60]) != u32::from_le_bytes(crc) {
            return Err(OpenError::damaged(path, 0, "the file does not match its checksum"));
        }
        if bytes[0..8] != MAGIC {
            return Err(OpenError::damaged(path, 0, "wrong magic"));
        }
        let mut version = [0; 4];
        version.copy_from_slice(&bytes[8..12]);
        let found = u32::from_le_bytes(version);
        if found != VERSION {
            return Err(OpenError::Version { path: path.to_owned(), found, supported: VERSION });
        }
        let (mut disk, mut cluster, mut node) = (DiskId::default(), ClusterId::default(), [0; 8]);
        disk.0.copy_from_slice(&bytes[16..32]);
        cluster.0.copy_from_slice(&bytes[32..48]);
        node.copy_from_slice(&bytes[48..56]);
        Ok(Self { disk, identity: Identity { cluster, node: NodeId(u64::from_le_bytes(node)) } })
    }
}

/// Publishes the file: sync, rename, directory sync.
pub(crate) fn write<F: Fs>(fs: &F, dir: &Path, node: &NodeFile) -> Result<(), OpenError> {
    let path = dir.join(NAME);
    let temp = fs.temp(dir).map_err(OpenError::io("make", &path))?;
    write_all_at(&temp, &node.encode(), 0).map_err(OpenError::io("write", &path))?;
    temp.sync_data().map_err(OpenError::io("sync", &path))?;
    fs.persist(temp, &path).map_err(OpenError::io("name", &path))?;
    fs.sync_dir(dir).map_err(OpenError::io("sync", dir))
}

/// Reads the file, which exists.
pub(crate) fn read<F: Fs>(fs: &F, dir: &Path) -> Result<NodeFile, OpenError> {
    let path = dir.join(NAME);
    let file = fs.open(&path, false).map_err(OpenError::io("open", &path))?;
    let len = file.len().map_err(OpenError::io("read", &path))?;
    if len != LEN as u64 {
        return Err(OpenError::damaged(&path, len.min(LEN as u64), format!("{len} bytes instead of {LEN}")));
    }
    let mut bytes = [0; LEN];
    read_exact_at(&file, &mut bytes, 0).map_err(OpenError::io("read", &path))?;
    NodeFile::decode(&bytes, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_these_bytes_and_no_flipped_bit_passes() {
        let identity = Identity { cluster: ClusterId([0xC1; 16]), node: NodeId(7) };
        let node = NodeFile { disk: DiskId([0xD5; 16]), identity };
        let bytes = node.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "524146544e4f44450100000000000000d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5d5\
             c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1070000000000000000000000e9927c2a"
        );
        assert_eq!(NodeFile::decode(&bytes, Path::new("NODE")).unwrap(), node);
        for bit in 0..LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(NodeFile::decode(&bad, Path::new("NODE")).is_err(), "bit {bit}");
        }
    }
}
