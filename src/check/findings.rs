//! What is wrong, counted by kind; the first of each checker in words.

/// Findings described in words, at most.
pub const EXAMPLES_MAX: usize = 20;

/// Ways to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged write is not there.
    Lost,
    /// A write counts twice.
    Doubled,
    /// Acknowledged writes stand in an order that contradicts real time.
    Reordered,
    /// A value that nobody sent, or that was refused, or seen before it was sent.
    NeverSent,
    /// A read misses what had been acknowledged, or what another read had seen, before it began.
    StaleRead,
    /// A read of a value that the key never had.
    TornRead,
    /// A comparison, or a removal, came out otherwise than the key was.
    Miscompared,
    /// The answers about a key fit into no order at all.
    NoOrder,
}

impl Kind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Lost, "lost"),
        (Self::Doubled, "doubled"),
        (Self::Reordered, "reordered"),
        (Self::NeverSent, "never sent"),
        (Self::StaleRead, "stale read"),
        (Self::TornRead, "torn read"),
        (Self::Miscompared, "miscompared"),
        (Self::NoOrder, "no order"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// What one or more checkers found. All zero: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    counts: [u64; Kind::ALL.len()],
    /// The first of them in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// How many there are of this kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.total() == 0
    }

    /// The kinds that were found, by name, with their counts.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Kind::ALL.iter().map(|(kind, name)| (*name, self.count(*kind))).filter(|(_, count)| *count > 0)
    }

    /// One more. The words are made only where they are kept.
    pub fn note(&mut self, kind: Kind, words: impl FnOnce() -> String) {
        if let Some(count) = self.counts.get_mut(kind as usize) {
            *count += 1;
        }
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{}: {}", kind.name(), words()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_counts_for_itself() {
        for (kind, name) in Kind::ALL {
            let mut findings = Findings::default();
            assert!(findings.is_clean());
            findings.note(kind, || "here".into());
            assert_eq!(findings.kinds().collect::<Vec<_>>(), [(name, 1)]);
            assert_eq!((findings.count(kind), findings.total(), findings.is_clean()), (1, 1, false));
            assert_eq!(findings.examples, [format!("{name}: here")]);
        }
    }

    #[test]
    fn examples_are_bounded_and_counts_are_not() {
        let mut findings = Findings::default();
        (0..100).for_each(|number| findings.note(Kind::Lost, || number.to_string()));
        assert_eq!((findings.total(), findings.examples.len()), (100, EXAMPLES_MAX));
    }
}
