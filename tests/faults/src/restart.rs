//! The cluster started again after a cut: it elects, it serves, every acknowledged write reads back exactly once, none
//! that was refused does, and all members come to the same map.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raftmap::{Clerk, Keys, Node, Pair, Scan};

use crate::check::{Violation, contains};
use crate::cluster::Plan;
use crate::error::{Result, Scenery, Stop};
use crate::ledger::{Ledger, Moment};

const READY: Duration = Duration::from_secs(60);

/// What is broken after a restart on the directories below `dir`; empty is green.
pub(crate) fn promises(dir: &Path, ledger: &Ledger, at: Moment) -> Result<Vec<Violation>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    let outcome = runtime.block_on(async {
        let plan = Plan::new(dir, None)?;
        let nodes = plan.start_all().await?;
        let outcome = serves(&plan, &nodes, ledger, at).await;
        tokio::task::block_in_place(|| nodes.into_values().for_each(Node::crash));
        outcome
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    match outcome {
        Ok(broken) => Ok(broken.into_iter().map(Violation::Restart).collect()),
        Err(Stop::Red(what)) => Ok(vec![Violation::Restart(what)]),
        Err(other) => Err(other),
    }
}

async fn serves(
    plan: &Plan,
    nodes: &BTreeMap<u64, Node>,
    ledger: &Ledger,
    at: Moment,
) -> Result<Vec<String>> {
    let clerk = plan.clerk(READY)?;
    let red = |what: &str, error: raftmap::Error| Stop::Red(format!("after a restart {what}: {error}"));
    clerk.put("after the cut", "it serves").await.map_err(|error| red("a put fails", error))?;
    let map = read_all(&clerk).await.map_err(|error| red("a scan fails", error))?;
    let mut broken = reads_back(&map, ledger, at);
    broken.extend(same_map(nodes).await);
    Ok(broken)
}

async fn read_all(clerk: &Clerk) -> raftmap::Result<BTreeMap<Bytes, Pair>> {
    let mut map = BTreeMap::new();
    let mut after = None;
    loop {
        let page = clerk.scan(Scan { keys: Keys::Prefix(Bytes::new()), after, limit: 10_000 }).await?;
        after = page.pairs.last().map(|pair| pair.key.clone());
        map.extend(page.pairs.into_iter().map(|pair| (pair.key.clone(), pair)));
        if !page.more {
            return Ok(map);
        }
    }
}

fn reads_back(map: &BTreeMap<Bytes, Pair>, ledger: &Ledger, at: Moment) -> Vec<String> {
    let mut broken = Vec::new();
    for acked in ledger.acked.iter().filter(|acked| acked.at <= at) {
        let pair = map.get(acked.key.as_bytes());
        let there = pair.is_some_and(|pair| match acked.replaced {
            true => pair.version >= acked.index,
            false => contains(&pair.value, &acked.token),
        });
        if !there {
            broken.push(format!("{} of {} does not read back", acked.token, acked.key));
        }
    }
    for (key, pair) in map.iter().filter(|(key, _)| *key != "after the cut") {
        let mut seen = std::collections::BTreeSet::new();
        for token in tokens(&pair.value) {
            if ledger.refused.get(&token).is_some_and(|refused| *refused <= at) {
                broken.push(format!("{token} of {} was refused, and is there", text(key)));
            }
            if !seen.insert(token.clone()) {
                broken.push(format!("{token} of {} is there twice", text(key)));
            }
        }
    }
    broken
}

/// The tokens of a value: `<generation.client.number>`, each with padding behind it.
fn tokens(value: &[u8]) -> Vec<String> {
    text(value).split_inclusive('>').filter_map(|part| Some(part[part.find('<')?..].to_owned())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All members, at one applied index, have one digest.
async fn same_map(nodes: &BTreeMap<u64, Node>) -> Option<String> {
    let begin = Instant::now();
    loop {
        let mut digests = Vec::new();
        for node in nodes.values() {
            digests.extend(node.digest().await.ok());
        }
        let same_place =
            digests.len() == nodes.len() && digests.iter().all(|digest| digest.0 == digests[0].0);
        if same_place {
            let same = digests.iter().all(|digest| digest.1 == digests[0].1);
            return (!same).then(|| format!("maps differ at entry {}", digests[0].0));
        }
        if begin.elapsed() > READY {
            return Some(format!("members do not come to one applied index: {digests:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Acked;

    fn pair(key: &'static str, value: &'static str, version: u64) -> (Bytes, Pair) {
        let key = Bytes::from_static(key.as_bytes());
        (key.clone(), Pair { key, value: Bytes::from_static(value.as_bytes()), version })
    }

    fn acked(key: &str, token: &str, index: u64, replaced: bool) -> Acked {
        Acked { at: 5, index, key: key.into(), token: token.into(), replaced }
    }

    #[test]
    fn what_is_gone_doubled_or_was_refused_is_told() {
        let ledger = Ledger {
            acked: vec![acked("app", "<0.1.1>", 3, false), acked("put", "<0.1.2>", 4, true)],
            refused: [("<0.1.3>".into(), 5)].into(),
            ..Ledger::default()
        };
        let told = |app, put, version, at| {
            reads_back(&[pair("app", app, 3), pair("put", put, version)].into(), &ledger, at).join("; ")
        };
        assert_eq!(told("<0.1.1>xx", "<0.1.2>", 4, 5), "");
        assert_eq!(told("<0.1.1>xx", "<0.1.9>", 6, 5), "", "stored over");
        assert_eq!(told("<0.1.1>xx", "<0.1.2>", 3, 5), "<0.1.2> of put does not read back");
        assert_eq!(told("xx", "<0.1.2>", 4, 5), "<0.1.1> of app does not read back");
        assert_eq!(told("", "", 0, 4), "", "not promised yet");
        assert_eq!(told("<0.1.1>x<0.1.1>", "<0.1.2>", 4, 5), "<0.1.1> of app is there twice");
        assert_eq!(told("<0.1.1><0.1.3>", "<0.1.2>", 4, 5), "<0.1.3> of app was refused, and is there");
        assert_eq!(told("<0.1.1><0.1.3>", "<0.1.2>", 4, 4), "", "refused behind the cut");
    }
}
