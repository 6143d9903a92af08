//! Power cuts: every outcome that a disk in a given state may have, all of them where they are few, a seeded sample
//! where they are many.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::disk::{Disk, InodeId, SECTOR};
use super::random::Random;

/// What a power cut does with what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is gone.
    LoseAll,
    /// All of it is there.
    KeepAll,
    /// Each sector, length and name goes its own way, by this seed.
    Some(u64),
    /// The same, and sectors may be torn within: the front new, the rest old.
    Torn(u64),
}

/// One thing that a power cut decides.
#[derive(Clone, Debug)]
enum Fact {
    Length(InodeId),
    Sector(InodeId, u64),
    Name(PathBuf),
}

/// Everything that a power cut decides, and between how many outcomes each.
pub(super) struct Facts(Vec<(Fact, u64)>);

impl Facts {
    /// The undecided facts of `disk`. The content of a file that can only have a `tmp-` name is not among them:
    /// nobody reads it after a crash.
    pub(super) fn of(disk: &Disk) -> Self {
        let mut facts = Vec::new();
        for (path, name) in &disk.names {
            if !name.dirty.is_empty() {
                facts.push((Fact::Name(path.clone()), 1 + name.dirty.len() as u64));
            }
        }
        for id in readable_later(disk) {
            let Some(inode) = disk.inodes.get(&id) else { continue };
            if inode.dirty_length {
                facts.push((Fact::Length(id), 2));
            }
            let sectors = inode.dirty.iter();
            facts.extend(
                sectors.map(|(sector, versions)| (Fact::Sector(id, *sector), 1 + versions.len() as u64)),
            );
        }
        Self(facts)
    }

    /// How many outcomes there are; saturates.
    pub(super) fn outcomes(&self) -> u64 {
        self.0.iter().fold(1, |product, (_, choices)| product.saturating_mul(*choices))
    }

    /// Outcome `number` of [`Facts::outcomes`]: 0 loses everything, the last keeps everything.
    pub(super) fn outcome(&self, disk: &Disk, mut number: u64) -> Disk {
        self.decide(disk, |choices| {
            let choice = number % choices;
            number /= choices;
            (choice, SECTOR)
        })
    }

    pub(super) fn cut(&self, disk: &Disk, cut: Cut) -> Disk {
        match cut {
            Cut::LoseAll => self.decide(disk, |_| (0, SECTOR)),
            Cut::KeepAll => self.decide(disk, |choices| (choices - 1, SECTOR)),
            Cut::Some(seed) => {
                let mut random = Random::new(seed);
                self.decide(disk, |choices| (random.below(choices), SECTOR))
            }
            Cut::Torn(seed) => {
                let mut random = Random::new(seed);
                self.decide(disk, |choices| {
                    let whole = random.one_in(2);
                    let bytes = if whole { SECTOR } else { random.below(SECTOR as u64) as usize };
                    (random.below(choices), bytes)
                })
            }
        }
    }

    /// `choose` gets the number of choices and gives one, and how many bytes of a sector got through.
    fn decide(&self, disk: &Disk, mut choose: impl FnMut(u64) -> (u64, usize)) -> Disk {
        let mut after = disk.clone();
        for (fact, choices) in &self.0 {
            let (choice, bytes) = choose(*choices);
            let Some(kept) = choice.checked_sub(1).map(|kept| kept as usize) else { continue };
            match fact {
                Fact::Name(path) => {
                    if let Some(name) = after.names.get_mut(path) {
                        name.durable = name.dirty.get(kept).copied().unwrap_or(name.durable);
                    }
                }
                Fact::Length(id) => {
                    if let Some(inode) = after.inodes.get_mut(id) {
                        inode.settle_length();
                    }
                }
                Fact::Sector(id, sector) => {
                    let Some(inode) = after.inodes.get_mut(id) else { continue };
                    let Some(new) = inode.dirty.get(sector).and_then(|versions| versions.get(kept)) else {
                        continue;
                    };
                    let mut written = inode.durable.sector(*sector);
                    written[..bytes].copy_from_slice(&new[..bytes]);
                    inode.settle(*sector, &written);
                }
            }
        }
        after.forget_cache();
        after
    }
}

/// Inodes that a name other than `tmp-…` may lead to after a cut.
fn readable_later(disk: &Disk) -> BTreeSet<InodeId> {
    let temporary = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("tmp-"))
    };
    disk.names.iter().filter(|(path, _)| !temporary(path)).flat_map(|(_, name)| name.candidates()).collect()
}
