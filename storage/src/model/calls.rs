//! The calls themselves: the file traits on the model disk, and what each fault does to them.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::fault::{Effect, Op};
use super::random::Random;
use super::{ModelFile, ModelFs, ModelLock, ModelTemp};
use crate::fs::{File, Fs, LockError};

/// What a failing sync does with what it was to write.
enum SyncFate {
    Whole,
    Dropped(Option<Random>),
    Lied(Random),
    Strayed(Random),
}

fn sync_fate(effect: Option<Effect>) -> (SyncFate, io::Result<()>) {
    match effect {
        None | Some(Effect::Short | Effect::Misread(_)) => (SyncFate::Whole, Ok(())),
        Some(Effect::SyncLied(seed)) => (SyncFate::Lied(Random::new(seed)), Ok(())),
        Some(Effect::SyncStrayed(seed)) => (SyncFate::Strayed(Random::new(seed)), Ok(())),
        Some(effect @ Effect::SyncKept) => (SyncFate::Whole, Err(effect.error())),
        Some(effect @ (Effect::SyncDropped | Effect::Eio | Effect::Enospc)) => {
            (SyncFate::Dropped(None), Err(effect.error()))
        }
        Some(effect @ Effect::SyncDroppedSome(seed)) => {
            (SyncFate::Dropped(Some(Random::new(seed))), Err(effect.error()))
        }
    }
}

/// Calls that either fail or do not.
fn plain(effect: Option<Effect>) -> io::Result<()> {
    match effect {
        Some(effect @ (Effect::Eio | Effect::Enospc)) => Err(effect.error()),
        Some(Effect::Short | Effect::SyncDropped | Effect::SyncDroppedSome(_) | Effect::SyncKept)
        | Some(Effect::SyncLied(_) | Effect::SyncStrayed(_) | Effect::Misread(_))
        | None => Ok(()),
    }
}

impl File for ModelFile {
    fn len(&self) -> io::Result<u64> {
        self.fs.call(Op::Len, &self.path, None, |state, effect| {
            plain(effect)?;
            Ok(state.inode(self.inode)?.cached.len() as u64)
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs.call(Op::ReadAt, &self.path, Some((offset, buf.len())), |state, effect| {
            plain(effect)?;
            let short = effect == Some(Effect::Short);
            let inode = state.inode(self.inode)?;
            if inode.touches_unreadable(offset, buf.len()) {
                return Err(Effect::Eio.error());
            }
            let there = inode.cached.len().saturating_sub(offset as usize).min(buf.len());
            let length = if short && there > 1 { there / 2 } else { there };
            inode.cached.read(offset as usize, &mut buf[..length]);
            Ok(length)
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.fs.call(Op::WriteAt, &self.path, Some((offset, buf.len())), |state, effect| {
            if !self.writable {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            state.write(self.inode, buf, offset, effect)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.call(Op::SyncData, &self.path, None, |state, effect| {
            let (fate, result) = sync_fate(effect);
            let inode = state.inode(self.inode)?;
            match fate {
                SyncFate::Whole => inode.sync(),
                SyncFate::Dropped(None) => inode.sync_dropping(|| false),
                SyncFate::Dropped(Some(mut random)) => inode.sync_dropping(|| random.one_in(2)),
                SyncFate::Lied(mut random) => inode.sync_lying(|| random.one_in(2)),
                SyncFate::Strayed(mut random) => state.disk.sync_straying(self.inode, &mut random),
            }
            result
        })
    }

    fn map(&self) -> io::Result<Bytes> {
        self.fs.call(Op::Map, &self.path, None, |state, effect| {
            plain(effect)?;
            let mut image = state.inode(self.inode)?.cached.to_vec();
            if let Some(Effect::Misread(seed)) = effect {
                misread(&mut image, Random::new(seed));
            }
            Ok(image.into())
        })
    }
}

/// One bit is seen wrong, among those that say something.
fn misread(bytes: &mut [u8], mut random: Random) {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    if let Some(byte) = bytes.get_mut(random.below(end) as usize) {
        *byte ^= 1 << random.below(8);
    }
}

impl File for ModelTemp {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Bytes> {
        self.file.map()
    }
}

impl Drop for ModelTemp {
    fn drop(&mut self) {
        if !self.persisted {
            self.file.fs.state().disk.unlink(&self.file.path);
        }
    }
}

impl Drop for ModelLock {
    fn drop(&mut self) {
        self.fs.state().locked.remove(&self.path);
    }
}

impl Fs for ModelFs {
    type File = ModelFile;
    type Temp = ModelTemp;
    type Lock = ModelLock;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::CreateDirAll, dir, None, |state, effect| {
            plain(effect)?;
            state.disk.directories.insert(dir.to_path_buf());
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.call(Op::List, dir, None, |state, effect| {
            plain(effect)?;
            if !state.disk.directories.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let there = state.disk.names.iter().filter(|(_, name)| name.current.is_some());
            let inside =
                there.filter(|(path, _)| path.parent() == Some(dir)).filter_map(|(path, _)| path.file_name());
            Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
        })
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<ModelFile> {
        self.call(Op::Open, path, None, |state, effect| {
            plain(effect)?;
            let inode = state.disk.find(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(ModelFile { fs: self.clone(), inode, path: path.to_path_buf(), writable })
        })
    }

    fn temp(&self, dir: &Path) -> io::Result<ModelTemp> {
        self.call(Op::Temp, dir, None, |state, effect| {
            plain(effect)?;
            if !state.disk.directories.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            // A name may be left over from another life.
            let path = loop {
                state.temps += 1;
                let path = dir.join(format!("tmp-{:06}", state.temps));
                if state.disk.find(&path).is_none() {
                    break path;
                }
            };
            let inode = state.disk.create(&path);
            let file = ModelFile { fs: self.clone(), inode, path, writable: true };
            Ok(ModelTemp { file, persisted: false })
        })
    }

    fn persist(&self, mut temp: ModelTemp, to: &Path) -> io::Result<ModelFile> {
        let from = temp.file.path.clone();
        self.call(Op::Persist, to, None, |state, effect| {
            let failed = plain(effect);
            if failed.is_ok() || state.random.one_in(2) {
                state.disk.rename(&from, to);
                temp.persisted = true;
            }
            failed?;
            Ok(ModelFile { fs: self.clone(), inode: temp.file.inode, path: to.to_path_buf(), writable: true })
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Op::Remove, path, None, |state, effect| {
            plain(effect)?;
            if state.disk.unlink(path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::SyncDir, dir, None, |state, effect| {
            let (fate, result) = sync_fate(effect);
            match fate {
                // These speak of sectors, and a directory has none here.
                SyncFate::Whole | SyncFate::Lied(_) | SyncFate::Strayed(_) => state.disk.sync_directory(dir),
                SyncFate::Dropped(None) => state.disk.sync_directory_dropping(dir, || false),
                SyncFate::Dropped(Some(mut random)) => {
                    state.disk.sync_directory_dropping(dir, || random.one_in(2));
                }
            }
            result
        })
    }

    fn lock(&self, path: &Path) -> Result<ModelLock, LockError> {
        let held = self.call(Op::Lock, path, None, |state, effect| {
            plain(effect)?;
            let inode = match state.disk.find(path) {
                Some(inode) => inode,
                None => state.disk.create(path),
            };
            let fresh = state.locked.insert(path.to_path_buf());
            if fresh && state.inode(inode)?.cached.is_empty() {
                state.inode(inode)?.write(b"1\n", 0);
            }
            Ok(!fresh)
        });
        match held {
            Ok(false) => Ok(ModelLock { fs: self.clone(), path: path.to_path_buf() }),
            Ok(true) => Err(LockError::Held { pid: Some(1) }),
            Err(error) => Err(LockError::Io(error)),
        }
    }

    fn available_space(&self, dir: &Path) -> io::Result<u64> {
        self.call(Op::AvailableSpace, dir, None, |state, effect| {
            plain(effect)?;
            Ok(state.quota.map_or(u64::MAX, |quota| quota.saturating_sub(state.disk.used())))
        })
    }

    fn entropy(&self) -> io::Result<[u8; 16]> {
        self.call(Op::Entropy, Path::new(""), None, |state, effect| {
            plain(effect)?;
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&state.random.next_u64().to_le_bytes());
            bytes[8..].copy_from_slice(&state.random.next_u64().to_le_bytes());
            Ok(bytes)
        })
    }
}
