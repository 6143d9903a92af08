//! The first words of every connection between members: who speaks, what it understands, whose log it holds.

use serde::{Deserialize, Serialize};

use bytes::Bytes;
use raftmap_storage::types::{ClusterId, DiskId, NodeId};

use super::WireError;
use crate::codec::{self, text};

/// The one protocol that this version speaks.
pub const PROTOCOL: u32 = 1;
/// Most bytes of a hello.
const HELLO_MAX: usize = 64 * 1024;

/// A member introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol it understands.
    pub protocol_min: u32,
    /// The newest protocol it understands.
    pub protocol_max: u32,
    /// Optional abilities, a bit each; none so far. Unknown bits are ignored.
    pub features: u64,
    /// Its cluster; must be the certificate's as well.
    pub cluster: ClusterId,
    /// Its id; must be the certificate's as well.
    pub node: NodeId,
    /// The log directory it runs from.
    pub disk: DiskId,
    /// How often it has been started from that directory.
    pub boot: u64,
    /// The Raft group; 0, the only one so far.
    pub group: u64,
    /// BLAKE3 of the bootstrap entry: equal on all members, or their logs differ from the first byte.
    pub bootstrap: [u8; 32],
    /// The members and limits in words, to print both sides of a mismatch.
    #[serde(with = "text")]
    pub terms: String,
}

impl Hello {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes, WireError> {
        super::encode("hello", self, HELLO_MAX)
    }

    /// Reads one back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        codec::decode(bytes, HELLO_MAX)
            .map_err(|_| WireError::Malformed { what: "hello", length: bytes.len() })
    }

    /// Whether `theirs` may talk to us; the refusal names what differs, ours first.
    pub fn check(&self, theirs: &Self, authenticated: NodeId) -> Result<(), String> {
        if theirs.node != authenticated {
            return Err(format!("certificate of node {authenticated}, hello of node {}", theirs.node));
        }
        if theirs.protocol_min > self.protocol_max || theirs.protocol_max < self.protocol_min {
            return Err(format!(
                "we speak protocols {} to {}, node {} speaks {} to {}: upgrade the older one",
                self.protocol_min, self.protocol_max, theirs.node, theirs.protocol_min, theirs.protocol_max
            ));
        }
        if theirs.cluster != self.cluster {
            return Err(format!(
                "we are cluster {}, node {} is of {}",
                self.cluster, theirs.node, theirs.cluster
            ));
        }
        if theirs.group != self.group {
            return Err(format!("we are group {}, node {} is of {}", self.group, theirs.node, theirs.group));
        }
        if theirs.bootstrap != self.bootstrap {
            return Err(format!(
                "the clusters were started on different terms: ours {}; node {}'s {}",
                self.terms, theirs.node, theirs.terms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 2,
            features: 0,
            cluster: ClusterId([1; 16]),
            node: NodeId(2),
            disk: DiskId([2; 16]),
            boot: 1,
            group: 0,
            bootstrap: [3; 32],
            terms: "nodes 1 2".into(),
        }
    }

    #[track_caller]
    fn refuse(change: impl FnOnce(&mut Hello), words: &[&str]) {
        let mut theirs = hello();
        change(&mut theirs);
        let refusal = hello().check(&theirs, NodeId(2)).expect_err("it differs");
        assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
    }

    #[test]
    fn whoever_differs_is_told_how() {
        assert_eq!(hello().check(&hello(), NodeId(2)), Ok(()));
        refuse(|theirs| theirs.node = NodeId(3), &["certificate of node 2", "hello of node 3"]);
        refuse(|theirs| theirs.protocol_min = 3, &["1 to 2", "speaks 3 to"]);
        refuse(|theirs| theirs.protocol_max = 0, &["1 to 2", "to 0"]);
        refuse(|theirs| theirs.cluster = ClusterId([9; 16]), &["0101", "0909"]);
        refuse(|theirs| theirs.group = 4, &["group 0", "of 4"]);
        let other = |theirs: &mut Hello| {
            theirs.bootstrap = [4; 32];
            theirs.terms = "nodes 1 2 3".into();
        };
        refuse(other, &["ours nodes 1 2;", "nodes 1 2 3"]);
    }

    #[test]
    fn a_newer_member_that_still_speaks_ours_is_welcome() {
        let theirs = Hello { protocol_min: 2, protocol_max: 9, features: 1 << 60, ..hello() };
        assert_eq!(hello().check(&theirs, NodeId(2)), Ok(()));
    }
}
