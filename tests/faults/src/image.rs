//! The device's content after a power cut, made from its first content and the block log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::block_log::{BlockLog, SECTOR};
use crate::error::{Result, Scenery};
use crate::random::Random;

const CHUNK: u64 = 64 * 1024;

/// What a cut leaves of the writes that no flush covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tear {
    /// All of them: the disk wrote in order.
    Ordered,
    /// All of them, and some sectors of the next write.
    Torn,
    /// Any of them, some in part, by sector.
    Subset,
}

/// A power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// Entries of the block log that had been written by then.
    pub(crate) at: usize,
    pub(crate) tear: Tear,
    /// Draws what is kept.
    pub(crate) seed: u64,
}

/// The device after the first `applied` writes, in memory, where it is not zeros.
#[derive(Debug)]
pub(crate) struct Image {
    chunks: BTreeMap<u64, Vec<u8>>,
    length: u64,
    applied: usize,
}

impl Image {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut file = File::open(path).or_broken("opening the first image")?;
        let length = file.seek(SeekFrom::End(0)).or_broken("measuring the first image")?;
        file.rewind().or_broken("rewinding the first image")?;
        let mut chunks = BTreeMap::new();
        let mut buffer = vec![0; CHUNK as usize];
        for at in 0..length.div_ceil(CHUNK) {
            let bytes = usize::try_from(CHUNK.min(length - at * CHUNK)).unwrap_or(0);
            let part = &mut buffer[..bytes];
            file.read_exact(part).or_broken("reading the first image")?;
            if part.iter().any(|byte| *byte != 0) {
                chunks.insert(at, part.to_vec());
            }
        }
        Ok(Self { chunks, length, applied: 0 })
    }

    /// Entries that a cut needs on the image before [`Image::write_cut`].
    pub(crate) fn base(log: &BlockLog, cut: &Cut) -> usize {
        match cut.tear {
            Tear::Ordered | Tear::Torn => cut.at,
            Tear::Subset => log.flushed(cut.at),
        }
    }

    /// Applies all writes up to entry `to`. Cuts are therefore made in the order of their [`Image::base`].
    pub(crate) fn advance(&mut self, log: &BlockLog, to: usize) -> Result<()> {
        for entry in log.entries.iter().take(to).skip(self.applied) {
            self.put(entry.to, &log.bytes(entry)?);
        }
        self.applied = self.applied.max(to);
        Ok(())
    }

    fn put(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (chunk, inside) = (at / CHUNK, (at % CHUNK) as usize);
            let part = bytes.len().min(CHUNK as usize - inside);
            let room = (CHUNK.min(self.length - chunk * CHUNK)) as usize;
            let into = self.chunks.entry(chunk).or_insert_with(|| vec![0; room]);
            into[inside..inside + part].copy_from_slice(&bytes[..part]);
            (at, bytes) = (at + part as u64, &bytes[part..]);
        }
    }

    /// Writes the device as `cut` left it, to a sparse file.
    pub(crate) fn write_cut(&self, log: &BlockLog, cut: &Cut, path: &Path) -> Result<()> {
        let file = File::create(path).or_broken("making an image")?;
        file.set_len(self.length).or_broken("sizing an image")?;
        for (at, bytes) in &self.chunks {
            file.write_all_at(bytes, at * CHUNK).or_broken("writing an image")?;
        }
        let mut random = Random::new(cut.seed);
        match cut.tear {
            Tear::Ordered => Ok(()),
            Tear::Torn => match log.entries.get(cut.at) {
                Some(entry) => write_sectors(&file, entry.to, &log.bytes(entry)?, &mut random),
                None => Ok(()),
            },
            Tear::Subset => write_subset(&file, log, cut, &mut random),
        }
    }
}

/// Of the writes behind the last flush: a drawn share is lost, a few are torn, the others are there.
fn write_subset(file: &File, log: &BlockLog, cut: &Cut, random: &mut Random) -> Result<()> {
    let lost = random.below(101);
    for entry in log.entries.iter().take(cut.at).skip(log.flushed(cut.at)) {
        let bytes = log.bytes(entry)?;
        if random.below(100) < 15 {
            write_sectors(file, entry.to, &bytes, random)?;
        } else if random.below(100) >= lost {
            file.write_all_at(&bytes, entry.to).or_broken("writing an image")?;
        }
    }
    Ok(())
}

/// Bytes at the device's beginning that are written whole or not at all: ext4's superblock has a checksum over two
/// sectors, and with it torn ext4 itself does not mount.
const SUPERBLOCK: u64 = 4096;

/// Some sectors of one write.
fn write_sectors(file: &File, to: u64, bytes: &[u8], random: &mut Random) -> Result<()> {
    let superblock = random.below(2) == 0;
    for (nth, sector) in (0..).zip(bytes.chunks(SECTOR as usize)) {
        let at = to + nth * SECTOR;
        let kept = random.below(2) == 0;
        if if at < SUPERBLOCK { superblock } else { kept } {
            file.write_all_at(sector, at).or_broken("writing an image")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: u64 = 16;

    /// A log of whole-sector writes, each of bytes of its own, with flushes in between; and an empty device.
    fn log(place: &Path, entries: &[(u64, u64)]) -> BlockLog {
        let mut bytes = vec![0; SECTOR as usize];
        let header: [u64; 4] = [0x006a_7366_7773_6872, 1, entries.len() as u64, SECTOR];
        header.iter().zip(bytes.chunks_mut(8)).for_each(|(word, to)| to.copy_from_slice(&word.to_le_bytes()));
        for (nth, (sector, sectors)) in (1..).zip(entries) {
            let flush = u64::from(*sectors == 0);
            let mut entry = vec![0; SECTOR as usize];
            let words = [*sector, *sectors, flush, 0];
            words
                .iter()
                .zip(entry.chunks_mut(8))
                .for_each(|(word, to)| to.copy_from_slice(&word.to_le_bytes()));
            bytes.extend(entry);
            bytes.extend(std::iter::repeat_n(nth, (sectors * SECTOR) as usize));
        }
        std::fs::write(place.join("log"), bytes).unwrap();
        File::create(place.join("base")).unwrap().set_len(SECTORS * SECTOR).unwrap();
        BlockLog::read(&place.join("log")).unwrap()
    }

    /// The first byte of each sector behind the superblock, after a cut.
    fn cut(place: &Path, log: &BlockLog, cut: Cut) -> Vec<u8> {
        let mut image = Image::read(&place.join("base")).unwrap();
        image.advance(log, Image::base(log, &cut)).unwrap();
        image.write_cut(log, &cut, &place.join("cut")).unwrap();
        let bytes = std::fs::read(place.join("cut")).unwrap();
        assert_eq!(bytes.len() as u64, SECTORS * SECTOR);
        bytes.iter().step_by(SECTOR as usize).skip(8).copied().collect()
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        // Write 1 to sectors 8 and 9, write 2 to 9 and 10, a flush, write 4 to 10 and 11, write 5 to 14.
        let log = log(place, &[(8, 2), (9, 2), (0, 0), (10, 2), (14, 1)]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|at| log.flushed(at)), [0, 0, 0, 3, 3, 3]);
        let ordered = |at| cut(place, &log, Cut { at, tear: Tear::Ordered, seed: 0 });
        assert_eq!(ordered(0), [0; 8]);
        assert_eq!(ordered(1), [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ordered(2), [1, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(ordered(5), [1, 2, 4, 4, 0, 0, 5, 0]);
        let drawn = |at, tear| -> std::collections::BTreeSet<Vec<u8>> {
            (0..400).map(|seed| cut(place, &log, Cut { at, tear, seed })).collect()
        };
        // Behind the flush: two sectors of one write and one of another, each there or not.
        let subsets = drawn(5, Tear::Subset);
        assert_eq!(subsets.len(), 8, "{subsets:?}");
        assert!(subsets.iter().all(|kept| kept[..2] == [1, 2] && [2, 4].contains(&kept[2])), "{subsets:?}");
        let torn = drawn(3, Tear::Torn);
        assert_eq!(torn.len(), 4, "{torn:?}");
    }

    #[test]
    fn a_superblock_is_never_torn() {
        let place = tempfile::tempdir().unwrap();
        let log = log(place.path(), &[(2, 2)]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            cut(place.path(), &log, Cut { at: 0, tear: Tear::Torn, seed });
            let bytes = std::fs::read(place.path().join("cut")).unwrap();
            seen.insert((bytes[2 * SECTOR as usize], bytes[3 * SECTOR as usize]));
        }
        assert_eq!(Vec::from_iter(seen), [(0, 0), (1, 1)]);
    }
}
