//! What happens in a node's replica's thread, and what it says to others and hears from them.

use std::time::Duration;

use bytes::Bytes;
use raftmap::node::inbox::Lane;
use raftmap::node::replica::{ClientId, Durable, Input};
use raftmap::node::serve::submit;
use raftmap::raft::{BatchNumber, Body, Message, Outbound, Regression, RoleKind, SoftState};
use raftmap::storage::types::{Batch, NodeId};
use raftmap::wire::client::{Answer, Ask, Response, encode_response};
use raftmap::wire::peer;

use crate::atlas::majority;
use crate::client::OWNER;
use crate::net::{Befell, End};
use crate::node::{Effect, Tray};
use crate::reads::Answering;
use crate::setup::Sabotage;
use crate::tap::SCRIPT;
use crate::world::{Event, Inner, World};

/// The replica's clock.
pub const TICK: Duration = Duration::from_millis(10);
/// Rounds of confirmations that a leader may have under way, and many more.
const ROUNDS_KEPT: usize = 1_024;

impl World {
    pub fn inside(&mut self, at: usize, time: Duration, inner: Inner) {
        let life = self.nodes[at].lives;
        self.after(time, Event::Node(at, life, inner));
    }

    pub fn inner(&mut self, at: usize, inner: Inner) {
        match inner {
            Inner::Tick => self.tick(at),
            Inner::Wake => self.wake(at),
            Inner::Sync => self.synced(at),
            Inner::Chore => self.chore(at),
            Inner::Alarm => self.alarm(at),
            Inner::Job => self.job(at),
        }
    }

    // ---- The replica's thread ----

    pub fn tick(&mut self, at: usize) {
        let period = self.nodes[at].truly(TICK);
        self.inside(at, period, Inner::Tick);
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.still_since.is_some() {
            return;
        }
        life.tick_due = true;
        if !life.woken {
            self.wake(at);
        }
    }

    /// Its clock says that it is time.
    pub fn tick_early(&mut self, at: usize) {
        if let Some(life) = &mut self.nodes[at].life {
            life.tick_due = true;
            self.rouse(at, Duration::ZERO);
        }
    }

    /// Something that the node itself, or a test, puts into the inbox.
    pub fn push(&mut self, at: usize, input: Input) {
        let Some(life) = &self.nodes[at].life else { return };
        life.inbox.push(Lane::Own, input).expect("it has no bound, and a life that is over has no inbox");
        self.filled(at);
    }

    /// The thread takes what is in the inbox, and what comes meanwhile, a little later.
    fn filled(&mut self, at: usize) {
        let delay = Duration::from_micros(self.schedule.below(self.setup.wakeup.as_micros() as u64));
        self.rouse(at, delay);
    }

    fn rouse(&mut self, at: usize, delay: Duration) {
        let Some(life) = &mut self.nodes[at].life else { return };
        if !life.woken {
            life.woken = true;
            self.inside(at, delay, Inner::Wake);
        }
    }

    fn wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now);
        let Some(life) = &mut node.life else { return };
        life.woken = false;
        let mut tray = std::mem::take(&mut self.tray);
        for input in life.inbox.drain(Duration::ZERO).unwrap_or_default() {
            life.replica.step(clock, input, &mut tray);
        }
        if std::mem::take(&mut life.tick_due) {
            life.replica.step(clock, Input::Tick, &mut tray);
        }
        let advanced = life.replica.advance(clock, &mut tray);
        let number = self.nodes[at].lives;
        self.effects(at, &mut tray);
        self.tray = tray;
        if self.nodes[at].life.is_none() || self.nodes[at].lives != number {
            return;
        }
        if let Err(fault) = advanced {
            return self.halt(at, &fault.to_string());
        }
        if self.nodes[at].life.as_ref().is_some_and(|life| life.writer.has_orders()) {
            self.writer_turn(at);
        }
    }

    fn moved(&mut self, at: usize) {
        if !self.setup.watched {
            return;
        }
        let committed = self.watch.moved(&self.nodes, at);
        let committed = self.must(committed);
        let id = self.nodes[at].id();
        let Some(life) = &mut self.nodes[at].life else { return };
        life.committed = committed;
        let (named, latest) = life.replica.regressions();
        if named > life.named {
            life.named = named;
            self.regressed(at, latest);
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        let applied = life.replica.map().applied_index();
        if applied < life.applied {
            panic!("{id} had applied {} and now has applied {applied}", life.applied);
        }
        if applied > life.applied {
            life.applied = applied;
            self.trace.note(self.now, at, "applied", applied.0, committed.0);
            // A digest takes in the whole map, which grows: the same on all nodes at this index.
            let seldom = (life.replica.map().len() as u64 / 4).max(16).next_power_of_two();
            if applied.0.is_multiple_of(seldom) {
                let digest = life.replica.map().digest();
                let checked = self.watch.digest(id, applied, digest);
                self.must(checked);
            }
        }
    }

    /// A leader names a member that holds less than it acknowledged: it must be one.
    fn regressed(&mut self, at: usize, regression: Option<Regression>) {
        let Some(Regression { peer, acknowledged, shown }) = regression else { return };
        let node = &self.nodes[peer.0 as usize - 1];
        let behind = node.shadow.durable.last() < acknowledged;
        // It may have given up since, in the same turn.
        let Some(term) = self.nodes[at].life.as_ref().map(|life| life.led) else { return };
        let losses = node.losses.iter().filter(|latest| **latest >= term).count() as u64;
        let Some(life) = &mut self.nodes[at].life else { return };
        let named = life.named_of.entry((term, peer)).or_default();
        *named += 1;
        // What it acknowledged before its loss may come late and be taken back again, as long as it holds less.
        assert!(
            losses > 0 && (*named <= losses || behind),
            "{peer} lost something {losses} times, and is said to show {shown} after {acknowledged}, {named} times"
        );
        self.trace.sometimes("a leader named a member that lost what it had acknowledged");
    }

    /// Batches first: what is committed and told to others is checked against them.
    fn effects(&mut self, at: usize, tray: &mut Tray) {
        for (number, batch) in tray.batches.drain(..) {
            self.submit(at, number, batch);
        }
        self.moved(at);
        for effect in tray.others.drain(..) {
            match effect {
                Effect::Send(outbound) => self.send(at, &outbound),
                Effect::Reply(client, response) => self.reply(at, client, response),
                Effect::Start(job) => self.start_job(at, job),
                Effect::Changed(state) => self.changed(at, state),
            }
        }
    }

    fn submit(&mut self, at: usize, number: BatchNumber, batch: Batch) {
        self.note_batch(at, &batch);
        if let Some(tap) = &mut self.tap {
            tap.submitted(&batch);
        }
        if self.setup.watched {
            self.campaigned(at, &batch);
            let checked = self.watch.submitted(&mut self.nodes[at], number.0, &batch);
            self.must(checked);
        }
        let Some(life) = &mut self.nodes[at].life else { return };
        let leads = life.replica.soft_state().role == RoleKind::Leader;
        let early = match self.setup.sabotage {
            Some(Sabotage::EarlyDurable) => true,
            Some(Sabotage::EarlyLeader) => leads && batch.hard_state.is_none(),
            Some(Sabotage::LyingDisks | Sabotage::StaleReads | Sabotage::NoAtlas) | None => false,
        };
        life.writer.submit(number, batch);
        if early {
            let durable = Durable { through: Some(number), ..Durable::default() };
            self.push(at, Input::Durable(durable));
        }
    }

    fn changed(&mut self, at: usize, state: SoftState) {
        self.trace.note(self.now, at, "role", state.term.0, state.role as u64);
        if state.role == RoleKind::Leader {
            self.trace.sometimes("a leader was elected");
            self.nodes[at].life.iter_mut().for_each(|life| life.led = state.term);
        }
        if self.setup.watched {
            let before = self.watch.max_term;
            let checked = self.watch.changed(self.now, &self.nodes[at], state);
            self.must(checked);
            if self.watch.max_term > before {
                self.judge_terms();
            }
        }
    }

    fn note_batch(&mut self, at: usize, batch: &Batch) {
        if batch.truncate.is_some() {
            self.trace.sometimes("a log was truncated");
        }
        if let Some(mark) = batch.snapshot {
            self.trace.sometimes(if mark.reset {
                "a log was reset by a snapshot"
            } else {
                "a snapshot was marked"
            });
        }
        let last = batch.entries.last().map_or(0, |entry| entry.position.index.0);
        self.trace.note(self.now, at, "submits", last, batch.entries.len() as u64);
    }

    fn send(&mut self, at: usize, outbound: &Outbound) {
        if self.setup.watched {
            let checked = self.watch.sent(&mut self.nodes, at, outbound);
            self.must(checked);
        }
        let Ok(Some(bytes)) = peer::encode(&outbound.message) else {
            panic!("{} cannot send {outbound:?}", self.nodes[at].id());
        };
        self.trace.bytes(&bytes);
        self.note_round(at, &outbound.message);
        let to = outbound.to.0 as usize - 1;
        let late = self.tap.as_mut().map_or(Duration::ZERO, |tap| tap.sent(&outbound.message, bytes.len()));
        for time in self.links.travel(self.now, End::Node(at), End::Node(to)).into_iter().flatten() {
            self.after(time + late, Event::Peer { from: at, to, bytes: bytes.clone() });
        }
        self.note_links();
    }

    /// Of the rounds that leave with heartbeats: when each began.
    fn note_round(&mut self, at: usize, message: &Message) {
        let (Body::Heartbeat { round, .. }, Some(life)) = (&message.body, &mut self.nodes[at].life) else {
            return;
        };
        life.rounds.entry((message.term, *round)).or_insert(self.now);
        if life.rounds.len() > ROUNDS_KEPT {
            life.rounds.pop_first();
        }
    }

    fn note_links(&mut self) {
        let befell = std::mem::take(&mut self.links.befell);
        if befell == Befell::default() {
            return;
        }
        let marks = [
            (befell.lost, "a message was lost"),
            (befell.doubled, "a message was doubled"),
            (befell.doubled_by_a_bad_link, "a bad link doubled a message"),
            (befell.overtook, "a message overtook another"),
            (befell.cut_one_way, "a client was cut off one way"),
        ];
        marks.iter().filter(|(met, _)| *met).for_each(|(_, name)| self.trace.sometimes(name));
    }

    pub fn heard(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let message =
            peer::decode(bytes).unwrap_or_else(|error| panic!("the simulated net harms nothing: {error}"));
        if let (Body::HeartbeatReply { round, .. }, Some(life)) = (&message.body, &mut self.nodes[to].life)
            && let Some(began) = life.rounds.get(&(message.term, *round))
        {
            // Whoever answers has followed since the round began, not since the answer came; one that comes late takes nothing back.
            let newest = life.confirmed.entry(from).or_default();
            *newest = (*newest).max((message.term, *began));
        }
        let Some(life) = &self.nodes[to].life else { return };
        let lane = Lane::of(&message, bytes.len());
        match life.inbox.push(lane, Input::Peer { from: NodeId(from as u64 + 1), message }) {
            Ok(()) => self.filled(to),
            Err(_) if matches!(lane, Lane::Peer(_)) => {
                self.trace.sometimes("an inbox had no room for entries")
            }
            Err(_) => self.trace.sometimes("an inbox had no room for what is urgent"),
        }
    }

    pub fn asked(&mut self, connection: u64, at: usize, bytes: &Bytes) {
        let request = self.requested(bytes);
        self.promises.asked(connection, request.id);
        if matches!(request.body, Ask::Read(_) | Ask::Stale(_)) {
            self.watch.reads.asked(self.now, connection, request.id);
        }
        let (Some(life), client) = (&self.nodes[at].life, ClientId(connection)) else { return };
        match submit(&life.inbox, client, OWNER, request, bytes.len()) {
            Ok(()) => self.filled(at),
            Err(response) => {
                self.trace.sometimes("an inbox had no room for a request");
                self.reply(at, client, response);
            }
        }
    }

    pub fn reply(&mut self, at: usize, client: ClientId, response: Response) {
        if self.setup.watched {
            let checked =
                self.watch.answered(&self.nodes, &response).and_then(|()| self.read(at, client, &response));
            self.must(checked);
        }
        if let Some(tap) = self.tap.as_mut().filter(|_| client == SCRIPT) {
            return tap.answered(response);
        }
        self.promises.answered(client.0, response.id);
        let Some(found) = self.connections.open.get(&client.0).copied() else { return };
        match encode_response(&response) {
            Ok(bytes) => self.trace.bytes(&bytes),
            Err(error) => panic!("{response:?} has no bytes: {error}"),
        }
        match self.links.carry(End::Node(at), End::Client(found.client)) {
            Some(time) if self.links.breaks() => {
                self.trace.sometimes("a connection broke with what a client was told");
                self.after(time, Event::Disconnect { connection: client.0 });
            }
            Some(time) => {
                let response = Box::new(response);
                self.after(time, Event::Response { connection: client.0, response });
            }
            None => self.after(Duration::from_millis(1_500), Event::Disconnect { connection: client.0 }),
        }
    }

    /// Whoever answers a read has been confirmed since.
    fn read(&mut self, at: usize, client: ClientId, response: &Response) -> Result<(), String> {
        let (node, majority) = (&self.nodes[at], majority(self.nodes.len()));
        let (Ok(Answer::Got { index, .. }), Some(life)) = (&response.body, &node.life) else { return Ok(()) };
        let term = life.replica.soft_state().term;
        let answering =
            Answering { id: node.id(), term, index: *index, confirmed: &life.confirmed, majority };
        self.watch.reads.answered(client.0, response.id, answering)
    }
}
