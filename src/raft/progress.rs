//! What a leader knows of one follower, and how fast it may send to it (thesis 10.2.1; Raft paper 5.3).
//!
//! A follower is probed with one append at a time until one matches, then sent to ahead of its answers within a window;
//! where the entries it needs are gone, it waits for a snapshot. Every answer is a claim about an append that may be
//! long past, so each is first asked whether it can be about the present.

use std::collections::VecDeque;

use raftmap_storage::types::{Index, Position};

/// How a follower is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Where the logs agree is unknown: one append, then wait.
    Probe {
        /// One is on its way.
        waiting: bool,
    },
    /// The logs agree up to what was sent: send ahead.
    Replicate,
    /// The next entry is gone.
    Snapshot(Transfer),
}

/// Where a snapshot to a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// The host was asked, and will report.
    Asked,
    /// Handed over whole at this tick; the follower's acknowledgement is to come.
    Sent {
        /// The tick of the report.
        at: u64,
    },
    /// Failed at this tick.
    Failed {
        /// The tick of the report.
        at: u64,
    },
}

/// Whether a follower's acknowledgements are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Sound,
    /// One answer showed less than was acknowledged. It may be a late one, and so may the next ones, so the follower is
    /// asked again, and only the answer to that is believed.
    Doubted {
        /// The number of the newest append that had left by then.
        asked: u64,
    },
    /// It said the same when asked again: its disk lost what it had acknowledged (thesis 3.8). It counts again when it holds
    /// `acknowledged`. Another loss until then is believed as the first one was.
    Regressed {
        acknowledged: Index,
        /// As above: of the doubt, or of the loss that has its name.
        asked: u64,
        doubted: bool,
    },
}

/// What a refusal turned out to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An answer to something that no longer matters.
    Late,
    /// Try further back.
    BackUp,
    /// It holds less than it once acknowledged.
    Regressed {
        /// What it acknowledged.
        acknowledged: Index,
        /// What it shows.
        shown: Index,
    },
}

#[derive(Debug)]
pub(super) struct Progress {
    /// Appends sent in this term.
    appends: u64,
    /// Highest index known to be durable on the follower. Within a term only a regression lowers it.
    matched: Index,
    /// First index to send next: `matched < next`.
    next: Index,
    /// Highest index that any append or snapshot of this term vouched for: an acknowledgement above it is no answer of
    /// ours.
    sent: Index,
    sending: Sending,
    standing: Standing,
    inflight: Inflight,
    /// Heard since the last look at the quorum.
    pub(super) recent_active: bool,
    /// The newest read round it has confirmed.
    pub(super) round: u64,
    /// The commit index it was last told and can act on.
    told: Index,
    /// An answer to an append came since the last heartbeat.
    answered: bool,
    /// Nothing came for a heartbeat's time though something was due: the next sign of life sends it again.
    overdue: bool,
    /// Send an append now, empty if need be: its answer will say where the follower stands.
    ask: bool,
}

impl Progress {
    pub(super) fn new(last: Index, (count_max, bytes_max): (usize, usize)) -> Self {
        Self {
            appends: 0,
            matched: Index(0),
            next: last.next(),
            sent: last,
            sending: Sending::Probe { waiting: false },
            standing: Standing::Sound,
            inflight: Inflight { count_max, bytes_max, bytes: 0, appends: VecDeque::new() },
            recent_active: true,
            round: 0,
            told: Index(0),
            answered: false,
            overdue: false,
            ask: false,
        }
    }

    pub(super) fn matched(&self) -> Index {
        self.matched
    }

    pub(super) fn next(&self) -> Index {
        self.next
    }

    pub(super) fn sending(&self) -> Sending {
        self.sending
    }

    /// What counts towards a commit: nothing while in doubt.
    pub(super) fn counted(&self) -> Index {
        match self.standing {
            Standing::Sound => self.matched,
            Standing::Doubted { .. } | Standing::Regressed { .. } => Index(0),
        }
    }

    /// The newest read round that counts.
    pub(super) fn counted_round(&self) -> u64 {
        match self.standing {
            Standing::Sound => self.round,
            Standing::Doubted { .. } | Standing::Regressed { .. } => 0,
        }
    }

    /// Whether an append may leave now, where the log ends at `last`.
    pub(super) fn may_send(&self, last: Index) -> bool {
        match self.sending {
            Sending::Probe { waiting } => !waiting,
            Sending::Replicate => self.ask || (self.next <= last && !self.inflight.is_full()),
            Sending::Snapshot(_) => false,
        }
    }

    /// Whether the next append must be empty: it asks, though the window is full.
    pub(super) fn must_be_empty(&self) -> bool {
        self.sending == Sending::Replicate && self.inflight.is_full()
    }

    /// An append up to `through` with `bytes` of payload leaves, telling `commit`. Returns its number.
    pub(super) fn sent(&mut self, through: Index, bytes: usize, commit: Index) -> u64 {
        self.appends += 1;
        self.sent = self.sent.max(through);
        self.told = self.told.max(commit.min(through));
        self.ask = false;
        match &mut self.sending {
            Sending::Probe { waiting } => *waiting = true,
            Sending::Replicate if through >= self.next => {
                self.next = through.next();
                self.inflight.push(through, bytes);
            }
            Sending::Replicate | Sending::Snapshot(_) => {}
        }
        self.appends
    }

    /// The commit index this follower can act on, where it was not told yet.
    pub(super) fn untold(&self, committed: Index) -> bool {
        self.told < self.commit_for(committed)
    }

    /// What a heartbeat may say: never more than the follower is known to hold (Raft paper, Figure 2).
    pub(super) fn commit_for(&self, committed: Index) -> Index {
        committed.min(self.matched)
    }

    pub(super) fn heartbeat_sent(&mut self, commit: Index) {
        self.told = self.told.max(commit);
    }

    /// A heartbeat's time is over.
    pub(super) fn heartbeat_due(&mut self) {
        self.overdue = match self.sending {
            Sending::Probe { waiting } => waiting,
            Sending::Replicate => !self.answered && self.matched < self.next.prev(),
            Sending::Snapshot(_) => true,
        };
        self.answered = false;
    }

    /// A sign of life: what was overdue may be sent again. A snapshot that was handed over more than `patience` ticks ago
    /// and never acknowledged is asked about.
    pub(super) fn alive(&mut self, now: u64, patience: u32) {
        if !std::mem::take(&mut self.overdue) {
            return;
        }
        match &mut self.sending {
            Sending::Probe { waiting } => *waiting = false,
            Sending::Replicate => self.ask = !bug!(37),
            Sending::Snapshot(Transfer::Sent { at }) if now.saturating_sub(*at) > u64::from(patience) => {
                sometimes!("a snapshot that was handed over was asked about");
                self.probe(self.sent.next());
            }
            Sending::Snapshot(Transfer::Asked | Transfer::Sent { .. } | Transfer::Failed { .. }) => {}
        }
    }

    fn probe(&mut self, next: Index) {
        self.inflight.clear();
        self.ask = false;
        self.next = next.max(self.matched.next());
        self.sending = Sending::Probe { waiting: false };
    }

    /// The follower holds everything up to `matched`. `false` where that cannot be an answer to anything we sent.
    ///
    /// `base` is the entry before the first one that can be sent.
    pub(super) fn accepted(&mut self, matched: Index, full: bool, base: Index, committed: Index) -> bool {
        // The acknowledgement of a snapshot may overtake the host's report of which one it was.
        let sent = match self.sending {
            Sending::Snapshot(_) => self.sent.max(committed),
            Sending::Probe { .. } | Sending::Replicate => self.sent,
        };
        if matched > sent && !bug!(15) {
            return false;
        }
        self.sent = self.sent.max(matched);
        self.recent_active = true;
        self.answered = true;
        if matched < self.matched {
            return true; // overtaken by a later answer
        }
        let advanced = matched > self.matched;
        self.matched = matched;
        self.next = self.next.max(matched.next());
        self.inflight.acknowledge(matched);
        self.standing = match self.standing {
            Standing::Sound | Standing::Doubted { .. } => Standing::Sound,
            Standing::Regressed { acknowledged, .. } if matched >= acknowledged => Standing::Sound,
            Standing::Regressed { acknowledged, asked, .. } => {
                Standing::Regressed { acknowledged, asked, doubted: false }
            }
        };
        match self.sending {
            Sending::Probe { .. } => self.replicate(),
            Sending::Snapshot(_) if matched >= base => self.replicate(),
            // Installed, but the log has moved on meanwhile: it needs the next one.
            Sending::Snapshot(Transfer::Sent { .. }) if advanced => self.probe(matched.next()),
            Sending::Replicate | Sending::Snapshot(_) => {}
        }
        if full && self.sending == Sending::Replicate {
            self.probe(matched.next());
            // Until it says that it has room again, or a heartbeat's time is over.
            self.sending = Sending::Probe { waiting: true };
        }
        true
    }

    fn replicate(&mut self) {
        self.inflight.clear();
        self.overdue = false;
        self.next = self.matched.next();
        self.sending = Sending::Replicate;
    }

    /// The follower has nothing, or something else, at `prev`. `hint` is the first index worth sending next.
    ///
    /// Late answers: everything sent since `matched` was acknowledged has its `prev` at or above it, and while probing
    /// only that of the latest probe counts. What passes is either about an index above `matched`, or shows a loss, and a
    /// loss is believed when an append that left after the first sign is refused alike: the follower was asked when it
    /// had acknowledged `matched` already.
    pub(super) fn rejected(
        &mut self,
        number: u64,
        prev: Index,
        last: Index,
        conflict: Option<Position>,
        hint: Index,
    ) -> Refusal {
        self.recent_active = true;
        self.answered = true;
        let probed = match self.sending {
            Sending::Probe { .. } => prev == self.next.prev(),
            Sending::Replicate => prev >= self.matched && prev <= self.sent,
            Sending::Snapshot(_) => false,
        };
        if (!probed || number > self.appends) && !bug!(19) {
            return Refusal::Late;
        }
        let shown = conflict.map_or(last, |conflict| conflict.index.prev()).min(last);
        if self.matched > Index(0) && (last < self.matched || prev == self.matched) {
            return self.shown_less(number, shown.min(self.matched.prev()));
        }
        // Each round goes back by one at least, so that no sequence of hints can loop.
        self.probe(hint.min(prev));
        Refusal::BackUp
    }

    fn shown_less(&mut self, number: u64, shown: Index) -> Refusal {
        let asked = self.appends;
        let acknowledged = match self.standing {
            Standing::Sound => return self.doubt(Standing::Doubted { asked }),
            Standing::Doubted { asked } | Standing::Regressed { asked, .. }
                if number <= asked && !bug!(19) =>
            {
                return Refusal::Late;
            }
            Standing::Doubted { .. } => self.matched,
            Standing::Regressed { acknowledged, doubted: false, .. } => {
                return self.doubt(Standing::Regressed { acknowledged, asked, doubted: true });
            }
            Standing::Regressed { acknowledged, doubted: true, .. } => acknowledged,
        };
        self.standing = Standing::Regressed { acknowledged, asked, doubted: false };
        (self.matched, self.sent, self.told) = (Index(0), shown, Index(0));
        self.probe(shown.next());
        Refusal::Regressed { acknowledged, shown }
    }

    /// A first sign: the follower is asked again.
    fn doubt(&mut self, standing: Standing) -> Refusal {
        sometimes!("a refusal raised a doubt");
        self.standing = standing;
        self.probe(self.matched.next());
        Refusal::BackUp
    }

    /// The next entry is gone, and the host is being asked for a snapshot.
    pub(super) fn snapshot_asked(&mut self) {
        self.inflight.clear();
        self.sending = Sending::Snapshot(Transfer::Asked);
    }

    /// The host's report. Nothing unless one was asked for.
    pub(super) fn snapshot_reported(&mut self, result: Result<Index, ()>, now: u64) {
        if !matches!(self.sending, Sending::Snapshot(_)) {
            return;
        }
        self.sending = match result {
            Ok(index) => {
                self.sent = self.sent.max(index);
                self.next = self.next.max(index.next());
                Sending::Snapshot(Transfer::Sent { at: now })
            }
            Err(()) => Sending::Snapshot(Transfer::Failed { at: now }),
        };
    }

    /// Whether a failed transfer has rested for `ticks` and the follower has shown life since.
    pub(super) fn wants_snapshot_again(&self, now: u64, ticks: u32) -> bool {
        match self.sending {
            Sending::Snapshot(Transfer::Failed { at }) => {
                self.recent_active && now.saturating_sub(at) >= u64::from(ticks)
            }
            Sending::Snapshot(Transfer::Asked | Transfer::Sent { .. })
            | Sending::Probe { .. }
            | Sending::Replicate => false,
        }
    }

    /// Panics when the fields contradict each other.
    pub(super) fn check_invariants(&self, last: Index) {
        assert!(self.matched < self.next, "matched {} >= next {}", self.matched, self.next);
        assert!(self.matched <= self.sent, "matched {} > sent {}", self.matched, self.sent);
        assert!(self.sent <= last && self.next <= last.next(), "beyond the log's end {last}: {self:?}");
        self.inflight.check_invariants();
    }
}

/// Appends without an answer, within a window of entries and bytes.
#[derive(Debug)]
struct Inflight {
    count_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// The last index and the payload bytes of each, in order.
    appends: VecDeque<(Index, usize)>,
}

impl Inflight {
    fn is_full(&self) -> bool {
        self.appends.len() >= self.count_max || self.bytes >= self.bytes_max
    }

    fn push(&mut self, through: Index, bytes: usize) {
        self.bytes += bytes;
        self.appends.push_back((through, bytes));
    }

    fn acknowledge(&mut self, matched: Index) {
        while let Some((_, bytes)) = self.appends.front().filter(|(through, _)| *through <= matched) {
            self.bytes -= bytes;
            self.appends.pop_front();
        }
    }

    fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }

    fn check_invariants(&self) {
        assert!(self.appends.len() <= self.count_max, "window of {}: {:?}", self.count_max, self.appends);
        let before = self.appends.back().map_or(0, |(_, bytes)| self.bytes - bytes);
        assert!(
            before < self.bytes_max || before == 0,
            "window of {} bytes: {:?}",
            self.bytes_max,
            self.appends
        );
        assert_eq!(self.bytes, self.appends.iter().map(|(_, bytes)| bytes).sum::<usize>(), "window bytes");
        assert!(self.appends.iter().is_sorted(), "window out of order: {:?}", self.appends);
    }
}
