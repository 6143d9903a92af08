//! A kill and an error at the n-th system call, for every n, of each part of a member's life: strace stands in the way
//! of the one thread that does that part, because it counts calls by thread.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Result, Scenery, Stop};
use crate::process::{Ended, Members, Process, STORAGE};
use crate::tools;
use crate::work::Work;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// One part alone: start, recover, append, rotate, snapshot or vote
    #[arg(long)]
    part: Option<String>,
    /// Of the places n, only every so many-th
    #[arg(long, default_value_t = 1)]
    every: u64,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// How long a member that met an error may take to stop.
const STOPPING: Duration = Duration::from_secs(1);
const CALL: Duration = Duration::from_secs(2);
/// A sweep ends where the work is done before its n-th call; one that has not by here never will.
const PLACES_MAX: u64 = 400;

const RENAME: &str = "rename,renameat,renameat2";
const UNLINK: &str = "unlink,unlinkat";
const CALLS: [&str; 5] = ["fdatasync", "fsync", "pwrite64", RENAME, UNLINK];
/// What writing a log alone does, what making a file does besides, and what taking away another one does.
const WRITES: &[&str] = &["fdatasync", "pwrite64"];
const MAKES: &[&str] = &["fdatasync", "fsync", "pwrite64", RENAME];
const ALL: &[&str] = &CALLS;
const KILL: &str = "signal=KILL";
const NO_SPACE: &str = "error=ENOSPC";
const FAULTS: [&str; 3] = [KILL, "error=EIO", NO_SPACE];

/// A part of a member's life.
struct Part {
    name: &'static str,
    /// The thread that does it; `None`: from the first instruction on, all threads.
    thread: Option<&'static str>,
    members: u64,
    /// Writes that bring it about.
    writes: u64,
    /// Begins with the directory that a kill left.
    used: bool,
    /// The calls that it must meet; it may meet others.
    meets: &'static [&'static str],
}

const PARTS: [Part; 6] = [
    Part { name: "start", thread: None, members: 1, writes: 2, used: false, meets: MAKES },
    Part { name: "recover", thread: None, members: 1, writes: 2, used: true, meets: MAKES },
    Part { name: "append", thread: Some("raftmap-log"), members: 1, writes: 10, used: false, meets: WRITES },
    Part { name: "rotate", thread: Some("raftmap-chores"), members: 1, writes: 60, used: false, meets: ALL },
    Part {
        name: "snapshot",
        thread: Some("raftmap-jobs"),
        members: 1,
        writes: 60,
        used: false,
        meets: MAKES,
    },
    Part { name: "vote", thread: Some("raftmap-log"), members: 3, writes: 4, used: false, meets: WRITES },
];

/// Points of one (part, call, fault), and how they ended.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    points: u64,
    killed: u64,
    stopped: u64,
    went_on: u64,
}

pub(crate) fn run(asked: &Asked) -> Result<()> {
    tools::need(&[("strace", "strace")])?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    let parts = PARTS.iter().filter(|part| asked.part.as_deref().is_none_or(|name| name == part.name));
    let (mut all, mut missed) = (BTreeMap::<&str, u64>::new(), Vec::new());
    let every = asked.every.max(1);
    for part in parts {
        for call in CALLS {
            for fault in FAULTS.into_iter().filter(|fault| *fault != NO_SPACE || call == "pwrite64") {
                let count = runtime.block_on(sweep(part, call, fault, every))?;
                let Count { points, killed, stopped, went_on } = count;
                println!(
                    "{:<9} {call:<25} {fault:<12} {points:>3} points: {killed} killed, {stopped} stopped, {went_on} went on",
                    part.name
                );
                *all.entry(part.name).or_default() += points;
                if points == 0 && part.meets.contains(&call) {
                    missed.push(format!("{} {call} {fault}", part.name));
                }
            }
        }
    }
    println!("points by part: {all:?}");
    if every > 1 {
        println!("n = 1, {}, {}, ... only: --every 1 for all of them", 1 + every, 1 + 2 * every);
    }
    match (all.is_empty(), missed.is_empty()) {
        (true, _) => Err(Stop::Broken("there is no such part".into())),
        (false, false) => Err(Stop::Broken(format!("never met, so nothing is shown: {}", missed.join("; ")))),
        (false, true) => Ok(()),
    }
}

/// Every n, until the work is done without an injection.
async fn sweep(part: &Part, call: &str, fault: &str, every: u64) -> Result<Count> {
    let mut count = Count::default();
    for n in (1..PLACES_MAX).step_by(usize::try_from(every).unwrap_or(1)) {
        let place = tempfile::tempdir().or_broken("making a place")?;
        let inject = Inject { call, fault, n, trace: place.path().join("trace") };
        let point = point(part, &inject, place.path()).await;
        let again = format!("{} {call} {fault} n={n}", part.name);
        let ended = match point {
            Ok(ended) => ended,
            Err(stop) => {
                let kept = place.keep();
                return Err(prefixed(&format!("{again} ({} is kept)", kept.display()), stop));
            }
        };
        match ended {
            None => break,
            Some(Outcome::Killed) => count.killed += 1,
            Some(Outcome::Stopped) => count.stopped += 1,
            Some(Outcome::WentOn) => count.went_on += 1,
        }
        count.points += 1;
    }
    Ok(count)
}

fn prefixed(place: &str, stop: Stop) -> Stop {
    match stop {
        Stop::Red(what) => Stop::Red(format!("{place}: {what}")),
        Stop::Broken(what) => Stop::Broken(format!("{place}: {what}")),
        Stop::Skipped(what) => Stop::Skipped(what),
    }
}

struct Inject<'a> {
    call: &'a str,
    fault: &'a str,
    n: u64,
    trace: PathBuf,
}

impl Inject<'_> {
    fn arguments(&self) -> Vec<String> {
        let Self { call, fault, n, trace } = self;
        let trace = trace.display().to_string();
        vec![
            "-o".into(),
            trace,
            "-e".into(),
            format!("trace={call}"),
            "-e".into(),
            format!("inject={call}:{fault}:when={n}"),
        ]
    }

    /// Of an error the trace tells; a kill of ours shows in that somebody ended whom nobody else killed.
    fn fired(&self, ended: Option<Ended>) -> bool {
        match self.fault {
            KILL => ended.is_some(),
            _ => fs::read_to_string(&self.trace).unwrap_or_default().contains("INJECTED"),
        }
    }
}

/// What became of the member that was hit.
enum Outcome {
    Killed,
    Stopped,
    WentOn,
}

/// One place: the fault, the end or the going on, and everything acknowledged afterwards. `None`: it never fired.
async fn point(part: &Part, inject: &Inject<'_>, dir: &Path) -> Result<Option<Outcome>> {
    let members = Members::below(dir, part.members)?;
    let mut work = Work::default();
    if part.used {
        use_and_kill(&members, &mut work).await?;
    }
    let ended = match part.thread {
        None => from_the_start(part, inject, &members, &mut work).await?,
        Some(thread) if part.members == 1 => in_thread(part, thread, inject, &members, &mut work).await?,
        Some(thread) => in_voter(part, thread, inject, &members, &mut work).await?,
    };
    if !inject.fired(ended) {
        return match ended {
            None => Ok(None),
            Some(ended) => Err(Stop::Red(format!("it ended with {ended:?}, and nothing had been injected"))),
        };
    }
    work.survives(&members).await?;
    match ended {
        Some(Ended::Killed) if inject.fault == KILL => Ok(Some(Outcome::Killed)),
        Some(Ended::Code(STORAGE)) if inject.fault != KILL => Ok(Some(Outcome::Stopped)),
        // Want of space may be waited for. Any other failure is final.
        None if inject.fault == NO_SPACE => Ok(Some(Outcome::WentOn)),
        other => Err(Stop::Red(format!("it ended with {other:?} (`None`: it goes on)"))),
    }
}

/// A directory with all kinds of files, as SIGKILL leaves it.
async fn use_and_kill(members: &Members, work: &mut Work) -> Result<()> {
    let mut process = members.start(1, &[])?;
    let clerk = members.clerk(CALL)?;
    let made = work.write_some(&clerk, 40, &mut process, PATIENCE).await;
    process.kill();
    made.then_some(()).ok_or(Stop::Broken("the directory to recover from could not be made".into()))
}

/// How the process ended; `None`: it serves. In between there is nothing.
async fn ends_or_serves(
    process: &mut Process,
    work: &mut Work,
    members: &Members,
    writes: u64,
) -> Result<Option<Ended>> {
    let clerk = members.clerk(CALL)?;
    if work.write_some(&clerk, writes, process, PATIENCE).await {
        // The last of the work may have met the fault: a member that is about to stop is given the time.
        return Ok(process.wait(STOPPING));
    }
    match process.wait(Duration::from_secs(5)) {
        Some(ended) => Ok(Some(ended)),
        None => Err(Stop::Red(format!("it neither ended nor served for {PATIENCE:?}"))),
    }
}

async fn from_the_start(
    part: &Part,
    inject: &Inject<'_>,
    members: &Members,
    work: &mut Work,
) -> Result<Option<Ended>> {
    let mut prefix: Vec<String> = vec!["strace".into(), "-D".into(), "-f".into()];
    prefix.extend(inject.arguments());
    let mut process = members.start(1, &prefix)?;
    let ended = ends_or_serves(&mut process, work, members, part.writes).await;
    process.kill();
    wait_for_trace(inject);
    ended
}

async fn in_thread(
    part: &Part,
    thread: &str,
    inject: &Inject<'_>,
    members: &Members,
    work: &mut Work,
) -> Result<Option<Ended>> {
    let mut process = members.start(1, &[])?;
    let clerk = members.clerk(CALL)?;
    if !work.write_some(&clerk, 1, &mut process, PATIENCE).await {
        return Err(Stop::Broken("the member does not serve before anything was done to it".into()));
    }
    let mut tracer = attach(&process, thread, inject)?;
    let ended = ends_or_serves(&mut process, work, members, part.writes).await;
    process.kill();
    let _gone = tracer.wait();
    ended
}

/// Three members; the leader is killed, and the fault hits the log of one that now votes.
async fn in_voter(
    part: &Part,
    thread: &str,
    inject: &Inject<'_>,
    members: &Members,
    work: &mut Work,
) -> Result<Option<Ended>> {
    let mut processes = members.start_all()?;
    let clerk = members.clerk(CALL)?;
    let first = processes.values_mut().next().ok_or(Stop::Broken("no members".into()))?;
    if !work.write_some(&clerk, part.writes, first, PATIENCE).await {
        return Err(Stop::Broken("the members do not serve before anything was done to them".into()));
    }
    let leader = members.leader().await?;
    let voter = leader % members.addresses.len() as u64 + 1;
    let hit = processes.get(&voter).ok_or(Stop::Broken("no voter".into()))?;
    let mut tracer = attach(hit, thread, inject)?;
    drop(processes.remove(&leader));
    let hit = processes.get_mut(&voter).ok_or(Stop::Broken("no voter".into()))?;
    let ended = ends_or_serves(hit, work, members, part.writes).await;
    processes.clear();
    let _gone = tracer.wait();
    ended
}

fn attach(process: &Process, thread: &str, inject: &Inject<'_>) -> Result<Child> {
    let id = process.thread(thread).ok_or(Stop::Broken(format!("there is no thread {thread}")))?;
    let tracer = Command::new("strace")
        .args(inject.arguments())
        .args(["-p", &id.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .or_broken("starting strace")?;
    let status = format!("/proc/{}/task/{id}/status", process.pid());
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let text = fs::read_to_string(&status).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")) {
            return Ok(tracer);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Stop::Broken("strace does not attach".into()))
}

/// A detached tracer writes its last words behind its tracee's end.
fn wait_for_trace(inject: &Inject<'_>) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let trace = fs::read_to_string(&inject.trace).unwrap_or_default();
        if trace.lines().any(|line| line.contains("+++")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
