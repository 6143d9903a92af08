//! One member's machine is unkind: too little memory, or a wall clock that leaps by years. The others go on, and
//! nothing acknowledged is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Result, Scenery, Stop};
use crate::process::{Ended, Members};
use crate::tools;
use crate::work::Work;

const CALL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// What a member may take beyond what it has when it serves.
const SPARE_MEMORY: u64 = 6 << 20;

/// What is wrong with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Trouble {
    /// A memory limit that the map outgrows: the kernel kills the member
    Memory,
    /// The wall clock leaps a year ahead, then to a year ago
    Clock,
}

pub(crate) fn run(trouble: Trouble) -> Result<()> {
    tools::need(&[])?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    let place = tempfile::tempdir().or_broken("making a place")?;
    runtime.block_on(async {
        match trouble {
            Trouble::Memory => memory(place.path()).await,
            Trouble::Clock => clock(place.path()).await,
        }
    })
}

/// A cgroup of our own, version 1 or 2.
struct Group {
    dir: PathBuf,
    limit: &'static str,
    used: &'static str,
}

impl Group {
    fn make() -> Result<Self> {
        let name = format!("raftmap-faults-{}", std::process::id());
        let (root, limit, used) = match Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max", "memory.current"),
        };
        let group = Self { dir: Path::new(root).join(name), limit, used };
        let made = fs::create_dir(&group.dir).is_ok() && group.dir.join(limit).exists();
        made.then_some(group).ok_or(Stop::Skipped("the memory controller of cgroups is not to be had".into()))
    }

    fn used(&self) -> Result<u64> {
        let text = fs::read_to_string(self.dir.join(self.used)).or_broken("reading the memory in use")?;
        text.trim().parse().or_broken("reading the memory in use")
    }

    fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.dir.join(self.limit), bytes.to_string()).or_broken("limiting memory")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _left = fs::remove_dir(&self.dir);
    }
}

async fn memory(place: &Path) -> Result<()> {
    let group = Group::make()?;
    let members = Members::below(place, 3)?;
    let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.dir.display());
    let prefix = ["sh", "-c", &enter, "sh"].map(String::from);
    let mut limited = members.start(1, &prefix)?;
    let mut others = vec![members.start(2, &[])?, members.start(3, &[])?];
    let (clerk, mut work) = (members.clerk(CALL)?, Work::default());
    if !work.write_some(&clerk, 20, &mut limited, PATIENCE).await {
        return Err(Stop::Broken("the cluster does not serve before".into()));
    }
    let limit = group.used()? + SPARE_MEMORY;
    group.limit(limit)?;
    let (begin, mut grown) = (Instant::now(), 0);
    let ended = loop {
        if clerk.put(format!("grown-{grown}"), vec![b'x'; 8_000]).await.is_ok() {
            grown += 1;
        }
        match limited.ended() {
            Some(ended) => break ended,
            None if begin.elapsed() > PATIENCE * 2 => {
                return Err(Stop::Broken(format!("{grown} large values did not exhaust {limit} bytes")));
            }
            None => {}
        }
    };
    if ended != Ended::Killed {
        return Err(Stop::Red(format!("out of memory, the member ended with {ended:?}")));
    }
    println!("memory: killed by the kernel at {limit} bytes, after {grown} large values");
    let served = work.write_some(&clerk, 20, &mut others[0], PATIENCE).await;
    if !served {
        return Err(Stop::Red("two of three do not serve".into()));
    }
    work.reads_back(&clerk).await?;
    for nth in 0..grown {
        let found = clerk.get(format!("grown-{nth}")).await.map_err(|error| Stop::Red(error.to_string()))?;
        if found.is_none() {
            return Err(Stop::Red(format!("grown-{nth} was acknowledged, and is gone")));
        }
    }
    others.clear();
    work.survives(&members).await?;
    println!("memory: {} and {grown} acknowledged, none lost", work.acked);
    Ok(())
}

async fn clock(place: &Path) -> Result<()> {
    let library = fs::read_dir("/usr/lib").or_broken("looking for libfaketime")?.flatten();
    let library =
        library.map(|entry| entry.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
    let library = library.ok_or(Stop::Skipped("needs libfaketime.so.1 (Debian package faketime)".into()))?;
    let members = Members::below(place, 3)?;
    let offset = place.join("offset");
    fs::write(&offset, "+0d\n").or_broken("setting the clock")?;
    let prefix = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let mut leaping = members.start(1, &prefix)?;
    let mut others = vec![members.start(2, &[])?, members.start(3, &[])?];
    let (clerk, mut work) = (members.clerk(CALL)?, Work::default());
    for leap in ["+0d", "+365d", "-365d", "+0d"] {
        fs::write(&offset, format!("{leap}\n")).or_broken("setting the clock")?;
        probe(&prefix, leap)?;
        if !work.write_some(&clerk, 40, &mut leaping, PATIENCE).await {
            return Err(Stop::Red(format!("the cluster does not serve with one clock at {leap}")));
        }
        work.reads_back(&clerk).await?;
    }
    // It starts, and joins, with a clock that is off.
    leaping.kill();
    fs::write(&offset, "-365d\n").or_broken("setting the clock")?;
    let mut leaping = members.start(1, &prefix)?;
    others.truncate(1);
    if !work.write_some(&clerk, 20, &mut leaping, PATIENCE).await {
        return Err(Stop::Red("the cluster does not serve with a member started a year ago".into()));
    }
    drop(leaping);
    others.clear();
    work.survives(&members).await?;
    println!("clock: {} acknowledged, none lost, {} calls failed", work.acked, work.failed);
    Ok(())
}

/// Whether the clock leaps at all.
fn probe(prefix: &[String], leap: &str) -> Result<()> {
    let output = std::process::Command::new(&prefix[0]).args(&prefix[1..]).args(["date", "+%s"]).output();
    let text = String::from_utf8_lossy(&output.or_broken("starting date")?.stdout).into_owned();
    let shown: i64 = text.trim().parse().or_broken("reading the leapt clock")?;
    let now = std::time::UNIX_EPOCH.elapsed().or_broken("reading the clock")?.as_secs();
    let days = (shown - i64::try_from(now).unwrap_or(0) + 43_200).div_euclid(86_400);
    match leap.trim_end_matches('d').parse::<i64>() {
        Ok(wanted) if days == wanted => Ok(()),
        Ok(_) | Err(_) => Err(Stop::Broken(format!("the clock is off by {days} days, not {leap}"))),
    }
}
