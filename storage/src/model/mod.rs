//! A disk in memory that does what disks do: it loses, keeps and tears what was not synced, fails calls, runs full,
//! flips bits. For tests, fuzzing and the simulator; behind the feature `model`, so never in a release.
//!
//! A [`ModelFs`] is a handle; clones share the disk. Crashes do not touch it: [`ModelFs::kill`], [`ModelFs::cut`] and
//! [`ModelFs::cuts`] give new disks, as they would be found afterwards, with every lock free, no faults on order and
//! the calls counted from 0. So one run can be crashed at each of its calls: [`ModelFs::keep_photos`].
//!
//! What it assumes: a 512-byte sector is written whole or not at all (unless tearing is asked for) and harms no
//! neighbour; a completed sync holds. Names, lengths and sectors survive or go independently of each other.

mod calls;
mod crash;
mod disk;
mod fault;
mod image;
mod random;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash::Cut;
use crash::Facts;
pub use disk::SECTOR;
use disk::{Disk, Inode, InodeId};
use fault::Plan;
pub use fault::{Effect, Fault, Op};
pub use random::Random;

/// Struck calls that are remembered: a lasting fault strikes for ever.
const STRUCK_MAX: usize = 64;

/// A handle on a model disk.
#[derive(Clone, Debug)]
pub struct ModelFs {
    state: Arc<Mutex<State>>,
}

/// An open file.
#[derive(Debug)]
pub struct ModelFile {
    fs: ModelFs,
    inode: InodeId,
    path: PathBuf,
    writable: bool,
}

/// A file without its final name; unlinked when dropped.
#[derive(Debug)]
pub struct ModelTemp {
    file: ModelFile,
    persisted: bool,
}

/// A held lock; free again when dropped.
#[derive(Debug)]
pub struct ModelLock {
    fs: ModelFs,
    path: PathBuf,
}

/// One call, as it went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The call's number, from 1.
    pub number: u64,
    /// Its kind.
    pub op: Op,
    /// The file or directory.
    pub path: PathBuf,
    /// For reads and writes: where and how much.
    pub range: Option<(u64, usize)>,
    /// What befell it, if a fault was on order.
    pub effect: Option<Effect>,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    plan: Plan,
    random: Random,
    quota: Option<u64>,
    /// A write found no room, since the last question.
    met_quota: bool,
    locked: BTreeSet<PathBuf>,
    calls: u64,
    counts: BTreeMap<Op, u64>,
    temps: u64,
    struck: Vec<(Op, Effect)>,
    trace: Option<Vec<Step>>,
    photos: Option<Vec<(u64, Disk)>>,
}

impl ModelFs {
    /// An empty disk. The seed decides entropy, and how far failing writes get.
    pub fn new(seed: u64) -> Self {
        Self::with(Disk::default(), Random::new(seed), None)
    }

    fn with(disk: Disk, random: Random, quota: Option<u64>) -> Self {
        let state = State {
            disk,
            plan: Plan::default(),
            random,
            quota,
            met_quota: false,
            locked: BTreeSet::new(),
            calls: 0,
            counts: BTreeMap::new(),
            temps: 0,
            struck: Vec::new(),
            trace: None,
            photos: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new disk, with `change` of this one's content.
    fn fork(&self, change: impl FnOnce(&Disk, &mut Random) -> Disk) -> Self {
        let mut state = self.state();
        let mut random = Random::new(state.random.next_u64());
        let disk = change(&state.disk, &mut random);
        Self::with(disk, random, state.quota)
    }

    /// The process is killed: the cache survives with all that was never synced, temporary files stay, locks are free.
    pub fn kill(&self) -> Self {
        self.fork(|disk, _| disk.clone())
    }

    /// As [`ModelFs::kill`], and meanwhile clean pages left the cache of some files: where a failed sync dropped
    /// bytes, readers now see what the disk holds.
    pub fn kill_and_evict(&self) -> Self {
        self.fork(|disk, random| {
            let mut disk = disk.clone();
            disk.evict_some(random);
            disk
        })
    }

    /// The power is cut.
    pub fn cut(&self, cut: Cut) -> Self {
        self.fork(|disk, _| Facts::of(disk).cut(disk, cut))
    }

    /// The outcomes of a power cut: all of them if there are at most `bound`, otherwise losing all, keeping all, and a
    /// sample by `seed`, `bound` together.
    pub fn cuts(&self, bound: u64, seed: u64) -> impl Iterator<Item = Self> + use<> {
        let disk = self.state().disk.clone();
        let facts = Facts::of(&disk);
        let outcomes = facts.outcomes();
        let mut random = Random::new(seed);
        let this = self.clone();
        (0..outcomes.min(bound)).map(move |number| {
            let after = match number {
                number if outcomes <= bound => facts.outcome(&disk, number),
                0 => facts.cut(&disk, Cut::LoseAll),
                1 => facts.cut(&disk, Cut::KeepAll),
                _ => facts.cut(&disk, Cut::Some(random.next_u64())),
            };
            this.fork(|_, _| after)
        })
    }

    /// How many outcomes a power cut may have now; saturates.
    pub fn outcomes(&self) -> u64 {
        Facts::of(&self.state().disk).outcomes()
    }

    /// From now on the disk is remembered as it is behind each call that changes it.
    pub fn keep_photos(&self) {
        let mut state = self.state();
        state.photos = Some(vec![(state.calls, state.disk.clone())]);
    }

    /// The disks remembered, oldest first, each with the number of calls made by then. The first is the one at
    /// [`ModelFs::keep_photos`]. No more are taken.
    pub fn take_photos(&self) -> Vec<(u64, Self)> {
        let mut state = self.state();
        let quota = state.quota;
        let photos = state.photos.take().unwrap_or_default();
        let random = &mut state.random;
        photos
            .into_iter()
            .map(|(call, disk)| (call, Self::with(disk, Random::new(random.next_u64()), quota)))
            .collect()
    }

    /// Orders a fault.
    pub fn fail(&self, fault: Fault) {
        self.state().plan.add(fault);
    }

    /// Orders one fault for the call that follows `after` more calls of any kind.
    pub fn fail_nth(&self, after: u64, effect: Effect) {
        self.fail(Fault { on: None, after, effect, lasting: false });
    }

    /// Cancels all faults that did not strike.
    pub fn heal(&self) {
        self.state().plan.clear();
    }

    /// The calls that faults struck since the last question, the first ones of many.
    pub fn take_struck(&self) -> Vec<(Op, Effect)> {
        std::mem::take(&mut self.state().struck)
    }

    /// Bytes that all files together may have; `None` for no bound.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.state().quota = bytes;
    }

    /// Whether a write found less room than it needed since the last question.
    pub fn take_met_quota(&self) -> bool {
        std::mem::take(&mut self.state().met_quota)
    }

    /// Whether no fault is on order and no bound is set.
    pub fn is_well(&self) -> bool {
        let state = self.state();
        state.plan.is_empty() && state.quota.is_none()
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Calls of one kind made so far.
    pub fn count(&self, op: Op) -> u64 {
        self.state().counts.get(&op).copied().unwrap_or(0)
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.state().disk.used()
    }

    /// From now on calls are remembered for [`ModelFs::trace`].
    pub fn keep_trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    /// The calls since [`ModelFs::keep_trace`].
    pub fn trace(&self) -> Vec<Step> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// Equal for disks that hold the same and would do the same in a crash.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.state().disk.fingerprint()
    }

    /// Paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let there = state.disk.names.iter().filter(|(_, name)| name.current.is_some());
        there.map(|(path, _)| path.clone()).collect()
    }

    /// A file's bytes as readers see them. Not counted as a call.
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.disk.inodes.get(&state.disk.find(path)?).map(|inode| inode.cached.to_vec())
    }

    /// Puts a file on the disk, durable at once, with its directory. Not counted as a call.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        if let Some(parent) = path.parent() {
            state.disk.directories.insert(parent.to_path_buf());
        }
        state.disk.put(path, bytes);
    }

    /// Takes a file off the disk, durably. Not counted as a call.
    pub fn delete(&self, path: &Path) {
        self.state().disk.names.remove(path);
    }

    /// Flips one bit, in the cache and on the disk. Says whether there was one.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) -> bool {
        self.damage(path, |bytes| {
            let byte = bytes.get_mut(byte);
            byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
        })
    }

    /// Turns one bit over on the disk alone: the cache shows it once that page has left it. Says whether there was one.
    pub fn rot(&self, path: &Path, byte: usize, bit: u8) -> bool {
        let mut state = self.state();
        let inode = state.disk.find(path);
        let inode = inode.and_then(|inode| state.disk.inodes.get_mut(&inode));
        inode.is_some_and(|inode| inode.rot(byte, bit))
    }

    /// Changes a file's bytes behind everybody's back, in the cache and on the disk; `false` if it is not there.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.state();
        let Some(inode) = state.disk.find(path) else { return false };
        let Some(inode) = state.disk.inodes.get_mut(&inode) else { return false };
        let mut bytes = inode.cached.to_vec();
        let changed = change(&mut bytes);
        inode.replace(bytes);
        changed
    }

    /// From now on reading this sector of the file is an error.
    pub fn make_unreadable(&self, path: &Path, sector: u64) {
        let mut state = self.state();
        let inode = state.disk.find(path);
        if let Some(inode) = inode.and_then(|inode| state.disk.inodes.get_mut(&inode)) {
            inode.unreadable.insert(sector);
        }
    }

    /// Counts a call and lets a fault strike it, then does it.
    fn call<T>(
        &self,
        op: Op,
        path: &Path,
        range: Option<(u64, usize)>,
        act: impl FnOnce(&mut State, Option<Effect>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        state.calls += 1;
        *state.counts.entry(op).or_default() += 1;
        let effect = state.plan.strike(op);
        if state.struck.len() < STRUCK_MAX {
            state.struck.extend(effect.map(|effect| (op, effect)));
        }
        let number = state.calls;
        if let Some(trace) = &mut state.trace {
            trace.push(Step { number, op, path: path.to_path_buf(), range, effect });
        }
        let result = act(&mut state, effect);
        let State { disk, photos, .. } = &mut *state;
        if let Some(photos) = photos.as_mut().filter(|_| op.changes()) {
            photos.push((number, disk.clone()));
        }
        result
    }
}

impl State {
    fn inode(&mut self, inode: InodeId) -> io::Result<&mut Inode> {
        self.disk.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How much of a file may be written at `offset` before the quota is met.
    fn room(&self, inode: InodeId, offset: u64) -> u64 {
        let Some(quota) = self.quota else { return u64::MAX };
        let length = self.disk.inodes.get(&inode).map_or(0, |inode| inode.cached.len() as u64);
        (length + quota.saturating_sub(self.disk.used())).saturating_sub(offset)
    }

    fn write(
        &mut self,
        inode: InodeId,
        bytes: &[u8],
        offset: u64,
        effect: Option<Effect>,
    ) -> io::Result<usize> {
        let part = |length: usize, random: &mut Random| random.below(length as u64) as usize;
        let room = self.room(inode, offset).min(bytes.len() as u64) as usize;
        self.met_quota |= room < bytes.len();
        let (length, error) = match effect {
            Some(effect @ (Effect::Eio | Effect::Enospc)) => {
                (part(bytes.len(), &mut self.random), Some(effect.error()))
            }
            Some(Effect::Short) => (part(bytes.len(), &mut self.random).max(1).min(room), None),
            Some(Effect::SyncDropped | Effect::SyncDroppedSome(_) | Effect::SyncKept)
            | Some(Effect::SyncLied(_) | Effect::SyncStrayed(_) | Effect::Misread(_))
            | None => (room, None),
        };
        self.inode(inode)?.write(bytes.get(..length).unwrap_or(bytes), offset as usize);
        match error {
            Some(error) => Err(error),
            None if length == 0 && !bytes.is_empty() => Err(Effect::Enospc.error()),
            None => Ok(length),
        }
    }
}
