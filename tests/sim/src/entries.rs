//! Log Matching over all logs of a world, and all lives of its nodes (Raft paper 5.3): an index and a term tell an
//! entry's bytes, and the entry before it; so by induction they tell everything before it.

use std::collections::BTreeMap;

use raftmap::storage::types::{Entry, Index, NodeId, Term};

use crate::shadow::{Log, Mark};

/// Every entry that was ever written: its checksum, and the term of the one before it where that was known.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<(Index, Term), (u32, Option<Term>)>);

impl Entries {
    /// A node that is alone leads before its vote is durable, as nobody else need hear of it: a crash may forget the
    /// term, and what was written in it.
    pub fn forget_above(&mut self, term: Term) {
        self.0.retain(|(_, of), _| *of <= term);
    }

    /// A node writes these; `log` is its log with them.
    pub fn written(&mut self, id: NodeId, log: &Log, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let (index, term) = (entry.position.index, entry.position.term);
            let before = log.term_at(index.prev());
            let (crc, first) = self.0.entry((index, term)).or_insert((entry.payload_crc, before));
            if *crc != entry.payload_crc {
                return Err(format!(
                    "{id} writes another entry {index} of term {term} than a node before it"
                ));
            }
            match (*first, before) {
                (Some(first), Some(before)) if first != before => {
                    return Err(format!(
                        "{id} writes entry {index} of term {term} behind one of term {before}, others behind {first}"
                    ));
                }
                (None, before) => *first = before,
                (Some(_), _) => {}
            }
        }
        Ok(())
    }
}

/// Leader Completeness (Raft paper 5.4): whoever leads has everything that was committed in earlier terms.
pub fn complete(
    id: NodeId,
    term: Term,
    log: &Log,
    committed: &[Mark],
    committed_in: &[Term],
) -> Result<(), String> {
    let from = log.base.index.0 as usize;
    for (at, (mark, when)) in committed.iter().zip(committed_in).enumerate().skip(from) {
        let index = Index(at as u64 + 1);
        if *when < term && !log.holds(index, *mark) {
            return Err(format!("{id} leads in term {term} without entry {index}, committed in term {when}"));
        }
    }
    Ok(())
}
