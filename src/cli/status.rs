//! `raftmap status`: how each node says it is, side by side.

use std::net::SocketAddr;

use raftmap::NodeStatus;
use serde_json::{Value, json};

use super::calls::Cluster;
use super::exit::{Exit, Failure, Outcome, chain};
use super::output::{self, Style};
use super::size;

const HELP: &str = "\
One row a server; a server that does not answer has a row that says so. `trails` is how many entries are on the
leader's log and not yet on this node's disk.

Exit codes: 0 at least one server answered, 2 there is no identity to show them, 4 none did.

Example: raftmap status --servers 127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";

/// Show how the nodes are.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Cluster,
}

/// What one server said, or why it said nothing.
struct Row {
    address: SocketAddr,
    answer: Result<NodeStatus, String>,
}

/// Asks all servers at once and prints what they say.
pub(crate) async fn run(args: Args, style: Style) -> Outcome {
    // Without a usable identity nobody is asked, and no server is to blame.
    args.cluster.connect()?;
    let options = args.cluster.options();
    let mut asked = Vec::new();
    for address in args.cluster.servers {
        let (options, timeout) = (options.clone(), args.cluster.timeout);
        asked.push(tokio::spawn(async move {
            let answer = raftmap::admin::status(address, &options, timeout).await;
            Row { address, answer: answer.map_err(|error| chain(&error)) }
        }));
    }
    let mut rows = Vec::new();
    for row in asked {
        rows.push(row.await.map_err(|error| Failure::not_done(format!("cannot ask: {error}")))?);
    }
    style.print(|| table(&rows), || object(&rows))?;
    for (address, error) in
        rows.iter().filter_map(|row| row.answer.as_ref().err().map(|error| (row.address, error)))
    {
        output::note(&format!("raftmap: {address}: {error}"));
    }
    Ok(if rows.iter().any(|row| row.answer.is_ok()) { Exit::Done } else { Exit::NotDone })
}

/// The leader among some nodes: an older one may not know yet that its term is over.
pub(crate) fn leader<'a>(nodes: impl IntoIterator<Item = &'a NodeStatus>) -> Option<&'a NodeStatus> {
    nodes.into_iter().filter(|node| node.role == "leader").max_by_key(|node| node.term)
}

/// Entries of the leader's log that are not on the node's disk yet.
fn trails(node: &NodeStatus, leader: Option<&NodeStatus>) -> Option<u64> {
    leader.map(|leader| leader.last.0.saturating_sub(node.durable.0))
}

fn answered(rows: &[Row]) -> impl Iterator<Item = &NodeStatus> {
    rows.iter().filter_map(|row| row.answer.as_ref().ok())
}

const HEADING: [&str; 13] = [
    "id",
    "address",
    "role",
    "term",
    "last",
    "committed",
    "applied",
    "raft state",
    "disk",
    "snapshot",
    "fsync p50",
    "fsync p99",
    "trails",
];

fn table(rows: &[Row]) -> String {
    let leader = leader(answered(rows));
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| match &row.answer {
            Ok(node) => cells(row.address, node, leader),
            Err(_) => vec!["?".into(), row.address.to_string(), "unreachable".into()],
        })
        .collect();
    output::table(&HEADING, &rows, 3)
}

fn cells(address: SocketAddr, node: &NodeStatus, leader: Option<&NodeStatus>) -> Vec<String> {
    let role = if node.no_space { format!("{}, disk full", node.role) } else { node.role.clone() };
    vec![
        node.id.to_string(),
        address.to_string(),
        role,
        node.term.to_string(),
        node.last.to_string(),
        node.committed.to_string(),
        node.applied.to_string(),
        size::show(node.raft_state_bytes),
        size::show(node.disk_bytes),
        node.snapshot.to_string(),
        format!("{}us", node.fsync_p50_us),
        format!("{}us", node.fsync_p99_us),
        trails(node, leader).map_or("?".into(), |entries| entries.to_string()),
    ]
}

fn object(rows: &[Row]) -> Value {
    let leader = leader(answered(rows));
    let nodes: Vec<Value> = rows
        .iter()
        .map(|row| match &row.answer {
            Ok(node) => node_json(row.address, node, leader),
            Err(error) => json!({ "address": row.address, "reachable": false, "error": error }),
        })
        .collect();
    json!({ "leader": leader.map(|node| node.id.0), "nodes": nodes })
}

fn node_json(address: SocketAddr, node: &NodeStatus, leader: Option<&NodeStatus>) -> Value {
    json!({
        "address": address,
        "reachable": true,
        "id": node.id.0,
        "role": node.role,
        "term": node.term.0,
        "leader": node.leader.map(|leader| leader.0),
        "last": node.last.0,
        "committed": node.committed.0,
        "applied": node.applied.0,
        "durable": node.durable.0,
        "raft_state_bytes": node.raft_state_bytes,
        "max_raft_state": node.max_raft_state,
        "disk_bytes": node.disk_bytes,
        "snapshot": node.snapshot.0,
        "fsync_p50_us": node.fsync_p50_us,
        "fsync_p99_us": node.fsync_p99_us,
        "syncs": node.syncs,
        "pairs": node.pairs,
        "sessions": node.sessions,
        "no_space": node.no_space,
        "trails": trails(node, leader),
    })
}

#[cfg(test)]
mod tests {
    use raftmap::storage::types::{Index, NodeId, Term};

    use super::*;

    fn node(id: u64, role: &str, term: u64, last: u64) -> NodeStatus {
        NodeStatus {
            id: NodeId(id),
            role: role.into(),
            term: Term(term),
            leader: Some(NodeId(1)),
            last: Index(last),
            committed: Index(last),
            applied: Index(last),
            durable: Index(last),
            raft_state_bytes: 2_048,
            max_raft_state: None,
            disk_bytes: 3 << 20,
            snapshot: Index(7),
            fsync_p50_us: 90,
            fsync_p99_us: 400,
            syncs: 5,
            pairs: 2,
            sessions: 1,
            no_space: false,
        }
    }

    fn rows() -> Vec<Row> {
        let address = |port| ([127, 0, 0, 1], port).into();
        vec![
            Row { address: address(7001), answer: Ok(node(1, "leader", 4, 120)) },
            Row { address: address(7002), answer: Ok(node(2, "leader", 3, 100)) },
            Row { address: address(7003), answer: Err("no server answered".into()) },
        ]
    }

    #[test]
    fn the_leader_is_that_of_the_latest_term() {
        let rows = rows();
        assert_eq!(leader(answered(&rows)).map(|node| node.id), Some(NodeId(1)));
        assert_eq!(leader([&node(2, "follower", 9, 1)]), None);
    }

    #[test]
    fn a_row_for_each_server_also_for_one_that_is_silent() {
        let table = table(&rows());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[1].contains("127.0.0.1:7001") && lines[1].ends_with(" 0"), "{table}");
        assert!(
            lines[2].contains("2KiB") && lines[2].contains("3MiB") && lines[2].ends_with("400us      20"),
            "{table}"
        );
        assert!(lines[3].starts_with("?   127.0.0.1:7003  unreachable"), "{table}");
    }

    #[test]
    fn the_json_has_the_same() {
        let object = object(&rows());
        assert_eq!(object["leader"], 1);
        assert_eq!(object["nodes"][1]["trails"], 20);
        assert_eq!(object["nodes"][2]["reachable"], false);
    }
}
