//! One member's disk fails while it runs: it fills up, turns read-only, or refuses writes or flushes. The others go on; the one
//! refuses or stops; nothing acknowledged is lost, whatever reached the disk.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raftmap::Error;

use crate::device::Mounted;
use crate::error::{Result, Scenery, Stop};
use crate::process::{Ended, Members, Process, STORAGE};
use crate::tools;
use crate::work::Work;

const CALL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(40);
const SMALL_DISK: u64 = 16 << 20;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Failure {
    /// A 16 MiB disk fills up, and has room again
    Full,
    /// ext4 finds an error and turns read-only
    ReadOnly,
    /// The device refuses writes
    Write,
    /// The device refuses flushes
    Flush,
}

pub(crate) fn run(failure: Failure) -> Result<()> {
    tools::need(&[tools::MOUNT, tools::MKFS_EXT4])?;
    tools::need_device("/dev/loop-control")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    let place = tempfile::tempdir().or_broken("making a place")?;
    runtime.block_on(async {
        match failure {
            Failure::Full => full(place.path()).await,
            Failure::ReadOnly => read_only(place.path()).await,
            Failure::Write | Failure::Flush => {
                // Alone, nobody else has what it acknowledged.
                for count in [1, 3] {
                    let place = place.path().join(count.to_string());
                    fs::create_dir(&place).or_broken("making a place")?;
                    refuses(failure, count, &place).await?;
                }
                Ok(())
            }
        }
    })
}

fn format(image: &Path, bytes: u64) -> Result<()> {
    File::create(image).and_then(|file| file.set_len(bytes)).or_broken("making a disk image")?;
    let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
    tools::run("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", options, &image.display().to_string()])
}

// ---- A full disk ----

async fn full(place: &Path) -> Result<()> {
    let image = place.join("small.raw");
    format(&image, SMALL_DISK)?;
    let mounted = Mounted::mount(&image, &place.join("small"))?;
    let members = Members::below(&place.join("small"), 1)?;
    let mut process = members.start(1, &[])?;
    let (clerk, mut work) = (members.clerk(CALL)?, Work::default());
    served(work.write_some(&clerk, 20, &mut process, PATIENCE).await, "before")?;

    let ballast = place.join("small/ballast");
    fill(&ballast)?;
    let before = work.acked;
    let refusal = loop {
        match work.write(&clerk).await {
            Ok(()) if work.acked > before + 2_000 => {
                return Err(Stop::Broken("the disk does not fill up".into()));
            }
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    let Error::NoSpace = refusal else {
        return Err(Stop::Red(format!("a full disk is answered with: {refusal}")));
    };
    work.reads_back(&clerk).await?;
    if let Some(ended) = process.ended() {
        return Err(Stop::Red(format!("the member ended with {ended:?} on a full disk")));
    }
    println!("full: {} writes went before the refusal; reads went on", work.acked - before);

    fs::remove_file(&ballast).or_broken("removing the ballast")?;
    served(
        work.write_some(&clerk, 20, &mut process, PATIENCE).await,
        "once there is room again, without a restart",
    )?;
    work.reads_back(&clerk).await?;
    process.kill();
    work.survives(&members).await?;
    println!("full: served again by itself; {} acknowledged, none lost", work.acked);
    drop(mounted);
    Ok(())
}

/// To the last byte that can be had.
fn fill(ballast: &Path) -> Result<()> {
    let mut file = File::create(ballast).or_broken("making the ballast")?;
    for piece in [vec![0; 64 << 10], vec![0; 4 << 10], vec![0; 512]] {
        while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
    }
    Ok(())
}

fn served(did: bool, when: &str) -> Result<()> {
    did.then_some(()).ok_or(Stop::Red(format!("the cluster does not serve {when}")))
}

// ---- One member, alone or of three ----

/// `count` members, the first one's directory on `mounted`, the others' beside it.
fn first_on(mounted: &Path, count: u64, place: &Path) -> Result<Members> {
    let mut members = Members::below(place, count)?;
    members.dirs.insert(1, mounted.join("1"));
    Ok(members)
}

/// Starts all, and has them work.
async fn work_before(
    members: &Members,
    work: &mut Work,
) -> Result<(Process, std::collections::BTreeMap<u64, Process>)> {
    let mut others = members.start_all()?;
    let mut first = others.remove(&1).ok_or(Stop::Broken("no first member".into()))?;
    let clerk = members.clerk(CALL)?;
    served(work.write_some(&clerk, 30, &mut first, PATIENCE).await, "before")?;
    Ok((first, others))
}

/// The member that was hit ends by itself with the storage's code, and the others serve all the while and after.
async fn stops_alone(
    members: &Members,
    work: &mut Work,
    hit: &mut Process,
    others: &mut std::collections::BTreeMap<u64, Process>,
) -> Result<()> {
    let clerk = members.clerk(CALL)?;
    let begin = Instant::now();
    let ended = loop {
        let _counted = work.write(&clerk).await;
        match hit.ended() {
            Some(ended) => break ended,
            None if begin.elapsed() > PATIENCE => {
                return Err(Stop::Red("the member with the failing disk does not stop".into()));
            }
            None => {}
        }
    };
    if ended != Ended::Code(STORAGE) {
        return Err(Stop::Red(format!("the member with the failing disk ended with {ended:?}")));
    }
    println!("the member stopped by itself after {:.1} s", begin.elapsed().as_secs_f64());
    let Some(second) = others.get_mut(&2) else { return Ok(()) };
    served(work.write_some(&clerk, 20, second, PATIENCE).await, "with two of three")?;
    work.reads_back(&clerk).await
}

async fn read_only(place: &Path) -> Result<()> {
    let (image, at) = (place.join("disk.raw"), place.join("disk"));
    format(&image, 64 << 20)?;
    tools::run("tune2fs", &["-e", "remount-ro", &image.display().to_string()])?;
    let mounted = Mounted::mount(&image, &at)?;
    let trigger = trigger(&at)?;
    let members = first_on(&at, 3, place)?;
    let mut work = Work::default();
    let (mut hit, mut others) = work_before(&members, &mut work).await?;
    fs::write(&trigger, "1").or_broken("having ext4 find an error")?;
    if File::create(at.join("probe")).is_ok() {
        return Err(Stop::Broken("the file system is not read-only".into()));
    }
    stops_alone(&members, &mut work, &mut hit, &mut others).await?;
    others.clear();
    drop(mounted);
    tools::run(
        "sh",
        &["-c", "e2fsck -fy \"$0\" >/dev/null 2>&1; [ $? -lt 4 ]", &image.display().to_string()],
    )?;
    let _mounted = Mounted::mount(&image, &at)?;
    work.survives(&members).await?;
    println!("read-only: {} acknowledged, none lost", work.acked);
    Ok(())
}

/// The file by which ext4 is made to find an error.
fn trigger(at: &Path) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").or_broken("reading the mounts")?;
    let at = at.display().to_string();
    let device = mounts.lines().filter_map(|line| line.split_once(' '));
    let device =
        device.filter(|(_, rest)| rest.starts_with(&format!("{at} "))).map(|(device, _)| device).next_back();
    let name = device.and_then(|device| device.strip_prefix("/dev/"));
    let name = name.ok_or(Stop::Broken("the mount's device is not known".into()))?;
    let path = PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"));
    match path.exists() {
        true => Ok(path),
        false => Err(Stop::Skipped(format!("this kernel has no {}", path.display()))),
    }
}

async fn refuses(failure: Failure, count: u64, place: &Path) -> Result<()> {
    tools::need(&[tools::STORAGE_DAEMON, tools::FUSE, tools::SETPRIV])?;
    tools::need_device("/dev/fuse")?;
    let image = place.join("disk.raw");
    format(&image, 64 << 20)?;
    let mut disk = Switchable::start(failure, place)?;
    let at = place.join("disk");
    let mounted = Mounted::mount(&place.join("export.img"), &at)?;
    let members = first_on(&at, count, place)?;
    let mut work = Work::default();
    let (mut hit, mut others) = work_before(&members, &mut work).await?;
    disk.switch("failing")?;
    stops_alone(&members, &mut work, &mut hit, &mut others).await?;
    others.clear();
    // Nothing is mended before the end: what the kernel still holds back is lost with the device.
    drop(mounted);
    drop(disk);
    // A fresh device: what the kernel believes to have written is forgotten.
    let _mounted = Mounted::mount(&image, &at)?;
    work.survives(&members).await?;
    println!("{failure:?} refused, {count} members: {} acknowledged, none lost", work.acked);
    Ok(())
}

/// A device whose errors are switched on and off while it is mounted.
struct Switchable {
    daemon: Child,
    monitor: UnixStream,
    export: PathBuf,
}

impl Switchable {
    fn start(failure: Failure, place: &Path) -> Result<Self> {
        let path = |name: &str| place.join(name).display().to_string();
        File::create(place.join("export.img")).or_broken("making a mount point")?;
        let kind = if failure == Failure::Flush { "flush" } else { "write" };
        let rules = format!(
            "inject-error.0.event=none,inject-error.0.iotype={kind},inject-error.0.errno=5,inject-error.0.once=off"
        );
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-storage-daemon"])
            .args(["--chardev", &format!("socket,path={},server=on,wait=off,id=words", path("monitor"))])
            .args(["--monitor", "chardev=words"])
            .args(["--blockdev", &format!("driver=file,node-name=disk,filename={}", path("disk.raw"))])
            .args(["--blockdev", "driver=raw,node-name=sound,file=disk"])
            .args(["--blockdev", &format!("driver=blkdebug,node-name=failing,image=sound,{rules}")])
            .args(["--blockdev", "driver=raw,node-name=switched,file=sound"])
            .args(["--export"])
            .arg(format!("type=fuse,id=out,node-name=switched,mountpoint={},writable=on", path("export.img")))
            .stdin(Stdio::null())
            .spawn()
            .or_broken("starting qemu-storage-daemon")?;
        let monitor = connect(&place.join("monitor"))?;
        let mut disk = Self { daemon, monitor, export: place.join("export.img") };
        disk.ask("qmp_capabilities", "{}")?;
        let begin = Instant::now();
        while fs::metadata(&disk.export).or_broken("looking at the export")?.len() == 0 {
            if begin.elapsed() > PATIENCE {
                return Err(Stop::Broken("qemu-storage-daemon shows no device".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(disk)
    }

    fn switch(&mut self, to: &str) -> Result<()> {
        let options = format!(r#"{{"options":[{{"driver":"raw","node-name":"switched","file":"{to}"}}]}}"#);
        self.ask("blockdev-reopen", &options)
    }

    fn ask(&mut self, command: &str, arguments: &str) -> Result<()> {
        let doing = format!("asking qemu-storage-daemon for {command}");
        writeln!(self.monitor, r#"{{"execute":"{command}","arguments":{arguments}}}"#).or_broken(&doing)?;
        for line in BufReader::new(self.monitor.try_clone().or_broken(&doing)?).lines() {
            let line = line.or_broken(&doing)?;
            match () {
                () if line.contains("\"return\"") => return Ok(()),
                () if line.contains("\"error\"") => return Err(Stop::Broken(format!("{doing}: {line}"))),
                // The greeting, and events.
                () => {}
            }
        }
        Err(Stop::Broken(format!("{doing}: it says nothing")))
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).or_broken("setting up the monitor")?;
                return Ok(stream);
            }
            Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(Stop::Broken(format!("qemu-storage-daemon's monitor: {error}"))),
        }
    }
}

impl Drop for Switchable {
    fn drop(&mut self) {
        let _asked = self.ask("quit", "{}");
        let _ended = self.daemon.kill().and_then(|()| self.daemon.wait());
        let _unmounted = tools::run("umount", &["-l", &self.export.display().to_string()]);
    }
}
