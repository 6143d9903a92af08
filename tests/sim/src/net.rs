//! The network between nodes, and between clients and nodes: who reaches whom, and how long that takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::dice::Dice;
use crate::setup::Net;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Node(usize),
    Client(usize),
}

/// Links, each direction on its own.
#[derive(Debug)]
pub struct Links {
    setup: Net,
    dice: Dice,
    cut: BTreeSet<(End, End)>,
    /// Messages that were lost, doubled, and late, but for those of a cut.
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    /// Cut for good.
    severed: BTreeSet<End>,
    /// Links that are worse than the others.
    bad: BTreeMap<(End, End), Bad>,
    /// What each link is like where they are uneven, and how that is drawn.
    own: BTreeMap<(End, End), Own>,
    each: Dice,
    /// When the latest message arrives on each link: one that comes before it has overtaken it.
    latest: BTreeMap<(End, End), Duration>,
    /// What befell messages since the last question.
    pub befell: Befell,
}

/// How much worse one direction of a link is than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bad {
    /// On top of the usual delay.
    pub slower: Duration,
    /// Thousandths, on top.
    pub loss: u64,
    /// Thousandths, on top.
    pub doubled: u64,
}

/// How one direction of a link differs from the others at all times, in hundredths of what they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    delay: u32,
    loss: u64,
    doubled: u64,
}

const LIKE_THE_OTHERS: Own = Own { delay: 100, loss: 100, doubled: 100 };

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Befell {
    pub lost: bool,
    pub doubled: bool,
    /// On a link that doubles more than the others.
    pub doubled_by_a_bad_link: bool,
    pub overtook: bool,
    /// Between a client and a node of which the other way is open.
    pub cut_one_way: bool,
}

/// What a fault does to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One node alone.
    One,
    /// Two parts.
    Halves,
    /// Two parts with one node that sees both.
    Bridge,
    /// Everyone sees the next one and the one before alone.
    Ring,
    /// One node that is heard and does not hear, or hears and is not heard.
    OneWay,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one node was cut off",
            Self::Halves => "the network was cut in two",
            Self::Bridge => "one node saw both parts of a cut network",
            Self::Ring => "the network was a ring",
            Self::OneWay => "a node was cut off one way",
        }
    }
}

pub const SHAPES: [Shape; 5] = [Shape::One, Shape::Halves, Shape::Bridge, Shape::Ring, Shape::OneWay];

impl Links {
    pub fn new(setup: Net, dice: Dice, each: Dice) -> Self {
        Self {
            setup,
            dice,
            own: BTreeMap::new(),
            each,
            cut: BTreeSet::new(),
            severed: BTreeSet::new(),
            bad: BTreeMap::new(),
            latest: BTreeMap::new(),
            befell: Befell::default(),
            lost: 0,
            doubled: 0,
            late: 0,
        }
    }

    /// When a message from one end arrives at another: once, never, or more than once.
    pub fn travel(&mut self, now: Duration, from: End, to: End) -> [Option<Duration>; 2] {
        let Bad { slower, loss, doubled } = self.bad.get(&(from, to)).copied().unwrap_or_default();
        if self.is_cut(from, to) {
            return [None; 2];
        }
        let own = self.own(from, to);
        if self.dice.permille(self.setup.loss * own.loss / 100 + loss) {
            self.befell.lost = true;
            self.lost += 1;
            return [None; 2];
        }
        let first = self.delay(own) + slower;
        let mut second = None;
        if self.dice.permille(self.setup.doubled * own.doubled / 100 + doubled) {
            self.befell.doubled = true;
            self.befell.doubled_by_a_bad_link |= doubled > 0;
            self.doubled += 1;
            second = Some(self.delay(own) + slower);
        }
        let latest = self.latest.entry((from, to)).or_default();
        self.befell.overtook |= now + first < *latest;
        *latest = (*latest).max(now + first);
        [Some(first), second]
    }

    /// As [`Links::travel`] on a connection that repeats what is lost and sorts out doubles: late, or never when cut.
    pub fn carry(&mut self, from: End, to: End) -> Option<Duration> {
        if self.is_cut(from, to) {
            let of_a_client = matches!((from, to), (End::Client(_), _) | (_, End::Client(_)));
            self.befell.cut_one_way |= of_a_client && !self.is_cut(to, from);
            return None;
        }
        let slower = self.bad.get(&(from, to)).map_or(Duration::ZERO, |bad| bad.slower);
        let own = self.own(from, to);
        let mut time = self.delay(own) + slower;
        while self.dice.permille(self.setup.loss * own.loss / 100) {
            self.lost += 1;
            time += self.setup.delay * 2 + Duration::from_millis(20);
        }
        Some(time)
    }

    /// Whether what a client says, or is told, is lost with its connection.
    pub fn breaks(&mut self) -> bool {
        self.setup.broken > 0 && self.dice.permille(self.setup.broken)
    }

    fn own(&mut self, from: End, to: End) -> Own {
        if !self.setup.uneven {
            return LIKE_THE_OTHERS;
        }
        let each = &mut self.each;
        let draw =
            || Own { delay: each.between(50, 200) as u32, loss: each.below(201), doubled: each.below(201) };
        *self.own.entry((from, to)).or_insert_with(draw)
    }

    fn delay(&mut self, own: Own) -> Duration {
        let jitter = Duration::from_micros(self.dice.below(self.setup.jitter.as_micros() as u64));
        let mut time = (self.setup.delay + jitter) * own.delay / 100;
        if self.dice.permille(self.setup.late) {
            self.late += 1;
            time += Duration::from_millis(self.dice.below(2_000));
        }
        time
    }

    pub fn is_cut(&self, from: End, to: End) -> bool {
        self.cut.contains(&(from, to)) || self.severed.contains(&from) || self.severed.contains(&to)
    }

    /// Exactly these are cut from now on.
    pub fn cut_only(&mut self, cut: BTreeSet<(End, End)>) {
        self.cut = cut;
    }

    /// How links that are not cut are from now on.
    pub fn become_like(&mut self, setup: Net) {
        self.setup = setup;
    }

    /// Nothing is cut any more.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// This direction is as the others again.
    pub fn mend(&mut self, from: End, to: End) {
        self.bad.remove(&(from, to));
    }

    /// Nothing goes to this end or comes from it, ever again.
    pub fn sever(&mut self, end: End) {
        self.severed.insert(end);
    }

    /// One direction of one link becomes worse.
    pub fn worsen(&mut self, from: End, to: End, bad: Bad) {
        self.bad.insert((from, to), bad);
    }

    /// Whether any two nodes do not see each other.
    pub fn parts_nodes(&self) -> bool {
        self.cut.iter().any(|(from, to)| matches!((from, to), (End::Node(_), End::Node(_))))
    }

    /// Everything arrives from now on, in time and in order: where small appends overtake each other all the time, a long
    /// log takes longer than the end waits.
    pub fn calm(&mut self) {
        self.heal();
        self.setup.jitter = Duration::ZERO;
        self.bad.clear();
        (self.setup.loss, self.setup.doubled, self.setup.late, self.setup.broken) = (0, 0, 0, 0);
        self.setup.uneven = false;
    }

    /// Cuts links between nodes by `shape`; each client then sees some of the nodes.
    ///
    /// The node that is alone, or between the parts, is often `leader`: nobody else has as much to do wrong.
    pub fn cut(&mut self, shape: Shape, nodes: usize, clients: usize, leader: usize, dice: &mut Dice) {
        let mut order = dice.shuffled(nodes);
        if dice.below(3) > 0 {
            order.retain(|node| *node != leader);
            order.insert(0, leader);
        }
        let left = dice.between(1, (nodes as u64 / 2).max(1)) as usize;
        let one_way = dice.below(2) == 0;
        for (a, from) in order.iter().enumerate() {
            for (b, to) in order.iter().enumerate() {
                let apart = match shape {
                    Shape::One => (a == 0) != (b == 0),
                    Shape::Halves => (a < left) != (b < left),
                    Shape::Bridge => a != 0 && b != 0 && (a <= left) != (b <= left),
                    Shape::Ring => (a + 1) % nodes != b && (b + 1) % nodes != a && a != b,
                    Shape::OneWay => a != b && if one_way { a == 0 } else { b == 0 },
                };
                if apart {
                    self.cut.insert((End::Node(*from), End::Node(*to)));
                }
            }
        }
        for client in 0..clients {
            for node in 0..nodes {
                if dice.below(4) == 0 {
                    let (client, node) = (End::Client(client), End::Node(node));
                    let ways =
                        [vec![(client, node)], vec![(node, client)], vec![(client, node), (node, client)]];
                    self.cut.extend(&ways[dice.place(ways.len())]);
                }
            }
        }
    }
}
