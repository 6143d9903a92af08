//! What a seed draws before its world begins: size, times, limits, and which faults there are at all. Small limits and
//! few faults at a time make rare paths common.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raftmap::node::inbox::Bounds;
use raftmap::node::open::Sizes;
use raftmap::storage::Options;
use raftmap::{Limits, NodeConfig, Timing};

use crate::dice::Dice;
use crate::faults::names;
use crate::less::Less;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Everything that is fixed for the life of a world.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub nodes: usize,
    pub timing: Timing,
    pub max_raft_state: Option<u64>,
    pub limits: Limits,
    pub sizes: Sizes,
    /// What may wait for a replica.
    pub inbox: Bounds,
    pub load: Load,
    pub faults: Faults,
    pub net: Net,
    /// Each node's clock runs this many thousandths as fast as true time.
    pub clocks: Vec<u64>,
    /// What each node's clock shows at the beginning; 0 where there is none.
    pub offsets: Vec<Duration>,
    /// Each node's usual time of a sync.
    pub syncs: Vec<Duration>,
    /// What a replica's thread waits for its processor, at most; what comes meanwhile it takes together.
    pub wakeup: Duration,
    /// How long faults go on.
    pub safety: Duration,
    /// What is broken on purpose, to see the checks notice.
    pub sabotage: Option<Sabotage>,
    /// Whether anything is checked: without, one sees what checks cost.
    pub watched: bool,
    /// Whether disks are looked at often, however much they hold: that reads all of them.
    pub looks_often: bool,
    /// What is left out of all this.
    pub less: Less,
}

/// The usual [`Setup::wakeup`].
pub const WAKEUP: Duration = Duration::from_micros(200);

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    /// Calls of one client at a time.
    pub pipeline: usize,
    /// Clients call when it is time, whatever became of their calls before; otherwise each call waits for the end of one.
    pub open: bool,
    /// Writes of one client with a number and no answer.
    pub window: u64,
    pub keys: u64,
    /// Bytes of filler in a put, at most.
    pub filler: u64,
    /// Thousandths of calls that read.
    pub reads: u64,
    /// Every other client pauses this many times as long: it comes back to a server that all the others have left.
    pub lazy: u32,
    /// Pause between two calls, at most.
    pub think: Duration,
    pub deadline: Duration,
    /// Thousandths of calls with unknown outcome that are given up instead of asked again.
    pub forget: u64,
}

/// Which faults there are.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Time between two, at most; `None`: no faults.
    pub every: Option<Duration>,
    pub kill: bool,
    pub power: bool,
    pub torn: bool,
    /// Thousandths of recoveries that are crashed.
    pub in_recovery: u64,
    pub pause: bool,
    pub partition: bool,
    pub slow_disk: bool,
    pub bad_calls: bool,
    pub full_disk: bool,
    pub bad_link: bool,
    pub crash_loop: bool,
    /// Clocks leap.
    pub leap: bool,
    /// Disks rot, lie and put sectors elsewhere, as far as the atlas permits.
    pub harm: bool,
    /// Directories are rolled back, emptied, copied.
    pub directory: bool,
    /// Clients die, and leave their sessions behind.
    pub clients: bool,
    /// At the end a minority stays as broken as it can be.
    pub crippled: bool,
    /// The end is the damage of every copy of a record.
    pub total: bool,
}

/// How links are when nothing is cut.
#[derive(Clone, Debug)]
pub struct Net {
    pub delay: Duration,
    /// On top of it, at most: reorders.
    pub jitter: Duration,
    /// Thousandths.
    pub loss: u64,
    /// Thousandths.
    pub doubled: u64,
    /// Thousandths that are late by up to two seconds.
    pub late: u64,
    /// Thousandths of what clients ask and are told that is lost with its connection.
    pub broken: u64,
    /// Each direction of each link has a delay, a loss and a doubling of its own, around these.
    pub uneven: bool,
}

/// A way to break the world, for tests that want to see it go red.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The log writer says that batches are durable when it is given them.
    EarlyDurable,
    /// The same, where it leads and no vote is in the batch: only what is committed without a durable quorum shows it.
    EarlyLeader,
    /// Disks say that they have synced and have not: seen by looking at them.
    LyingDisks,
    /// Clients take stale answers for reads.
    StaleReads,
    /// Disks are harmed and set back whether the cluster can bear it or not.
    NoAtlas,
}

impl Sabotage {
    pub const ALL: [Self; 5] =
        [Self::EarlyDurable, Self::EarlyLeader, Self::LyingDisks, Self::StaleReads, Self::NoAtlas];
}

impl Setup {
    pub fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "setup");
        let nodes = dice.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let heartbeat = dice.pick(&[10, 20, 50, 50, 100]);
        let election_min = heartbeat * dice.between(4, 8);
        let election_max = election_min + dice.between(10, 2 * election_min);
        let timing = Timing {
            heartbeat: millis(heartbeat),
            election_min: millis(election_min),
            election_max: millis(election_max),
        };
        // A record that every log has, and more behind it: seldom where snapshots come often.
        let total = Dice::new(seed, "total damage").below(32) == 0;
        let max_raft_state = match dice.below(8) {
            _ if total => None,
            0 => None,
            1 | 2 => Some(dice.between(1_000, 4_000)),
            _ => Some((1_000 << dice.below(12)).min(1 << 20)),
        };
        let segment_bytes = 16_384 << dice.below(7);
        let mut limits = Limits {
            key_bytes: 64,
            // The largest entry must fit a segment.
            value_bytes: if segment_bytes < 32_768 { 8_192 } else { 16_384 },
            sessions: dice.pick(&[16, 64, 1_024]),
            session_ttl_ms: dice.pick(&[3_000, 10_000, 3_600_000, 3_600_000]),
            window: 1_024,
        };
        let drift = dice.pick(&[0, 10, 200, 300]);
        let clocks = (0..nodes).map(|_| dice.between(1_000 - drift, 1_000 + drift)).collect();
        let syncs = (0..nodes).map(|_| dice.time(millis(1) / 10, millis(10))).collect();
        let mut sizes = draw_sizes(&mut dice, max_raft_state, &limits, segment_bytes);
        let mut load = Load::draw(&mut dice);
        load.open = Dice::new(seed, "open loop").below(8) == 0;
        if load.open {
            load.pipeline = 1;
        }
        if load.filler > 1_000 {
            // An emptied disk must be full again before the end's patience is.
            sizes.log.batch_bytes = sizes.log.batch_bytes.max(65_536);
        }
        let (mut faults, mut net) = (Faults::draw(&mut dice), Net::draw(&mut dice));
        let mut deaths = Dice::new(seed, "clients die");
        faults.clients = deaths.below(4) == 0;
        if faults.clients {
            // As many as are needed, and few more: who comes anew waits until a dead one's session expires.
            limits.sessions = load.clients as u32 + deaths.below(3) as u32;
            limits.session_ttl_ms = limits.session_ttl_ms.min(10_000);
        }
        if limits.sessions <= 16 {
            // Late answers leave sessions behind, and a full table must have room again before the end's patience is over.
            limits.session_ttl_ms = limits.session_ttl_ms.min(10_000);
        }
        // A log that is seldom compacted hardly asks for space.
        faults.full_disk &= max_raft_state.is_some_and(|bound| bound <= 16_000);
        // What every disk is to lose at the end, none may have lost before.
        (faults.total, faults.harm, faults.directory) =
            (total, faults.harm && !total, faults.directory && !total);
        net.doubled = if nodes == 1 { 0 } else { net.doubled };
        let mut links = Dice::new(seed, "links");
        (net.uneven, net.broken) = (links.below(4) == 0, links.pick(&[0, 0, 0, 0, 0, 0, 5, 50]));
        let wakeup = Dice::new(seed, "threads").pick(&[WAKEUP, WAKEUP, WAKEUP, millis(5)]);
        let offsets = (0..nodes).map(|_| dice.time(millis(1), millis(86_400_000))).collect();
        // Long enough for each kind to have its turn.
        let kinds = names(&faults, nodes).len() as u32;
        let safety = millis(dice.between(2_500, 7_000)).max(faults.every.unwrap_or_default() * kinds * 3 / 4);
        Self {
            seed,
            nodes,
            timing,
            max_raft_state,
            limits,
            sizes,
            inbox: draw_inbox(&mut Dice::new(seed, "inbox"), &limits),
            load,
            faults,
            net,
            clocks,
            offsets,
            syncs,
            wakeup,
            safety,
            sabotage: None,
            watched: true,
            looks_often: Dice::new(seed, "looks").below(16) == 0,
            less: Less::default(),
        }
    }

    /// The configuration of the node in this place.
    pub fn node(&self, at: usize) -> NodeConfig {
        let peers: BTreeMap<u64, SocketAddr> =
            (0..self.nodes).map(|at| (at as u64 + 1, address(at))).collect();
        NodeConfig {
            id: at as u64 + 1,
            dir: PathBuf::from("/disk"),
            listen: address(at),
            peers,
            max_raft_state: self.max_raft_state,
            identity: None,
            limits: self.limits,
            timing: self.timing,
        }
    }
}

/// Half of the worlds have production's sizes, but for its large segments; the others such that every limit is met.
fn draw_sizes(dice: &mut Dice, max_raft_state: Option<u64>, limits: &Limits, segment_bytes: u64) -> Sizes {
    let payload_max = limits.proposal_bytes() as u32 + 1;
    let usual = Sizes::new(max_raft_state, payload_max);
    let log = Options {
        segment_bytes,
        payload_max,
        spares: dice.between(1, 3) as usize,
        batch_bytes: dice.pick(&[4_096, 65_536, 4 << 20]),
    };
    if dice.below(2) == 0 {
        return Sizes { log, ..usual };
    }
    Sizes {
        log,
        tail_bytes: dice.pick(&[0, 1_000, 100_000]),
        append_bytes: dice.pick(&[200, 2_000, 100_000]),
        append_entries: dice.between(1, 64) as usize,
        inflight_appends: dice.between(1, 16) as usize,
        inflight_bytes: dice.pick(&[20_000, 200_000]),
        uncommitted_bytes: dice.pick(&[20_000, 200_000]),
        waiting: dice.between(1, 64) as usize,
    }
}

/// One world of six has inboxes that are full now and then: whatever is largest fits an empty one.
fn draw_inbox(dice: &mut Dice, limits: &Limits) -> Bounds {
    if dice.below(6) > 0 {
        return Bounds::default();
    }
    Bounds {
        peer_bytes: dice.pick(&[1, 2_000, 50_000]),
        urgent_bytes: dice.pick(&[300, 300, 4_000]),
        clients: dice.between(1, 8) as usize,
        client_bytes: limits.proposal_bytes() + 1_000,
    }
}

/// Where the node in this place is reached.
pub fn address(at: usize) -> SocketAddr {
    ([127, 0, 0, 1], 7_001 + at as u16).into()
}

/// The place of the node at this address.
pub fn place(address: SocketAddr) -> usize {
    usize::from(address.port()) - 7_001
}

impl Load {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            clients: dice.between(1, 5) as usize,
            pipeline: dice.pick(&[1, 1, 2, 8]),
            open: false,
            window: dice.pick(&[1, 2, 16, 1_024]),
            keys: dice.between(1, 5),
            filler: dice.pick(&[0, 0, 100, 4_000]),
            reads: dice.pick(&[100, 300, 500]),
            lazy: dice.pick(&[1, 20]),
            think: dice.time(millis(5), millis(80)),
            deadline: millis(dice.between(200, 5_000)),
            forget: dice.pick(&[0, 0, 200]),
        }
    }
}

impl Faults {
    fn draw(dice: &mut Dice) -> Self {
        let often = dice.pick(&[300, 500, 1_000, 2_000]);
        let mut coin = || dice.below(2) == 0;
        Self {
            every: Some(millis(often)),
            kill: coin(),
            power: coin(),
            torn: coin(),
            in_recovery: if coin() { 400 } else { 0 },
            pause: coin(),
            partition: coin(),
            slow_disk: coin(),
            bad_calls: coin(),
            full_disk: coin(),
            bad_link: coin(),
            crash_loop: coin() && coin(),
            leap: coin(),
            harm: coin(),
            directory: coin(),
            clients: false,
            crippled: coin(),
            total: false,
        }
    }

    /// No faults at all.
    pub fn none() -> Self {
        Self {
            every: None,
            kill: false,
            power: false,
            torn: false,
            in_recovery: 0,
            pause: false,
            partition: false,
            slow_disk: false,
            bad_calls: false,
            full_disk: false,
            bad_link: false,
            crash_loop: false,
            leap: false,
            harm: false,
            directory: false,
            clients: false,
            crippled: false,
            total: false,
        }
    }
}

impl Net {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            delay: dice.time(millis(1) / 20, millis(5)),
            jitter: dice.time(millis(1) / 20, millis(20)),
            loss: dice.pick(&[0, 0, 5, 50, 150]),
            doubled: dice.pick(&[0, 0, 10, 100]),
            late: dice.pick(&[0, 0, 0, 20]),
            broken: 0,
            uneven: false,
        }
    }
}
