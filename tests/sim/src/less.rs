//! What is left out of a seed's world: to see whether it fails without, and to run exactly that again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use raftmap::node::inbox::Bounds;

use crate::setup::{Setup, WAKEUP};

/// See the module's description. Its text is what `raftmap-sim replay` takes behind the seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Less {
    /// Kinds of faults, and of [`HARMS`].
    pub without: BTreeSet<String>,
    /// Faults by their number in the schedule.
    pub skip: BTreeSet<u64>,
    pub nodes: Option<usize>,
    pub clients: Option<usize>,
    pub keys: Option<u64>,
    /// Milliseconds until faults end.
    pub until: Option<u64>,
}

/// What harms all the time, and is not on the schedule.
pub const HARMS: [&str; 15] = [
    "loss", "doubled", "late", "broken", "uneven", "inbox", "drift", "offsets", "wakeup", "torn", "recovery",
    "crippled", "total", "open", "pipeline",
];

impl Less {
    pub fn leaves_out(&self, number: u64, kind: &str) -> bool {
        self.skip.contains(&number) || self.without.contains(kind)
    }

    /// The setup, with less in it.
    pub fn of(self, mut setup: Setup) -> Setup {
        let without = |harm: &str| self.without.contains(harm);
        setup.nodes = self.nodes.unwrap_or(setup.nodes);
        setup.load.clients = self.clients.unwrap_or(setup.load.clients);
        setup.load.keys = self.keys.unwrap_or(setup.load.keys);
        setup.safety = self.until.map_or(setup.safety, Duration::from_millis);
        let net = &mut setup.net;
        net.loss = if without("loss") { 0 } else { net.loss };
        net.doubled = if without("doubled") { 0 } else { net.doubled };
        net.late = if without("late") { 0 } else { net.late };
        net.broken = if without("broken") { 0 } else { net.broken };
        net.uneven &= !without("uneven");
        setup.faults.torn &= !without("torn");
        setup.faults.in_recovery = if without("recovery") { 0 } else { setup.faults.in_recovery };
        setup.faults.crippled &= !without("crippled");
        setup.faults.total &= !without("total");
        setup.load.open &= !without("open");
        if without("inbox") {
            setup.inbox = Bounds::default();
        }
        if without("drift") {
            setup.clocks.fill(1_000);
        }
        if without("offsets") {
            setup.offsets.fill(Duration::ZERO);
        }
        if without("wakeup") {
            setup.wakeup = WAKEUP;
        }
        if without("pipeline") {
            setup.load.pipeline = 1;
        }
        setup.less = self;
        setup
    }
}

impl fmt::Display for Less {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { without, skip, nodes, clients, keys, until } = self;
        if !without.is_empty() {
            write!(f, " --without {}", list(without))?;
        }
        if !skip.is_empty() {
            write!(f, " --skip {}", list(skip))?;
        }
        let numbers = [
            ("nodes", nodes.map(|nodes| nodes as u64)),
            ("clients", clients.map(|clients| clients as u64)),
            ("keys", *keys),
            ("until", *until),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " --{name} {number}")?;
            }
        }
        Ok(())
    }
}

fn list<T: ToString>(items: &BTreeSet<T>) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Items between commas.
pub fn items<T: FromStr + Ord>(text: &str) -> Option<BTreeSet<T>> {
    text.split(',').map(|item| item.parse().ok()).collect()
}
