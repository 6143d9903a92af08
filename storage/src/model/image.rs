//! A file's bytes, in pages that copies share until one of them is written: a disk is copied often and changed little.

use std::sync::Arc;

use super::disk::{SECTOR, Sector};

const PAGE: usize = 4_096;

/// See the module's description. Bytes of the last page beyond the length are 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pages: Vec<Arc<[u8; PAGE]>>,
    length: usize,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Longer by zeros, if it is shorter than this.
    pub(super) fn grow(&mut self, length: usize) {
        let pages = length.div_ceil(PAGE);
        if pages > self.pages.len() {
            self.pages.resize(pages, Arc::new([0; PAGE]));
        }
        self.length = self.length.max(length);
    }

    /// Writes within the length; says whether that changed anything.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let mut changed = false;
        let (mut at, mut left) = (offset, bytes);
        while !left.is_empty() {
            let (part, rest) = left.split_at(left.len().min(PAGE - at % PAGE));
            let range = at % PAGE..at % PAGE + part.len();
            let page = &mut self.pages[at / PAGE];
            if page[range.clone()] != *part {
                Arc::make_mut(page)[range].copy_from_slice(part);
                changed = true;
            }
            (at, left) = (at + part.len(), rest);
        }
        changed
    }

    /// Reads what there is from `offset` on.
    pub(super) fn read(&self, offset: usize, buf: &mut [u8]) -> usize {
        let length = buf.len().min(self.length.saturating_sub(offset));
        let mut done = 0;
        while done < length {
            let at = offset + done;
            let part = (length - done).min(PAGE - at % PAGE);
            buf[done..done + part].copy_from_slice(&self.pages[at / PAGE][at % PAGE..at % PAGE + part]);
            done += part;
        }
        length
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE);
        self.pages.iter().for_each(|page| bytes.extend_from_slice(&**page));
        bytes.truncate(self.length);
        bytes
    }

    /// A sector, zeros where the file has ended.
    pub(super) fn sector(&self, number: u64) -> Sector {
        let mut sector = [0; SECTOR];
        self.read(number as usize * SECTOR, &mut sector);
        sector
    }

    /// Puts what of the sector lies within the length.
    pub(super) fn put_sector(&mut self, number: u64, sector: &Sector) {
        let start = number as usize * SECTOR;
        let there = self.length.saturating_sub(start).min(SECTOR);
        self.put(start, &sector[..there]);
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        let mut image = Self::default();
        image.grow(bytes.len());
        image.put(0, &bytes);
        image
    }
}
