//! Power cuts of a whole cluster on one real file system: one recording of its block writes, then as many cuts as are
//! asked for, each a fresh copy of the device as the cut left it, mounted, recovered and held against the ledger.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::block_log::BlockLog;
use crate::check::Violation;
use crate::device::{self, Kind, Logged, Mounted};
use crate::error::{Result, Scenery, Stop};
use crate::image::{Cut, Image, Tear};
use crate::ledger::{Book, Ledger, Moment};
use crate::liar::Lie;
use crate::random::Random;
use crate::{check, load, restart, witness};

/// Cuts made of one recording.
const CUTS_PER_RECORDING: u64 = 50;
/// Cuts made of a control's recording.
const CUTS_PER_CONTROL: u64 = 60;
/// Recordings that a control is given until it loses something.
const RECORDINGS_PER_CONTROL: u64 = 10;
/// Red cuts of a control that are told in words.
const RED_TOLD: u64 = 2;
/// Every so many cuts the cluster is started again.
const RESTART_EVERY: u64 = 10;
/// A recording that used fewer segments of the log does not count.
const SEGMENTS_MIN: u64 = 4;

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// The file system
    #[arg(long, value_enum, default_value = "ext4")]
    fs: Kind,
    /// Cuts of the honest disk
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// Which control runs with them; all three where it is not given
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// In order and torn alone, without subsets of what was not flushed
    #[arg(long)]
    ordered: bool,
    /// Draws the load and the cuts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of load in each recording
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Results are added to this file, a JSON line each
    #[arg(long, value_name = "FILE")]
    tally: Option<PathBuf>,
    /// Where evidence of a red cut is kept
    #[arg(long, value_name = "DIR", default_value = "target/faults")]
    keep: PathBuf,
}

/// Which lies are told beside the honest run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Control {
    None,
    LazyFsync,
    NoDirFsync,
    NoVoteSync,
}

impl Asked {
    fn lies(&self) -> Vec<Lie> {
        match self.control {
            None => Lie::ALL.into(),
            Some(Control::None) => vec![],
            Some(Control::LazyFsync) => vec![Lie::LazyFsync],
            Some(Control::NoDirFsync) => vec![Lie::NoDirFsync],
            Some(Control::NoVoteSync) => vec![Lie::NoVoteSync],
        }
    }
}

/// What a cut left, for the next recording to begin with: the power goes again while members recover.
struct Left {
    image: PathBuf,
    ledger: Ledger,
    /// Goes with it.
    _place: TempDir,
}

/// A line of the tally.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tally {
    fs: String,
    control: String,
    seed: u64,
    cuts: u64,
    subsets: u64,
    /// Cuts on a device that an earlier cut had left.
    #[serde(default)]
    second: u64,
    /// Cuts with a broken promise of any kind.
    red: u64,
    /// Cuts that lost something acknowledged.
    lost: u64,
    restarts: u64,
    acked: u64,
    /// Acknowledged writes that were due at a cut, over all cuts.
    checked: u64,
    elected: u64,
    crashes: u64,
    segments: u64,
    snapshots: u64,
    block_writes: u64,
    seconds: f64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.subsets += other.subsets;
        self.second += other.second;
        self.red += other.red;
        self.lost += other.lost;
        self.restarts += other.restarts;
        self.acked += other.acked;
        self.checked += other.checked;
        self.elected += other.elected;
        self.crashes += other.crashes;
        self.segments += other.segments;
        self.snapshots += other.snapshots;
        self.block_writes += other.block_writes;
        self.seconds += other.seconds;
    }
}

/// Runs what is asked for.
pub(crate) fn run(asked: &Asked) -> Result<()> {
    device::need(asked.fs)?;
    witness::install();
    let mut sum = Tally::default();
    let (mut seed, mut left) = (asked.seed, None);
    while sum.cuts < asked.cuts {
        let cuts = CUTS_PER_RECORDING.min(asked.cuts - sum.cuts);
        let tally = one_recording(asked, None, seed, cuts, &mut left)?;
        println!("{}", line(&tally));
        note(asked, &tally)?;
        sum.add(&tally);
        if tally.red > 0 {
            return Err(Stop::Red(format!("{} of {} cuts, seed {seed}", tally.red, tally.cuts)));
        }
        seed += 1;
    }
    for lie in asked.lies() {
        control(asked, lie)?;
    }
    println!(
        "{} cuts on {}, 0 red, {} acknowledged writes found again",
        sum.cuts,
        asked.fs.name(),
        sum.checked
    );
    totals(asked)
}

/// A lie must be found out.
fn control(asked: &Asked, lie: Lie) -> Result<()> {
    let mut sum = Tally::default();
    for nth in 0..RECORDINGS_PER_CONTROL {
        let tally = one_recording(asked, Some(lie), asked.seed + nth, CUTS_PER_CONTROL, &mut None)?;
        println!("{}", line(&tally));
        note(asked, &tally)?;
        sum.add(&tally);
        if sum.lost > 0 {
            return Ok(());
        }
    }
    Err(Stop::Red(format!(
        "the control {} lost nothing in {} cuts: the cuts prove nothing",
        lie.name(),
        sum.cuts
    )))
}

fn line(tally: &Tally) -> String {
    let Tally { fs, control, seed, cuts, subsets, red, lost, restarts, acked, elected, crashes, .. } = tally;
    format!(
        "{fs} {control} seed {seed}: {red} of {cuts} cuts red, {lost} with a loss ({subsets} subsets, {} second, {restarts} restarts); \
         {acked} acknowledged, {elected} elections, {crashes} crashes, {} segments, {} snapshots, {} block writes; {:.1} s",
        tally.second, tally.segments, tally.snapshots, tally.block_writes, tally.seconds
    )
}

fn note(asked: &Asked, tally: &Tally) -> Result<()> {
    let Some(path) = &asked.tally else { return Ok(()) };
    let mut file = File::options().append(true).create(true).open(path).or_broken("opening the tally")?;
    let text = serde_json::to_string(tally).or_broken("writing the tally")?;
    writeln!(file, "{text}").or_broken("writing the tally")
}

/// The sums of the whole tally, this run and those before it.
fn totals(asked: &Asked) -> Result<()> {
    let Some(path) = &asked.tally else { return Ok(()) };
    let text = fs::read_to_string(path).or_broken("reading the tally")?;
    let mut sums = std::collections::BTreeMap::<(String, String), Tally>::new();
    for tally in text.lines().filter_map(|line| serde_json::from_str::<Tally>(line).ok()) {
        sums.entry((tally.fs.clone(), tally.control.clone())).or_default().add(&tally);
    }
    for ((fs, control), sum) in sums {
        println!(
            "total {fs} {control}: {} of {} cuts red, {} with a loss; {} subsets, {} second, {} restarts, {} acknowledged writes checked",
            sum.red, sum.cuts, sum.lost, sum.subsets, sum.second, sum.restarts, sum.checked
        );
    }
    Ok(())
}

/// In memory where that can be had: cuts are many, and what they are made of is large.
fn place() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { Path::new("/tmp") };
    tempfile::Builder::new().prefix("raftmap-faults-").tempdir_in(place).or_broken("making a place")
}

/// One recording and its cuts. It begins with what `left` has, and otherwise leaves what its middle cut did.
fn one_recording(
    asked: &Asked,
    lie: Option<Lie>,
    seed: u64,
    cuts: u64,
    left: &mut Option<Left>,
) -> Result<Tally> {
    let begin = Instant::now();
    let work = place()?;
    let second = left.take();
    let (ledger, segments, snapshots) = record(asked, lie, seed, second.as_ref(), work.path())?;
    let log = BlockLog::read(&work.path().join("log.raw"))?;
    if !load::enough(&ledger) || segments < SEGMENTS_MIN {
        let (acked, elected) = (ledger.acked_here(), ledger.elected_here());
        return Err(Stop::Broken(format!(
            "too little happened to count: {acked} writes, {elected} elections, {segments} segments, {snapshots} snapshots"
        )));
    }
    let mut tally = Tally {
        fs: asked.fs.name().into(),
        control: lie.map_or("none", Lie::name).into(),
        seed,
        acked: ledger.acked_here() as u64,
        elected: ledger.elected_here() as u64,
        crashes: ledger.crashes,
        segments,
        snapshots,
        block_writes: log.entries.iter().filter(|entry| entry.length > 0).count() as u64,
        ..Tally::default()
    };
    let mut image = Image::read(&work.path().join("base.raw"))?;
    for (nth, cut) in (1..).zip(draw(asked, lie, &ledger, &log, seed, cuts)) {
        image.advance(&log, Image::base(&log, &cut))?;
        let restarts = lie.is_none() && nth % RESTART_EVERY == 0;
        let broken = one_cut(&image, &log, &cut, &ledger, work.path(), restarts)?;
        tally.cuts += 1;
        tally.subsets += u64::from(cut.tear == Tear::Subset);
        tally.second += u64::from(second.is_some());
        if second.is_none() && nth == cuts.div_ceil(2) {
            *left = Some(leave(&image, &log, &cut, &ledger)?);
        }
        tally.restarts += u64::from(restarts);
        tally.checked += ledger.acked.iter().filter(|acked| acked.at <= cut.at as Moment).count() as u64;
        if broken.is_empty() {
            continue;
        }
        tally.red += 1;
        tally.lost += u64::from(broken.iter().any(|broken| matches!(broken, Violation::Lost(_))));
        if lie.is_none() || tally.red <= RED_TOLD {
            println!("  {} {} {cut:?}: {}", asked.fs.name(), tally.control, words(&broken));
        }
        if lie.is_none() {
            keep(asked, work.path(), seed, &cut, &broken)?;
        }
    }
    tally.seconds = begin.elapsed().as_secs_f64();
    Ok(tally)
}

fn leave(image: &Image, log: &BlockLog, cut: &Cut, ledger: &Ledger) -> Result<Left> {
    let place = place()?;
    let path = place.path().join("left.raw");
    image.write_cut(log, cut, &path)?;
    Ok(Left { image: path, ledger: ledger.clone().after(cut.at as Moment), _place: place })
}

/// Runs the load on a logged device below `work`. The ledger, the highest segment and the number of snapshots made.
fn record(
    asked: &Asked,
    lie: Option<Lie>,
    seed: u64,
    left: Option<&Left>,
    work: &Path,
) -> Result<(Ledger, u64, u64)> {
    let device = Logged::start(asked.fs, left.map(|left| left.image.as_path()), work)?;
    let book = Book::new(device.log()?, left.map(|left| left.ledger.clone()).unwrap_or_default());
    let ledger = load::run(&device.dir(), lie, seed, Duration::from_secs(asked.seconds), &book)?;
    let text = serde_json::to_vec(&ledger).or_broken("writing the ledger")?;
    fs::write(work.join("ledger.json"), text).or_broken("writing the ledger")?;
    let names = fs::read_dir(device.dir().join("1")).or_broken("listing a member's directory")?;
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ids = names.filter_map(|name| name.strip_prefix("seg-")?.strip_suffix(".wal").map(str::to_owned));
    let segments = ids.filter_map(|id| u64::from_str_radix(&id, 16).ok()).max().unwrap_or(0);
    let made: std::collections::BTreeSet<_> = ledger
        .shown
        .iter()
        .filter(|shown| shown.at > 0 && shown.snapshot > 0)
        .map(|shown| (shown.node, shown.snapshot))
        .collect();
    Ok((ledger, segments, made.len() as u64))
}

/// Draws the cuts: a third anywhere, a third right at an acknowledgement, a third right at an election; half of these a
/// few writes later. In the order of what they need of the image.
fn draw(asked: &Asked, lie: Option<Lie>, ledger: &Ledger, log: &BlockLog, seed: u64, cuts: u64) -> Vec<Cut> {
    let mut random = Random::new(seed ^ 0x0c07);
    let end = ledger.end.min(log.entries.len() as u64);
    let mut drawn: Vec<Cut> = (0..cuts)
        .map(|nth| {
            let promise = match nth % 3 {
                0 => None,
                1 => random.pick(&ledger.acked).map(|acked| acked.at),
                _ => random.pick(&ledger.elected).map(|elected| elected.at),
            };
            let at = match promise {
                Some(at) => at + random.below(2) * random.below(6),
                None => random.below(end + 1),
            };
            let tear = match random.below(10) {
                0..3 => Tear::Ordered,
                3..5 => Tear::Torn,
                _ if asked.ordered || lie.is_some() => Tear::Ordered,
                _ => Tear::Subset,
            };
            Cut { at: usize::try_from(at.min(end)).unwrap_or(usize::MAX), tear, seed: random.next() }
        })
        .collect();
    drawn.sort_by_key(|cut| Image::base(log, cut));
    drawn
}

/// Makes one cut and says what it broke.
fn one_cut(
    image: &Image,
    log: &BlockLog,
    cut: &Cut,
    ledger: &Ledger,
    work: &Path,
    restarts: bool,
) -> Result<Vec<Violation>> {
    let path = work.join(format!("cut-{}-{:x}.raw", cut.at, cut.seed));
    image.write_cut(log, cut, &path)?;
    let place = work.join("cut");
    let mounted = Mounted::mount(&path, &place)?;
    // The loop device keeps the file for as long as it is mounted; nothing is left behind then.
    fs::remove_file(&path).or_broken("removing an image")?;
    let at = cut.at as Moment;
    let mut broken = check::promises(&place, ledger, at);
    if restarts && broken.is_empty() {
        broken = restart::promises(&place, ledger, at)?;
    }
    drop(mounted);
    Ok(broken)
}

fn words(broken: &[Violation]) -> String {
    broken.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Everything that is needed to make a red cut again, by `replay`.
fn keep(asked: &Asked, work: &Path, seed: u64, cut: &Cut, broken: &[Violation]) -> Result<()> {
    let dir = asked.keep.join(format!("{}-{seed}", asked.fs.name()));
    fs::create_dir_all(&dir).or_broken("keeping evidence")?;
    for name in ["base.raw", "log.raw", "ledger.json"] {
        let to = dir.join(name);
        if !to.exists() {
            let (from, to) = (work.join(name).display().to_string(), to.display().to_string());
            crate::tools::run("cp", &["--sparse=always", &from, &to])?;
        }
    }
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(dir.join("cuts.json"))
        .or_broken("keeping evidence")?;
    let text = serde_json::to_string(&(cut, words(broken))).or_broken("keeping evidence")?;
    writeln!(file, "{text}").or_broken("keeping evidence")?;
    println!("  kept; again with: cargo run -p raftmap-faults -- replay {}", dir.display());
    Ok(())
}

/// Makes the red cuts of kept evidence again.
pub(crate) fn replay(dir: &Path) -> Result<()> {
    crate::tools::need(&[crate::tools::MOUNT])?;
    let ledger = fs::read(dir.join("ledger.json")).or_broken("reading the ledger")?;
    let ledger: Ledger = serde_json::from_slice(&ledger).or_broken("reading the ledger")?;
    let log = BlockLog::read(&dir.join("log.raw"))?;
    let cuts = fs::read_to_string(dir.join("cuts.json")).or_broken("reading the cuts")?;
    let mut red = 0;
    for text in cuts.lines() {
        let (cut, _): (Cut, String) = serde_json::from_str(text).or_broken("reading the cuts")?;
        let mut image = Image::read(&dir.join("base.raw"))?;
        image.advance(&log, Image::base(&log, &cut))?;
        let broken = one_cut(&image, &log, &cut, &ledger, dir, true)?;
        println!("{cut:?}: {}", if broken.is_empty() { "green".into() } else { words(&broken) });
        red += usize::from(!broken.is_empty());
    }
    match red {
        0 => Ok(()),
        _ => Err(Stop::Red(format!("{red} cuts"))),
    }
}
