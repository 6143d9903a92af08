//! The file of `--history`: every operation as a line, when its end is known.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use raftmap::check::Operation;
use raftmap::lines;

/// Where operations are written down, if anywhere.
#[derive(Debug, Default)]
pub(crate) struct Record(Option<Mutex<Writer>>);

#[derive(Debug)]
struct Writer {
    file: BufWriter<File>,
    /// What went wrong first.
    failed: Option<io::Error>,
}

impl Record {
    /// A new file, in the place of an older one.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let writer = Writer { file: BufWriter::new(File::create(path)?), failed: None };
        Ok(Self(Some(Mutex::new(writer))))
    }

    /// Whether anything is written down.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// One operation. What goes wrong is told at the end.
    pub(crate) fn note(&self, operation: &Operation, key: &str, value: Option<&[u8]>) {
        let Some(writer) = &self.0 else { return };
        let line = lines::line(operation, key.as_bytes(), value);
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(writer.file, "{line}") {
            writer.failed.get_or_insert(error);
        }
    }

    /// Everything is in the file.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let Some(writer) = &self.0 else { return Ok(()) };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.failed.take().map_or(Ok(()), Err)?;
        writer.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftmap::check::{Call, KeyId, Outcome};

    #[test]
    fn what_is_noted_is_in_the_file_and_can_be_read() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let record = Record::create(&path).expect("created");
        let (key, outcome) = (KeyId(0), Outcome::Unknown);
        let operation = Operation { client: 1, number: 1, key, call: Call::Delete, invoked_ns: 5, outcome };
        record.note(&operation, "k", None);
        record.finish().expect("written");
        let text = std::fs::read(&path).expect("readable");
        assert_eq!(lines::read(&text[..]).expect("a history").operations(), [operation]);
        assert!(record.is_on() && !Record::default().is_on());
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        let record = Record::create(Path::new("/dev/full")).expect("opened");
        let (key, outcome) = (KeyId(0), Outcome::Unknown);
        let operation = Operation { client: 1, number: 1, key, call: Call::Delete, invoked_ns: 5, outcome };
        (0..1_000).for_each(|_| record.note(&operation, "k", None));
        assert!(record.finish().is_err());
    }
}
