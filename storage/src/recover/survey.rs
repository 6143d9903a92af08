//! What files there are, and whose: names, NODE, headers, and the first frame of each segment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Damage, OpenError};
use crate::fs::{File, Fs, read_exact_at};
use crate::node_file::{self, Identity, NodeFile};
use crate::record::{self, Found, Open, Record, Seed};
use crate::segment::{self, HEADER_LEN, Header, HeaderError};
use crate::snapshot;
use crate::types::Position;

/// A directory's files, by what they say of themselves.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeFile,
    pub(crate) segments: BTreeMap<u64, Surveyed>,
    pub(crate) snapshots: Vec<Position>,
    unfinished: Vec<String>,
}

/// A segment as its header and first frame tell.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Its first frame, where that is a sound OPEN.
    pub(crate) open: Option<Open>,
}

impl Surveyed {
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(&self.header)
    }
}

/// Reads NODE, every header and every first frame. Changes nothing.
pub(crate) fn survey<F: Fs>(fs: &F, dir: &Path) -> Result<Survey, OpenError> {
    let names = fs.list(dir).map_err(OpenError::io("list", dir))?;
    if !names.iter().any(|name| name == node_file::NAME) {
        super::create::refuse_if_used(fs, dir, &names)?;
        return Err(OpenError::Empty { path: dir.to_owned() });
    }
    let node = node_file::read(fs, dir)?;
    let (mut segments, mut snapshots, mut unfinished) = (BTreeMap::new(), Vec::new(), Vec::new());
    for name in names {
        if let Some(id) = segment::parse_file_name(&name) {
            segments.insert(id, look_at(fs, dir.join(name), id, &node)?);
        } else if let Some(position) = snapshot::parse_file_name(&name) {
            snapshots.push(position);
        } else if name.starts_with("tmp-") {
            unfinished.push(name);
        } else if ![node_file::NAME, super::LOCK, crate::boots::FILE_NAME].contains(&name.as_str()) {
            tracing::warn!(dir = %dir.display(), name, "unknown file ignored");
        }
    }
    Ok(Survey { dir: dir.to_owned(), node, segments, snapshots, unfinished })
}

impl Survey {
    /// A segment that was found before.
    pub(crate) fn segment(&self, id: u64) -> Result<&Surveyed, OpenError> {
        let missing =
            || OpenError::damaged(&self.dir.join(segment::file_name(id)), 0, "the segment is missing");
        self.segments.get(&id).ok_or_else(missing)
    }

    pub(super) fn check_identity(&self, wanted: Identity) -> Result<(), OpenError> {
        let found = self.node.identity;
        if found == wanted {
            return Ok(());
        }
        Err(OpenError::WrongIdentity {
            path: self.dir.join(node_file::NAME),
            found_cluster: found.cluster,
            found_node: found.node,
            wanted_cluster: wanted.cluster,
            wanted_node: wanted.node,
        })
    }

    /// Files that never got their name hold nothing that counts.
    pub(super) fn remove_unfinished<F: Fs>(&self, fs: &F) -> Result<(), OpenError> {
        self.unfinished.iter().try_for_each(|name| {
            let path = self.dir.join(name);
            fs.remove(&path).map_err(OpenError::io("unlink", &path))
        })
    }

    /// For bug 5: what has no sound snapshot belongs to nobody.
    #[cfg(raftmap_bugs)]
    pub(super) fn remove_all<F: Fs>(&self, fs: &F) -> Result<(), OpenError> {
        let snapshots = self.snapshots.iter().map(|&position| self.dir.join(snapshot::file_name(position)));
        let segments = self.segments.values().map(|segment| segment.path.clone());
        for path in segments.chain(snapshots).chain([self.dir.join(node_file::NAME)]) {
            fs.remove(&path).map_err(OpenError::io("unlink", &path))?;
        }
        fs.sync_dir(&self.dir).map_err(OpenError::io("sync", &self.dir))
    }

    /// What the last life left in the cache becomes durable, or fails here, before anything is read and relied on.
    pub(super) fn sync<F: Fs>(&self, fs: &F) -> Result<(), OpenError> {
        for Surveyed { path, .. } in self.segments.values() {
            let file = fs.open(path, true).map_err(OpenError::io("open", path))?;
            file.sync_data().map_err(OpenError::io("sync", path))?;
        }
        fs.sync_dir(&self.dir).map_err(OpenError::io("sync", &self.dir))
    }
}

fn look_at<F: Fs>(fs: &F, path: PathBuf, id: u64, node: &NodeFile) -> Result<Surveyed, OpenError> {
    let file = fs.open(&path, false).map_err(OpenError::io("open", &path))?;
    let header = read_header(&file, &path, id)?;
    if header.disk != node.disk {
        let what = format!("made for directory {}, this one is {}", header.disk, node.disk);
        return Err(OpenError::damaged(&path, 0, what));
    }
    // A first frame that is not a sound OPEN is told apart in the walk: here it only does not begin a log.
    let mut head = vec![0; (HEADER_LEN + record::OPEN_LEN) as usize];
    read_at(&file, &path, &mut head)?;
    let open = match record::read(&Seed::new(&header), &head, HEADER_LEN) {
        Found::Valid(frame) => match frame.record() {
            Ok(Record::Open(open)) => Some(open),
            Ok(_) | Err(_) => None,
        },
        Found::Zero if bug!(30) => return Err(OpenError::damaged(&path, HEADER_LEN, "a blank segment")),
        Found::Zero | Found::Bad { .. } => None,
    };
    Ok(Surveyed { path, header, open })
}

/// The header of segment `id`, and a file as long as it says.
fn read_header(file: &impl File, path: &Path, id: u64) -> Result<Header, OpenError> {
    let len = file.len().map_err(OpenError::io("read", path))?;
    if len < segment::CAPACITY_MIN {
        return Err(OpenError::damaged(path, len, format!("{len} bytes are less than any segment has")));
    }
    let mut block = vec![0; HEADER_LEN as usize];
    read_at(file, path, &mut block)?;
    let header = match Header::decode(&block) {
        Ok(header) => header,
        Err(HeaderError::Version(found)) => {
            let supported = segment::VERSION;
            return Err(OpenError::Version { path: path.to_owned(), found, supported });
        }
        Err(HeaderError::Bad(what)) => return Err(OpenError::damaged(path, 0, what)),
    };
    if header.id != id {
        let what = format!("this is {}, under another name", segment::file_name(header.id));
        return Err(OpenError::damaged(path, 0, what));
    }
    if header.capacity != len {
        let what = format!("{len} bytes long, made with {}", header.capacity);
        return Err(OpenError::damaged(path, len.min(header.capacity), what));
    }
    Ok(header)
}

/// A whole segment. Memory is given only for bytes that the file has.
pub(super) fn read_segment<F: Fs>(fs: &F, path: &Path, id: u64) -> Result<(Header, Vec<u8>), OpenError> {
    let file = fs.open(path, false).map_err(OpenError::io("open", path))?;
    let header = read_header(&file, path, id)?;
    let mut bytes = vec![0; header.capacity as usize];
    read_at(&file, path, &mut bytes)?;
    Ok((header, bytes))
}

/// Reads from the beginning. A place that cannot be read is damage found by the disk itself, so it is named as such.
fn read_at(file: &impl File, path: &Path, buf: &mut [u8]) -> Result<(), OpenError> {
    const STEP: usize = 1 << 20;
    for (at, piece) in buf.chunks_mut(STEP).enumerate() {
        let offset = (at * STEP) as u64;
        if let Err(error) = read_exact_at(file, piece, offset) {
            let offset = first_unreadable(file, piece, offset);
            let what = format!("cannot be read: {error}");
            return Err(OpenError::Damaged(Damage { path: path.to_owned(), offset, entry: None, what }));
        }
    }
    Ok(())
}

/// The sector that a failed read stumbled over.
fn first_unreadable(file: &impl File, piece: &mut [u8], offset: u64) -> u64 {
    const SECTOR: usize = 512;
    let mut sectors = piece.chunks_mut(SECTOR).zip((offset..).step_by(SECTOR));
    let unreadable = sectors.find_map(|(sector, at)| read_exact_at(file, sector, at).is_err().then_some(at));
    unreadable.unwrap_or(offset)
}
