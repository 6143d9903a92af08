//! What counts as a fault that took hold. The processes here are no nodes: they end by themselves, and nobody looks.

use std::path::Path;
use std::sync::Arc;

use raftmap::net::relay::Weather;

use super::*;

/// Three nodes of which none runs yet, and what faults need besides.
struct Scene {
    dir: tempfile::TempDir,
    nodes: Nodes,
    network: Network,
    shared: Arc<Shared>,
    tally: Tally,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut nodes = Nodes::new(dir.path(), 3).expect("ports");
        let network = Network::between(&mut nodes, 1).await.expect("relays");
        Self { dir, nodes, network, shared: Shared::new(), tally: Tally::default() }
    }

    fn faults(&mut self) -> Faults<'_> {
        Faults::new(&mut self.nodes, &self.network, &self.shared, &mut self.tally)
    }
}

fn act(sort: Sort) -> Act {
    let (at, lasts) = (Duration::ZERO, Duration::from_secs(1));
    Act { sort, order: vec![1, 2, 3], at, lasts, weather: Weather::default(), lives: Vec::new() }
}

#[tokio::test]
async fn a_majority_and_all_count_only_in_full() {
    for (sort, part, full) in [
        (Sort::KillMajority, &[1, 3][..], &[1, 2][..]),
        (Sort::KillAll, &[1, 2], &[1, 2, 3]),
        (Sort::StopMajority, &[2, 3], &[1, 2]),
    ] {
        for (running, counted) in [(part, 0), (full, 1)] {
            let mut scene = Scene::new().await;
            let mut faults = scene.faults();
            faults.start(running).expect("started");
            let (act, end) = (act(sort), Instant::now());
            match sort.kind() {
                Kind::Stop => faults.begin_stop(&act, Some(3), end).await.expect("signalled"),
                _ => faults.begin_kill(&act, Some(3), false, end).await.expect("killed"),
            }
            assert_eq!(faults.tally.fired_by(sort), counted, "{sort} of {running:?}");
            assert_eq!(faults.asleep.is_some(), sort == Sort::StopMajority && counted == 1);
            scene.nodes.kill_all().await;
        }
    }
}

#[tokio::test]
async fn full_disks_count_once_all_have_noticed() {
    let mut scene = Scene::new().await;
    let mut faults = scene.faults();
    faults.filled = Some((Sort::FullMajority, [1, 2].into()));
    for (node, counted) in [(1, 0), (3, 0), (1, 0), (2, 1), (2, 1)] {
        faults.found_full(node);
        assert_eq!(faults.tally.fired_by(Sort::FullMajority), counted, "node {node}");
    }
    assert!(faults.all_found_full(1).await);
}

#[tokio::test]
async fn a_kill_in_recovery_counts_between_the_lock_and_the_first_answer() {
    for (said, counted) in [("raftmap: node 1 listens on 127.0.0.1:1", 0), ("", 1)] {
        let mut scene = Scene::new().await;
        let dir = scene.dir.path().to_owned();
        let mut faults = scene.faults();
        let lives = vec![Duration::ZERO; 2];
        faults.next_life(Recovering { node: 1, lives, cut_short: false }).expect("started");
        for _ in 0..3 {
            let Some((_, Step::AwaitRecovery(recovering))) = faults.steps.pop_first() else {
                panic!("no wait")
            };
            faults.await_recovery(recovering);
        }
        take_directory(faults.nodes, &dir);
        let Some((_, Step::AwaitRecovery(recovering))) = faults.steps.pop_first() else { panic!("no wait") };
        faults.await_recovery(recovering);
        let Some((_, Step::EndRecovery(recovering))) = faults.steps.pop_first() else { panic!("no end") };
        fs::write(dir.join("node-1.log"), said).expect("written");
        faults.end_recovery(recovering).await.expect("killed");
        assert_eq!(faults.tally.fired_by(Sort::KillInRecovery), counted, "{said}");
        let Some((_, Step::AwaitRecovery(recovering))) = faults.steps.pop_first() else { panic!("no wait") };
        assert_eq!((recovering.lives.len(), recovering.cut_short), (1, counted == 1));
        scene.nodes.kill_all().await;
    }
}

/// As a node does it that recovers.
fn take_directory(nodes: &Nodes, dir: &Path) {
    let process = nodes.process(1).expect("it runs");
    fs::create_dir_all(dir.join("node-1")).expect("made");
    fs::write(dir.join("node-1/LOCK"), format!("{process}\n")).expect("written");
}
