//! Files of identities, and who is let in with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use raftmap_net::*;

use crate::support::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_are_made_once_with_closed_keys_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let cluster = new_cluster(&at("ca")).unwrap();
    issue_node(&at("ca"), 3, &at("n3")).unwrap();
    issue_client(&at("ca"), "alice", &at("alice")).unwrap();
    for key in ["ca/ca-key.pem", "n3/key.pem", "alice/key.pem"] {
        assert_eq!(mode(&at(key)), 0o600, "{key}");
    }
    let (node, client) = (Identity::load(&at("n3")).unwrap(), Identity::load(&at("alice")).unwrap());
    assert_eq!((node.role(), node.cluster()), (&Role::Node(3), cluster));
    assert_eq!(client.role(), &Role::Client("alice".into()));
    assert_ne!(node.fingerprint(), client.fingerprint());
    assert_eq!(node.fingerprint(), Identity::load(&at("n3")).unwrap().fingerprint());

    let before = fs::read(at("n3/key.pem")).unwrap();
    assert!(matches!(issue_node(&at("ca"), 3, &at("n3")), Err(IdentityError::Exists { .. })));
    assert!(matches!(new_cluster(&at("ca")), Err(IdentityError::Exists { .. })));
    assert_eq!(fs::read(at("n3/key.pem")).unwrap(), before);
    assert!(matches!(issue_node(&at("ca"), 0, &at("n0")), Err(IdentityError::NodeId)));
    for name in ["", "a b", "a/b", "../x", &"x".repeat(65)] {
        let refused = issue_client(&at("ca"), name, &at("bad"));
        assert!(matches!(refused, Err(IdentityError::ClientName { .. })), "{name:?}");
        assert!(!at("bad").exists());
    }
}

#[test]
fn an_open_key_a_foreign_key_and_damage_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    new_cluster(&at("ca")).unwrap();
    issue_node(&at("ca"), 1, &at("n1")).unwrap();
    issue_node(&at("ca"), 2, &at("n2")).unwrap();
    let refusal = |dir: &Path| Identity::load(dir).unwrap_err().to_string();

    fs::set_permissions(at("n1/key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refusal(&at("n1")).contains("mode 0640"), "{}", refusal(&at("n1")));
    assert!(refusal(&at("n1")).contains("chmod 0600"));
    fs::set_permissions(at("n1/key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    Identity::load(&at("n1")).unwrap();

    fs::copy(at("n2/key.pem"), at("n1/key.pem")).unwrap();
    assert!(refusal(&at("n1")).contains("fit together"), "{}", refusal(&at("n1")));
    fs::write(at("n1/key.pem"), "no key").unwrap();
    assert!(refusal(&at("n1")).contains("private key"), "{}", refusal(&at("n1")));
    fs::write(at("n2/cert.pem"), fs::read(at("ca/ca.pem")).unwrap()).unwrap();
    assert!(refusal(&at("n2")).contains("certificate"), "{}", refusal(&at("n2")));
    assert!(matches!(Identity::load(&at("nowhere")), Err(IdentityError::Io { .. })));
}

#[test]
fn keys_stay_out_of_debug_output() {
    let authority = Authority::new().unwrap();
    let shown = format!("{:?} {:?}", node(&authority, 1), authority);
    assert!(shown.contains("redacted") && shown.len() < 400, "{shown}");
}

#[test]
fn away_from_loopback_an_identity_is_needed_and_it_must_be_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let far = "192.0.2.1:7001".parse().unwrap();
    let refusal = Identity::resolve(None, far, &Role::Node(4)).unwrap_err();
    assert!(matches!(refusal, IdentityError::Needed { .. }));
    assert!(refusal.to_string().contains("raftmap cert node --id 4"), "{refusal}");
    new_cluster(&at("ca")).unwrap();
    issue_node(&at("ca"), 1, &at("n1")).unwrap();
    assert!(Identity::resolve(Some(&at("n1")), far, &Role::Node(1)).is_ok());
    assert!(
        Identity::resolve(Some(&at("n1")), far, &Role::Client("x".into())).is_ok(),
        "a node may be a client"
    );
    let refusal = Identity::resolve(Some(&at("n1")), far, &Role::Node(4)).unwrap_err();
    assert!(matches!(refusal, IdentityError::WrongRole { .. }), "{refusal}");
}

/// Run as a process of its own by the test below.
#[test]
fn development_identity_child() {
    if std::env::var_os("RAFTMAP_DEV_DIR_CHILD").is_some() {
        let identity = Identity::resolve(None, any_port(), &Role::Node(1)).unwrap();
        println!("cluster={} fingerprint={:?}", identity.cluster(), identity.fingerprint());
    }
}

#[test]
fn processes_that_race_share_one_development_identity() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("dev");
    let start = |_| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "identity::development_identity_child", "--nocapture"])
            .env("RAFTMAP_DEV_DIR", &place)
            .env("RAFTMAP_DEV_DIR_CHILD", "1")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(start).collect();
    let said = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| Some(line[line.find("cluster=")?..].to_string())).expect("a line")
    });
    let said: Vec<String> = said.collect();
    assert!(said.iter().all(|line| *line == said[0]), "{said:?}");
    assert_eq!(mode(&place), 0o700);
}

/// Starts node 2 and lets `stranger` dial it as node 1: nothing must come of it.
fn never_connects(
    home: &Authority,
    stranger: Plan,
    addr: std::net::SocketAddr,
    runtime: &tokio::runtime::Runtime,
) {
    let two = Plan::new(node(home, 2), addr, &[(1, stranger.listen)]).start(runtime);
    let one = stranger.start(runtime);
    two.nothing_for(Duration::from_millis(700));
    one.nothing_for(Duration::from_millis(1));
    assert!(one.peers.stats().dials_failed > 0 || two.peers.stats().refused > 0, "nobody even tried");
}

#[test]
fn another_authority_is_refused() {
    let runtime = runtime();
    let (home, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
    let addr = free_addr();
    never_connects(&home, Plan::new(node(&foreign, 1), free_addr(), &[(2, addr)]), addr, &runtime);
}

#[test]
fn another_cluster_under_the_same_authority_is_refused() {
    let runtime = runtime();
    let home = Authority::new().unwrap();
    let identity = home.issue_for(ClusterId([9; 16]), &Role::Node(1)).unwrap();
    let addr = free_addr();
    never_connects(&home, Plan::new(identity, free_addr(), &[(2, addr)]), addr, &runtime);
}

#[test]
fn another_node_than_the_one_dialled_is_refused() {
    let runtime = runtime();
    let home = Authority::new().unwrap();
    let addrs = [free_addr(), free_addr()];
    // Node 1 believes that node 3 is at the address where node 2 is.
    let one = Plan::new(node(&home, 1), addrs[0], &[(3, addrs[1])]).start(&runtime);
    let two = Plan::new(node(&home, 2), addrs[1], &[(1, addrs[0])]).start(&runtime);
    one.nothing_for(Duration::from_millis(700));
    two.nothing_for(Duration::from_millis(1));
    eventually("it is counted", || one.peers.stats().refused > 0);
}

#[test]
fn an_unknown_node_and_one_that_should_be_dialled_are_refused() {
    let runtime = runtime();
    let home = Authority::new().unwrap();
    let addrs = [free_addr(), free_addr(), free_addr()];
    let two = Plan::new(node(&home, 2), addrs[1], &[(3, free_addr())]).start(&runtime);
    // Node 1 is nobody to node 2. A node 1 that calls itself 2 is node 2's double.
    let one = Plan::new(node(&home, 1), addrs[0], &[(2, addrs[1])]).start(&runtime);
    one.nothing_for(Duration::from_millis(400));
    two.nothing_for(Duration::from_millis(1));
    eventually("it is counted", || two.peers.stats().refused > 0);
}

#[test]
fn strangers_are_no_clients() {
    let runtime = runtime();
    let (home, foreign) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = Plan::new(node(&home, 1), any_port(), &[]).start(&runtime);
    assert!(connect(&runtime, client(&foreign, "eve"), server.addr).is_err());
    let lost = home.issue_for(ClusterId([9; 16]), &Role::Client("eve".into())).unwrap();
    let refused = connect(&runtime, lost, server.addr).unwrap_err();
    assert!(matches!(refused, ConnectError::Stranger { .. }), "{refused}");
    assert!(connect(&runtime, client(&home, "alice"), server.addr).is_ok());
}
