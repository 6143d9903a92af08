//! True histories: concurrent clients of a map that does everything right, from a seed.

use std::collections::BTreeMap;

use super::deeds::{Ask, Deed, Told};

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(purpose << 32 | 1))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((u128::from(mixed ^ (mixed >> 31)) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len() as u64) as usize).cloned()
    }
}

/// What kind of history.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) clients: u64,
    /// Of each client.
    pub(super) operations: u64,
    pub(super) keys: &'static [&'static str],
    /// Of ten writes.
    pub(super) unknown: u64,
    /// Versions rise by so much.
    pub(super) stride: u64,
    /// Whether every key is read when all is over.
    pub(super) last: bool,
}

pub(super) const SHAPE: Shape = Shape {
    clients: 6,
    operations: 40,
    keys: &["log-0", "log-1", "reg-0", "mix-0"],
    unknown: 2,
    stride: 1,
    last: true,
};

/// What happens where, before anybody executes it.
struct Plan {
    client: u32,
    number: u32,
    key: &'static str,
    invoked: u64,
    point: u64,
    returned: u64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Done,
    UnknownAndDone,
    UnknownAndNever,
    Refused,
}

fn plans(shape: Shape, dice: &mut Dice) -> Vec<Plan> {
    let mut plans = Vec::new();
    for client in 0..shape.clients as u32 {
        let mut now = dice.below(20);
        for number in 1..=shape.operations as u32 {
            let (mut point, key) = (now + dice.below(40), dice.pick(shape.keys).expect("there are keys"));
            let returned = point + dice.below(40);
            let fate = match dice.below(20) {
                roll if roll < shape.unknown => Fate::UnknownAndDone,
                roll if roll < 2 * shape.unknown => Fate::UnknownAndNever,
                19 => Fate::Refused,
                _ => Fate::Done,
            };
            if fate == Fate::UnknownAndDone {
                point += dice.below(200);
            }
            plans.push(Plan { client, number, key, invoked: now, point, returned, fate });
            now = returned + dice.below(10);
        }
    }
    plans.sort_by_key(|plan| plan.point);
    plans
}

/// A map that does everything right.
#[derive(Default)]
struct Map {
    pairs: BTreeMap<&'static str, (u64, String)>,
    index: u64,
}

impl Map {
    fn execute(&mut self, key: &'static str, ask: &Ask, stride: u64) -> Told {
        if *ask == Ask::Get {
            return self
                .pairs
                .get(key)
                .map_or(Told::Absent, |(version, value)| Told::Found(*version, value.clone()));
        }
        self.index += stride;
        let at = self.index;
        let current = self.pairs.get(key).map_or(0, |(version, _)| *version);
        match ask {
            Ask::Compare(version, _) if *version != current => return Told::Mismatch(current),
            Ask::Put(value) | Ask::Compare(_, value) => drop(self.pairs.insert(key, (at, value.clone()))),
            Ask::Append(value) => {
                let (version, whole) = self.pairs.entry(key).or_default();
                *version = at;
                whole.push_str(value);
            }
            Ask::Delete => return Told::Deleted(self.pairs.remove(key).is_some()),
            Ask::Get => {}
        }
        Told::Stored(at)
    }

    fn draw(&self, plan: &Plan, dice: &mut Dice) -> Ask {
        let token = format!("c{}-{:06};", plan.client, plan.number);
        if dice.below(5) < 2 {
            return Ask::Get;
        }
        let current = self.pairs.get(plan.key).map_or(0, |(version, _)| *version);
        let guess = if dice.below(3) > 0 { current } else { dice.below(current + 1) };
        match (plan.key.split_once('-').map_or("", |(kind, _)| kind), dice.below(6)) {
            ("log", _) => Ask::Append(token),
            ("mix", 0) => Ask::Append(token),
            ("mix", 1) => Ask::Delete,
            (_, 2 | 3) => Ask::Compare(guess, token),
            (_, _) => Ask::Put(token),
        }
    }
}

/// In the order in which they took effect.
pub(super) fn run(shape: Shape, seed: u64) -> Vec<Deed> {
    let mut dice = Dice::new(seed, 0);
    // The cluster's first entry is nobody's write.
    let mut map = Map { index: shape.stride, ..Map::default() };
    let mut deeds = Vec::new();
    for plan in plans(shape, &mut dice) {
        let ask = map.draw(&plan, &mut dice);
        // Other entries of the log.
        map.index += dice.below(3) * shape.stride;
        let told = match plan.fate {
            Fate::Done => map.execute(plan.key, &ask, shape.stride),
            Fate::UnknownAndDone => {
                map.execute(plan.key, &ask, shape.stride);
                Told::Unknown
            }
            Fate::UnknownAndNever => Told::Unknown,
            Fate::Refused => Told::Refused,
        };
        let Plan { client, number, key, invoked, returned, .. } = plan;
        deeds.push(Deed {
            client,
            number,
            key,
            ask,
            invoked,
            returned,
            index: map.index,
            told,
            is_last: false,
        });
    }
    if shape.last {
        let end = deeds.iter().map(|deed| deed.returned).max().unwrap_or(0) + 1_000;
        for (number, key) in (1..).zip(shape.keys) {
            let told = map.execute(key, &Ask::Get, shape.stride);
            let (invoked, returned, index) = (end + u64::from(number), end + u64::from(number), map.index);
            let ask = Ask::Get;
            deeds.push(Deed { client: 99, number, key, ask, invoked, returned, index, told, is_last: true });
        }
    }
    deeds
}
