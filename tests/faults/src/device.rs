//! A file system on a device whose every write is logged, and copies of it as power cuts leave them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::block_log;
use crate::error::{Result, Scenery, Stop};
use crate::tools::{self, Tool};

/// How long the storage daemon may take to show its device.
const EXPORT_DEADLINE: Duration = Duration::from_secs(10);

/// A file system that the cuts are made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::Ext4 => tools::MKFS_EXT4,
            Self::Xfs => tools::MKFS_XFS,
        }
    }

    /// The least that its mkfs makes in earnest.
    fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 192 << 20,
            Self::Xfs => 320 << 20,
        }
    }

    /// Formats in full and at once: blocks that the kernel zeroes later would not be in the log.
    fn format(self, image: &str) -> Result<()> {
        match self {
            Self::Ext4 => {
                let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                tools::run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", options, image])
            }
            Self::Xfs => tools::run("mkfs.xfs", &["-q", "-f", "-K", image]),
        }
    }
}

/// What every power cut needs.
pub(crate) fn need(kind: Kind) -> Result<()> {
    tools::need(&[tools::STORAGE_DAEMON, tools::FUSE, tools::MOUNT, tools::SETPRIV, kind.tool()])?;
    tools::need_device("/dev/fuse")?;
    tools::need_device("/dev/loop-control")
}

/// The logged device, mounted. Dropping it unmounts and ends the daemon.
#[derive(Debug)]
pub(crate) struct Logged {
    daemon: Child,
    mounted: Option<Mounted>,
    work: PathBuf,
}

impl Logged {
    /// Begins the log of a device below `work` and mounts it: `left` as a cut left it, or a new one. The file of its
    /// first content stays beside it.
    pub(crate) fn start(kind: Kind, left: Option<&Path>, work: &Path) -> Result<Self> {
        let path = |name: &str| work.join(name).display().to_string();
        let image = path("disk.raw");
        match left {
            Some(left) => tools::run("cp", &["--sparse=always", &left.display().to_string(), &image])?,
            None => {
                let sized = File::create(&image).and_then(|file| file.set_len(kind.bytes()));
                sized.or_broken("making a disk image")?;
                kind.format(&image)?;
            }
        }
        tools::run("cp", &["--sparse=always", &image, &path("base.raw")])?;
        for name in ["log.raw", "export.img"] {
            File::create(work.join(name)).or_broken("making the log and the mount point")?;
        }
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-storage-daemon"])
            .args(["--blockdev", &format!("driver=file,node-name=disk,filename={image}")])
            .args(["--blockdev", "driver=raw,node-name=rawdisk,file=disk"])
            .args(["--blockdev", &format!("driver=file,node-name=log,filename={}", path("log.raw"))])
            .args(["--blockdev", "driver=raw,node-name=rawlog,file=log"])
            .args([
                "--blockdev",
                "driver=blklogwrites,node-name=logged,file=rawdisk,log=rawlog,log-sector-size=512",
            ])
            .args(["--export"])
            .arg(format!("type=fuse,id=out,node-name=logged,mountpoint={},writable=on", path("export.img")))
            .stdin(Stdio::null())
            .spawn()
            .or_broken("starting qemu-storage-daemon")?;
        let mut device = Self { daemon, mounted: None, work: work.into() };
        device.wait_for_export(kind.bytes())?;
        device.mounted = Some(Mounted::mount(&work.join("export.img"), &work.join("live"))?);
        Ok(device)
    }

    fn wait_for_export(&mut self, bytes: u64) -> Result<()> {
        let begin = Instant::now();
        let export = self.work.join("export.img");
        while fs::metadata(&export).or_broken("looking at the export")?.len() != bytes {
            if let Some(status) = self.daemon.try_wait().or_broken("waiting for qemu-storage-daemon")? {
                return Err(Stop::Broken(format!("qemu-storage-daemon ended: {status}")));
            }
            if begin.elapsed() > EXPORT_DEADLINE {
                return Err(Stop::Broken("qemu-storage-daemon shows no device".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> PathBuf {
        self.work.join("live")
    }

    /// The block log, for [`block_log::count`].
    pub(crate) fn log(&self) -> Result<File> {
        let file = File::open(self.work.join("log.raw")).or_broken("opening the block log")?;
        block_log::count(&file).or_broken("reading the block log's count")?;
        Ok(file)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        drop(self.mounted.take());
        let _ended = self.daemon.kill().and_then(|()| self.daemon.wait());
        // A killed daemon leaves its export's mount behind.
        let _unmounted = tools::run("umount", &["-l", &self.work.join("export.img").display().to_string()]);
    }
}

/// An image, mounted over a loop device that goes with the mount.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn mount(image: &Path, at: &Path) -> Result<Self> {
        fs::create_dir_all(at).or_broken("making a mount point")?;
        let (from, to) = (image.display().to_string(), at.display().to_string());
        tools::run("mount", &["-o", "loop,noatime", &from, &to])?;
        Ok(Self(at.into()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.0.display().to_string();
        if tools::run("umount", &[&at]).is_err() {
            let _second = tools::run("umount", &["-l", &at]);
        }
    }
}
