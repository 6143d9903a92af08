//! How fast the world runs: simulated hours in one hour of a processor, for three nodes in peace under 200 writes a second.

use std::time::Duration;

use raftmap::Timing;
use raftmap::node::inbox::Bounds;
use raftmap::node::open::Sizes;

use crate::setup::{Faults, Load, Net, Setup, WAKEUP};
use crate::world::{Report, World};

/// Writes that one of the clients' slots has under way or is pausing between; each comes round every 200 ms.
const SLOTS: usize = 40;

/// What a run came to.
#[derive(Debug)]
pub struct Speed {
    pub report: Report,
    /// Time of the processor.
    pub took: Duration,
    /// The same, where nothing was checked.
    pub unwatched: Duration,
}

/// Three nodes as production has them, on disks and a network of a small data centre.
pub fn setup(seed: u64, length: Duration) -> Setup {
    let mut setup = Setup::draw(seed);
    let millis = Duration::from_millis;
    let limits = setup.limits;
    (setup.nodes, setup.timing, setup.max_raft_state) = (3, Timing::default(), Some(1 << 20));
    (setup.clocks, setup.syncs) = (vec![1_000; 3], vec![millis(1); 3]);
    setup.sizes = Sizes::new(setup.max_raft_state, limits.proposal_bytes() as u32 + 1);
    setup.limits.sessions = 1_024;
    (setup.wakeup, setup.inbox) = (WAKEUP, Bounds::default());
    (setup.faults, setup.looks_often) = (Faults::none(), false);
    let quarter = millis(1) / 4;
    setup.net =
        Net { delay: quarter, jitter: quarter, loss: 0, doubled: 0, late: 0, broken: 0, uneven: false };
    setup.load = Load {
        clients: 5,
        pipeline: SLOTS / 5,
        open: false,
        window: 1_024,
        keys: 5,
        filler: 100,
        reads: 0,
        lazy: 1,
        think: millis(400),
        deadline: millis(5_000),
        forget: 0,
    };
    setup.safety = length;
    setup
}

/// Runs it, checks and all, and once more without.
pub fn measure(seed: u64, length: Duration) -> Speed {
    let run = |watched| {
        let before = cpu();
        let report = World::run(Setup { watched, ..setup(seed, length) });
        (report, cpu() - before)
    };
    let ((report, took), (other, unwatched)) = (run(true), run(false));
    assert_eq!(report.popped, other.popped, "the checks change nothing but the time");
    Speed { report, took, unwatched }
}

impl Speed {
    /// Simulated hours in one hour of a processor.
    pub fn ratio(&self) -> f64 {
        self.report.time.as_secs_f64() / self.took.as_secs_f64()
    }

    pub fn print(&self) {
        let Self { report, took, unwatched } = self;
        let (world, cpu, alone) = (report.time.as_secs_f64(), took.as_secs_f64(), unwatched.as_secs_f64());
        println!(
            "{world:.0} s in the world, {cpu:.2} s of a processor: {:.0} simulated hours per CPU-hour",
            self.ratio()
        );
        println!(
            "without checks {alone:.2} s of a processor: {:.0} simulated hours per CPU-hour; checks take {:.0} %",
            world / alone,
            (1.0 - alone / cpu) * 100.0
        );
        println!(
            "{:.0} calls/s in the world, {} events, {:.0} events/s of a processor",
            report.done as f64 / world,
            report.popped,
            report.popped as f64 / cpu
        );
    }
}

/// Time that this thread has had on a processor; true time where the system does not say.
pub fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    ran.map_or_else(since_start, Duration::from_nanos)
}

fn since_start() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}
