//! What a disk holds, and what the page cache shows in front of it: two images of every file and of every name, and the
//! sectors and names in between, each of which a power cut may keep or lose on its own.
//!
//! A dirty sector remembers every version it went through since the last sync, because writeback may have stopped at
//! any of them. After a sync that failed, sectors are *lost*: the cache shows the new bytes and calls them clean, the
//! disk holds the old ones. A later write to the same page takes them along again, as a real page cache does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::image::Image;
use super::random::Random;

/// Bytes that a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// Bytes that the page cache writes back together.
const PAGE_SECTORS: u64 = 8;

pub(super) type InodeId = u64;
pub(super) type Sector = [u8; SECTOR];

/// One file, whatever its names.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What readers see.
    pub(super) cached: Image,
    /// What survives a power cut if nothing else does.
    pub(super) durable: Image,
    /// Written and not synced: every version since then, oldest first, never empty.
    pub(super) dirty: BTreeMap<u64, Vec<Sector>>,
    /// The length in the cache is not on the disk yet.
    pub(super) dirty_length: bool,
    /// Clean in the cache's eyes, but not what the disk holds.
    lost: BTreeSet<u64>,
    /// Reading these is an error.
    pub(super) unreadable: BTreeSet<u64>,
}

/// One name: what it leads to.
#[derive(Clone, Debug, Default)]
pub(super) struct Name {
    pub(super) current: Option<InodeId>,
    pub(super) durable: Option<InodeId>,
    /// Not synced: every change since then, oldest first.
    pub(super) dirty: Vec<Option<InodeId>>,
}

/// All files and names.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) names: BTreeMap<PathBuf, Name>,
    pub(super) directories: BTreeSet<PathBuf>,
    next_inode: InodeId,
}

impl Inode {
    /// A file that is on the disk already.
    pub(super) fn settled(bytes: Vec<u8>) -> Self {
        let bytes = Image::from(bytes);
        Self { cached: bytes.clone(), durable: bytes, ..Self::default() }
    }

    /// Other bytes, on the disk and in the cache; bad sectors stay bad.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        *self = Self { unreadable: std::mem::take(&mut self.unreadable), ..Self::settled(bytes) };
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.cached.grow(end);
        self.dirty_length |= end > self.durable.len();
        let (first, last) = ((offset / SECTOR) as u64, ((end - 1) / SECTOR) as u64);
        for sector in first..=last {
            let start = offset.max(sector as usize * SECTOR);
            let part = &bytes[start - offset..end.min((sector as usize + 1) * SECTOR) - offset];
            if self.cached.put(start, part) {
                let version = self.cached.sector(sector);
                self.dirty.entry(sector).or_insert_with(|| Vec::with_capacity(1)).push(version);
                self.lost.remove(&sector);
            }
        }
        self.take_lost_along(first / PAGE_SECTORS * PAGE_SECTORS, (last / PAGE_SECTORS + 1) * PAGE_SECTORS);
    }

    fn take_lost_along(&mut self, from: u64, to: u64) {
        let again: Vec<u64> = self.lost.range(from..to).copied().collect();
        for sector in again {
            self.lost.remove(&sector);
            self.dirty.entry(sector).or_default().push(self.cached.sector(sector));
        }
    }

    /// Everything dirty reaches the disk. What is lost stays lost: the cache thinks it clean.
    pub(super) fn sync(&mut self) {
        if std::mem::take(&mut self.dirty_length) {
            self.settle_length();
        }
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            self.durable.put_sector(sector, &self.cached.sector(sector));
        }
    }

    /// A sync that fails and marks everything clean. Each sector reaches the disk or not as `reaches` says.
    pub(super) fn sync_dropping(&mut self, mut reaches: impl FnMut() -> bool) {
        if std::mem::take(&mut self.dirty_length) && reaches() {
            self.settle_length();
        }
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            if reaches() {
                self.durable.put_sector(sector, &self.cached.sector(sector));
            } else {
                self.lost.insert(sector);
            }
        }
    }

    /// A sync that says yes, and of some sectors it is not true: `reaches` says of which it is.
    pub(super) fn sync_lying(&mut self, mut reaches: impl FnMut() -> bool) {
        let dropped: Vec<u64> = self.dirty.keys().copied().filter(|_| !reaches()).collect();
        let before: Vec<Sector> = dropped.iter().map(|sector| self.durable.sector(*sector)).collect();
        self.sync();
        for (sector, bytes) in dropped.into_iter().zip(before) {
            self.place(sector, &bytes);
        }
    }

    /// The disk holds `bytes` at `sector`, and the cache does not know.
    fn place(&mut self, sector: u64, bytes: &Sector) {
        self.settle(sector, bytes);
        if !self.dirty.contains_key(&sector) {
            self.lost.insert(sector);
        }
    }

    /// A bit turns over on the disk. Whoever reads from the cache does not see it before that page has left.
    pub(super) fn rot(&mut self, byte: usize, bit: u8) -> bool {
        let sector = (byte / SECTOR) as u64;
        let mut bytes = self.durable.sector(sector);
        if byte >= self.durable.len() {
            return false;
        }
        bytes[byte % SECTOR] ^= 1 << (bit % 8);
        self.place(sector, &bytes);
        true
    }

    /// The cache forgets its clean pages, and so the lost ones show what the disk holds.
    pub(super) fn evict(&mut self) {
        for sector in std::mem::take(&mut self.lost) {
            self.cached.put_sector(sector, &self.durable.sector(sector));
        }
    }

    pub(super) fn settle_length(&mut self) {
        self.durable.grow(self.cached.len());
    }

    pub(super) fn settle(&mut self, sector: u64, bytes: &Sector) {
        self.durable.put_sector(sector, bytes);
    }

    /// The cache is gone: what the disk holds is all there is.
    pub(super) fn forget_cache(&mut self) {
        self.cached = self.durable.clone();
        self.dirty.clear();
        self.dirty_length = false;
        self.lost.clear();
    }

    pub(super) fn touches_unreadable(&self, offset: u64, length: usize) -> bool {
        let sector = SECTOR as u64;
        length > 0
            && self.unreadable.range(offset / sector..=(offset + length as u64 - 1) / sector).next().is_some()
    }
}

impl Name {
    fn set(&mut self, to: Option<InodeId>) {
        self.current = to;
        self.dirty.push(to);
    }

    fn sync(&mut self) {
        // A change that a failed sync dropped is clean, and so not written now either.
        if !self.dirty.is_empty() {
            self.durable = self.current;
            self.dirty.clear();
        }
    }

    /// Every inode this name may lead to after a power cut.
    pub(super) fn candidates(&self) -> impl Iterator<Item = InodeId> + '_ {
        self.dirty.iter().copied().chain([self.durable]).flatten()
    }
}

impl Disk {
    pub(super) fn create(&mut self, path: &Path) -> InodeId {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.names.entry(path.to_path_buf()).or_default().set(Some(self.next_inode));
        self.next_inode
    }

    /// Puts a file there as if it had always been there.
    pub(super) fn put(&mut self, path: &Path, bytes: Vec<u8>) {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::settled(bytes));
        let inode = Some(self.next_inode);
        self.names.insert(path.to_path_buf(), Name { current: inode, durable: inode, dirty: Vec::new() });
    }

    pub(super) fn find(&self, path: &Path) -> Option<InodeId> {
        self.names.get(path)?.current
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        let inode = self.find(from);
        self.unlink(from);
        self.names.entry(to.to_path_buf()).or_default().set(inode);
    }

    pub(super) fn unlink(&mut self, path: &Path) -> bool {
        match self.names.get_mut(path) {
            Some(name) if name.current.is_some() => {
                name.set(None);
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn sync_directory(&mut self, directory: &Path) {
        self.names_in(directory).for_each(Name::sync);
        self.drop_dead_names();
    }

    /// A sync of which one sector lands elsewhere.
    pub(super) fn sync_straying(&mut self, id: InodeId, random: &mut Random) {
        let whole: Vec<InodeId> = self.inodes.keys().copied().collect();
        let target = if random.one_in(2) { id } else { pick(&whole, random).unwrap_or(id) };
        let Some(inode) = self.inodes.get_mut(&id) else { return };
        let dirty: Vec<u64> = inode.dirty.keys().copied().collect();
        let Some(stray) = pick(&dirty, random) else { return inode.sync() };
        let (before, bytes) = (inode.durable.sector(stray), inode.cached.sector(stray));
        inode.sync();
        inode.place(stray, &before);
        if let Some(other) = self.inodes.get_mut(&target) {
            let sectors = (other.durable.len() / SECTOR) as u64;
            let there = random.below(sectors.max(1));
            if sectors > 0 && (target, there) != (id, stray) {
                other.place(there, &bytes);
            }
        }
    }

    /// A directory sync that fails: each change reaches the disk or not, and all count as clean afterwards.
    pub(super) fn sync_directory_dropping(&mut self, directory: &Path, mut reaches: impl FnMut() -> bool) {
        for name in self.names_in(directory) {
            if !std::mem::take(&mut name.dirty).is_empty() && reaches() {
                name.durable = name.current;
            }
        }
    }

    fn names_in<'a>(&'a mut self, directory: &'a Path) -> impl Iterator<Item = &'a mut Name> {
        let inside = move |(path, name)| (Path::parent(path) == Some(directory)).then_some(name);
        self.names.iter_mut().map(|(path, name)| (path.as_path(), name)).filter_map(inside)
    }

    /// Names that lead nowhere, now and after any crash.
    fn drop_dead_names(&mut self) {
        self.names.retain(|_, name| name.current.is_some() || name.candidates().next().is_some());
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let linked: BTreeSet<InodeId> = self.names.values().filter_map(|name| name.current).collect();
        linked.iter().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.cached.len() as u64).sum()
    }

    /// Equal for disks that differ in nothing but inode numbers.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (path, name) in &self.names {
            part(path.as_os_str().as_encoded_bytes());
            for inode in [name.current, name.durable].into_iter().chain(name.dirty.iter().copied()) {
                let Some(inode) = inode.and_then(|inode| self.inodes.get(&inode)) else {
                    part(b"none");
                    continue;
                };
                part(&inode.cached.to_vec());
                part(&inode.durable.to_vec());
                part(&[u8::from(inode.dirty_length)]);
                for (sector, versions) in &inode.dirty {
                    part(&sector.to_le_bytes());
                    versions.iter().for_each(|version| part(version));
                }
            }
        }
        *hasher.finalize().as_bytes()
    }

    /// The machine starts again from what the disk holds.
    pub(super) fn forget_cache(&mut self) {
        for name in self.names.values_mut() {
            name.current = name.durable;
            name.dirty.clear();
        }
        self.names.retain(|_, name| name.current.is_some());
        let linked: BTreeSet<InodeId> = self.names.values().filter_map(|name| name.current).collect();
        self.inodes.retain(|inode, _| linked.contains(inode));
        self.inodes.values_mut().for_each(Inode::forget_cache);
    }

    /// Clean pages leave the cache, each file's with even odds.
    pub(super) fn evict_some(&mut self, random: &mut Random) {
        self.inodes.values_mut().filter(|_| random.one_in(2)).for_each(Inode::evict);
    }
}

fn pick<T: Copy>(from: &[T], random: &mut Random) -> Option<T> {
    from.get(random.below(from.len() as u64) as usize).copied()
}
