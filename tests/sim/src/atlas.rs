//! What may be taken from one disk. Nothing that was acknowledged may lose its last good majority, no promise may be
//! forgotten that could elect a second leader: beyond that no cluster can help itself, so no fault goes there but where a
//! test asks for it.

use raftmap::storage::model::ModelFs;
use raftmap::storage::types::{Index, Term};

use crate::node::Node;
use crate::shadow::{Log, Mark};

/// What was done to a node's disk beyond crashes.
#[derive(Debug, Default)]
pub enum Harm {
    #[default]
    None,
    /// The disk holds less than the cache shows: what that means is seen when the cache is gone.
    Latent,
    /// The directory does not open any more. A copy from before the damage is kept.
    Spoiled(ModelFs),
}

/// What a node would find on a disk.
#[derive(Debug)]
pub enum Verdict {
    /// Everything that was durable.
    Whole,
    /// Less, and nothing tells it so.
    Less(Log),
    /// Damage, in words.
    Refused(String),
}

pub fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// What the node in this place would find on `disk`.
pub fn verdict(node: &Node, disk: &ModelFs) -> Verdict {
    let found = node.look(disk).and_then(|recovered| Log::of(&recovered));
    match found {
        Err(words) => Verdict::Refused(words),
        Ok(found) if node.shadow.keeps(&found).is_ok() => Verdict::Whole,
        Ok(found) => Verdict::Less(found),
    }
}

/// Whether the node in this place may go on from there.
pub fn permits(nodes: &[Node], at: usize, committed: &[Mark], verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Whole => true,
        Verdict::Less(found) => spares(nodes, at, committed, found),
        Verdict::Refused(_) => {
            spoiled(nodes).filter(|spoiled| *spoiled != at).count() < (nodes.len() - 1) / 2
        }
    }
}

/// Nodes whose directories do not open.
pub fn spoiled(nodes: &[Node]) -> impl Iterator<Item = usize> {
    nodes.iter().enumerate().filter(|(_, node)| matches!(node.harm, Harm::Spoiled(_))).map(|(at, _)| at)
}

/// Whether the others hold everything that would be forgotten if the node in this place held `found` instead.
fn spares(nodes: &[Node], at: usize, committed: &[Mark], found: &Log) -> bool {
    let others: Vec<&Node> = (0..nodes.len())
        .filter(|other| *other != at && !matches!(nodes[*other].harm, Harm::Spoiled(_)))
        .map(|other| &nodes[other])
        .collect();
    let majority = majority(nodes.len());
    promises(&others, &nodes[at], nodes.len(), found)
        && entries(&others, &nodes[at], committed, found, majority)
}

/// Its term: nobody of an older one may find a majority with it. Its vote: nobody else may find one in that term.
fn promises(others: &[&Node], node: &Node, nodes: usize, found: &Log) -> bool {
    let (had, has) = (node.shadow.durable.hard_state, found.hard_state);
    let beyond =
        |term: Term| others.iter().filter(|other| other.shadow.durable.hard_state.term >= term).count();
    if has.term < had.term && beyond(had.term) < majority(nodes) {
        return false;
    }
    let Some(vote) =
        node.shadow.vote_in(had.term).filter(|vote| has.term < had.term || has.vote != Some(*vote))
    else {
        return true;
    };
    let bound = others.iter().filter(|other| {
        let state = other.shadow.durable.hard_state;
        state.term > had.term || (state.term == had.term && state.vote == Some(vote))
    });
    // Those not bound, with this node's second vote, must be too few.
    nodes - bound.count() < majority(nodes)
}

/// Each entry: a majority has it without this node, or nobody else has, be it on its way to a disk, and so nobody counts it.
fn entries(others: &[&Node], node: &Node, committed: &[Mark], found: &Log, majority: usize) -> bool {
    let durable = &node.shadow.durable;
    let below = (found.base.index.0..durable.base.index.0)
        .map(|at| (Index(at + 1), committed.get(at as usize).copied()));
    let above = durable.entries.from(Index(0)).map(|(index, mark)| (index, Some(mark)));
    below.chain(above).all(|(index, mark)| {
        let Some(mark) = mark else { return false };
        if found.holds(index, mark) {
            return true;
        }
        let holders = others.iter().filter(|other| other.shadow.durable.holds(index, mark)).count();
        let known = others.iter().any(|other| other.shadow.log.holds(index, mark));
        holders >= majority || (holders == 0 && !known && index.0 as usize > committed.len())
    })
}
