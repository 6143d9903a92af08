//! Disks that are harmed beyond crashes, and directories that somebody puts older or other ones in place of. The atlas
//! has its say before each; what it does not permit does not happen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raftmap::node::open;
use raftmap::storage::model::{Effect, Fault, ModelFs, Op};

use crate::atlas::{Harm, Verdict, permits, spoiled, verdict};
use crate::dice::Dice;
use crate::life::Crash;
use crate::node::CLUSTER;
use crate::setup::Sabotage;
use crate::world::{Event, World};

/// What somebody does with a stopped node's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// An older copy takes its place.
    Older,
    /// It is emptied.
    Emptied,
    /// A copy of it takes its place: the original is gone.
    Copied,
    /// After damage: the copy from before it is brought back.
    Mended,
}

/// How often somebody asks the atlas before giving up.
const PATIENCE: u32 = 20;

impl World {
    fn permits(&self, at: usize, found: &Verdict) -> bool {
        let no_atlas = self.setup.sabotage == Some(Sabotage::NoAtlas);
        no_atlas || permits(&self.nodes, at, self.watch.committed(), found)
    }

    // ---- Harm that shows when the cache is gone ----

    /// A running node's disk turns bits over, lies about a sync, or puts a sector elsewhere.
    pub fn harm_running(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        if self.nodes[at].life.is_none() || !matches!(self.nodes[at].harm, Harm::None) {
            return;
        }
        let node = &mut self.nodes[at];
        let seed = self.nemesis.number();
        let effect = match self.nemesis.below(4) {
            0 => return self.misread(at, seed),
            1 => Effect::SyncLied(seed),
            2 => Effect::SyncStrayed(seed),
            _ => {
                let Some((path, byte, bit)) = place(&node.disk, &mut self.nemesis) else { return };
                if node.disk.rot(&path, byte, bit) {
                    (node.harm, node.excuse.harmed) = (Harm::Latent, true);
                    self.trace.sometimes("bits rotted under a running node");
                }
                return;
            }
        };
        (node.harm, node.excuse.harmed) = (Harm::Latent, true);
        let after = self.nemesis.below(4);
        node.disk.fail(Fault { on: Some(Op::SyncData), after, effect, lasting: false });
    }

    /// The next segments that are mapped show a wrong bit: whoever reads that entry back stops, and finds it sound later.
    fn misread(&mut self, at: usize, seed: u64) {
        // Seen when the entry is read back, perhaps much later.
        self.nodes[at].excuse.harmed = true;
        let misread = Fault { on: Some(Op::Map), after: 0, effect: Effect::Misread(seed), lasting: false };
        self.nodes[at].disk.fail(misread);
    }

    /// What a crash leaves of a node's disk. Where that would be more harm than the atlas permits, the cache survives.
    pub fn fall(&mut self, at: usize, disk: ModelFs, whole: ModelFs, crash: Crash) {
        if matches!(self.nodes[at].harm, Harm::Latent) && crash != Crash::Kill {
            let found = verdict(&self.nodes[at], &disk);
            if !self.permits(at, &found) {
                self.trace.sometimes("the atlas kept a disk from harm");
                self.nodes[at].disk = whole;
                return;
            }
            let gone = matches!(crash, Crash::Power(_));
            return self.settle(at, disk, whole, found, if gone { Harm::None } else { Harm::Latent });
        }
        self.nodes[at].disk = disk;
    }

    /// The disk is this one now, and `found` on it.
    fn settle(&mut self, at: usize, disk: ModelFs, sound: ModelFs, found: Verdict, harm: Harm) {
        let (node, term) = (&mut self.nodes[at], self.watch.max_term);
        (node.disk, node.harm) = (disk, harm);
        match found {
            Verdict::Whole => {}
            Verdict::Less(found) => {
                node.shadow.set_back(found);
                node.losses.push(term);
                self.trace.sometimes("a disk lost what others hold, and could not know");
            }
            Verdict::Refused(_) => node.harm = Harm::Spoiled(sound),
        }
    }

    // ---- Harm while the node does not run ----

    /// The node stops, and what is on its disk is harmed.
    pub fn harm_resting(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        if !matches!(self.nodes[at].harm, Harm::None) || self.nodes[at].locked_out {
            return;
        }
        let crash = self.draw_crash();
        self.crash(at, crash);
        let sound = self.nodes[at].disk.kill();
        let disk = self.nodes[at].disk.kill();
        if let Some(what) = spoil(&disk, &mut self.nemesis) {
            let found = verdict(&self.nodes[at], &disk);
            // More may go with a sector or a file, witnesses and all.
            if let Verdict::Less(found) = &found
                && ROTTED.contains(&what)
            {
                self.nodes[at].could_not_know(found);
            }
            if self.permits(at, &found) {
                self.trace.sometimes(what);
                self.nodes[at].excuse.harmed = true;
                if matches!(found, Verdict::Whole) {
                    self.trace.sometimes("damage did not matter");
                }
                self.settle(at, disk, sound, found, Harm::None);
            } else {
                self.trace.sometimes("the atlas kept a disk from harm");
            }
        }
        self.after(Duration::from_millis(50), Event::Start(at));
    }

    /// A node whose directory is damaged was asked to start: it must say where, and leave every file as it is.
    pub fn refused(&mut self, at: usize, before: &[(PathBuf, Vec<u8>)], error: &str) {
        assert!(error.contains("/disk/"), "node {} does not say which file is damaged: {error}", at + 1);
        assert!(files(&self.nodes[at].disk) == before, "node {} refuses, and has touched its files", at + 1);
        self.trace.sometimes("a damaged node refused to start and said where");
        if spoiled(&self.nodes).count() > (self.nodes.len() - 1) / 2 {
            return; // total damage, and nobody has a sound copy
        }
        let repairs: &[Directory] = if self.calm.is_some() {
            &[Directory::Mended] // what rotted earlier was found out only now
        } else {
            &[Directory::Mended, Directory::Emptied]
        };
        let what = self.aftermath.pick(repairs);
        let time = self.aftermath.time(Duration::from_millis(100), Duration::from_secs(4));
        self.nodes[at].locked_out = true;
        self.after(time, Event::Directory(at, what, 0));
    }

    // ---- Directories ----

    /// Somebody stops a node, and puts something else in its directory's place.
    pub fn swap_directory(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        if !matches!(self.nodes[at].harm, Harm::None) || self.nodes[at].locked_out {
            return;
        }
        // Two nodes or one cannot spare what an older directory lacks.
        let what = match self.nodes.len() {
            1 | 2 => Directory::Copied,
            _ => {
                let all = [Directory::Older, Directory::Older, Directory::Emptied, Directory::Copied];
                self.nemesis.pick(&all)
            }
        };
        self.swap(at, what);
    }

    /// As soon as the atlas permits it.
    pub fn swap(&mut self, at: usize, what: Directory) {
        let crash = self.draw_crash();
        self.crash(at, crash);
        self.nodes[at].locked_out = true;
        self.after(Duration::from_millis(50), Event::Directory(at, what, 0));
    }

    pub fn directory(&mut self, at: usize, what: Directory, tries: u32) {
        if !self.nodes[at].locked_out {
            return;
        }
        let done = self.put_in_place(at, what);
        if !done && tries < PATIENCE && self.calm.is_none() {
            // Until the others hold what would be lost.
            return self.after(Duration::from_millis(100), Event::Directory(at, what, tries + 1));
        }
        self.nodes[at].locked_out = false;
        self.after(Duration::from_millis(10), Event::Start(at));
    }

    fn put_in_place(&mut self, at: usize, what: Directory) -> bool {
        let seed = self.disks.number();
        let node = &mut self.nodes[at];
        let disk = match (what, &node.harm) {
            (Directory::Mended, Harm::Spoiled(sound)) => copied(sound, seed),
            (Directory::Mended, Harm::None | Harm::Latent) => return true,
            (Directory::Older, _) => match node.backups.first() {
                Some(backup) => copied(backup, seed),
                None => return true,
            },
            (Directory::Emptied, _) => ModelFs::new(seed),
            (Directory::Copied, _) => copied(&node.disk, seed),
        };
        let found = verdict(node, &disk);
        if matches!(found, Verdict::Refused(_)) || !self.permits(at, &found) {
            return false;
        }
        self.nodes[at].backups.clear();
        self.trace.note(self.now, at, "directory", what as u64, 0);
        self.trace.sometimes(match what {
            Directory::Older => "a directory was rolled back",
            Directory::Emptied => "a directory was emptied",
            Directory::Copied => "a node went on from a copy of its directory",
            Directory::Mended => "a sound copy was brought back",
        });
        let sound = disk.kill();
        // A copy has what its original had, be it seen by then or not.
        self.nodes[at].excuse.harmed &= what != Directory::Emptied;
        self.settle(at, disk, sound, found, Harm::None);
        true
    }

    /// Somebody starts a second process on a running node's directory, and another node on a copy of it.
    pub fn strangers(&mut self) {
        let at = self.nemesis.place(self.nodes.len());
        let node = &self.nodes[at];
        if node.life.is_none() {
            return;
        }
        // Where calls of this disk were made to fail, one of the stranger's may.
        let refuses = |words: &Result<(), String>, why| {
            words.as_ref().is_err_and(|words| node.excuse.is_given() || words.contains(why))
        };
        let words = node.open_on(&node.disk).map(|_| ()).map_err(|error| error.to_string());
        assert!(refuses(&words, "in use"), "a second process: {words:?}");
        let other = (at + 1) % self.nodes.len();
        if other != at {
            let copy = node.disk.kill();
            let config = &self.nodes[other].config;
            let opened = open::open_sized(&copy, config, CLUSTER, &node.sizes).map(|_| ());
            let words = opened.map_err(|error| error.to_string());
            assert!(refuses(&words, "belongs to node"), "a foreign copy: {words:?}");
            self.trace.sometimes("a copy was started as another node");
        }
        self.trace.sometimes("a second process was started on a directory");
    }
}

/// Every file as readers see it, on another disk.
pub fn copied(disk: &ModelFs, seed: u64) -> ModelFs {
    let copy = ModelFs::new(seed);
    for path in disk.files() {
        if let Some(bytes) = disk.peek(&path) {
            copy.put(&path, bytes);
        }
    }
    copy
}

/// The files that count, with their bytes.
pub fn files(disk: &ModelFs) -> Vec<(PathBuf, Vec<u8>)> {
    let counts = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("seg-") || name.starts_with("snap-") || name == "NODE"
    };
    disk.files()
        .into_iter()
        .filter(counts)
        .map(|path| (path.clone(), disk.peek(&path).unwrap_or_default()))
        .collect()
}

/// A bit in a file that counts, often one that says something.
fn place(disk: &ModelFs, dice: &mut Dice) -> Option<(PathBuf, usize, u8)> {
    let files = files(disk);
    let (path, bytes) = files.get(dice.place(files.len()))?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let end = if dice.below(8) == 0 { bytes.len() } else { end };
    Some((path.clone(), dice.place(end.max(1)), dice.below(8) as u8))
}

/// One kind of damage to one file; its name, where there was anything to harm.
fn spoil(disk: &ModelFs, dice: &mut Dice) -> Option<&'static str> {
    let (path, byte, bit) = place(disk, dice)?;
    let kind = file_kind(disk, &path);
    match dice.below(8) {
        0 => {
            disk.make_unreadable(&path, byte as u64 / 512);
            Some("a sector became unreadable")
        }
        1 => {
            disk.delete(&path);
            Some("a file vanished")
        }
        2 => disk
            .damage(&path, |bytes| {
                bytes.truncate(byte);
                true
            })
            .then_some("a file was cut short"),
        3 => disk
            .damage(&path, |bytes| {
                let sector = byte / 512 * 512;
                let end = bytes.len().min(sector + 512);
                bytes[sector..end].fill(0);
                true
            })
            .then_some("a sector was zeroed"),
        _ => disk.flip(&path, byte, bit).then_some(kind),
    }
}

/// One bit, by what it was a bit of.
const ROTTED: [&str; 4] = [
    "bits rotted in a snapshot",
    "bits rotted in NODE",
    "bits rotted in a sealed segment",
    "bits rotted in the last segment",
];

fn file_kind(disk: &ModelFs, path: &Path) -> &'static str {
    let [snapshot, node, sealed, last] = ROTTED;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("snap-") {
        return snapshot;
    }
    if name == "NODE" {
        return node;
    }
    let begun =
        |path: &PathBuf| disk.peek(path).is_some_and(|bytes| bytes.get(4_096).is_some_and(|byte| *byte != 0));
    let later =
        disk.files().into_iter().any(|other| other.as_path() > path && is_segment(&other) && begun(&other));
    if later { sealed } else { last }
}

pub fn is_segment(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("seg-"))
}
