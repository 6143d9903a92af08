//! Three members, each in a network namespace of its own on one bridge, and a network between them that loses,
//! doubles, garbles, separates and slows. Clients write meanwhile; afterwards everything acknowledged is there, once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Result, Scenery, Stop};
use crate::process::{self, Members, Process};
use crate::tools;
use crate::work::{self, Work};

const NODES: u64 = 3;
const PORT: u16 = 7000;
const CALL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// Writes that must go through while the fault lasts: in each scenario a majority can hear each other.
const THROUGH_MIN: u64 = 5;

/// A fault of the network. The commands are run in the namespaces of members: `L` the leader, `A` and `B` the others.
struct Scenario {
    name: &'static str,
    case: &'static str,
    commands: &'static [(&'static str, &'static str)],
}

const CHAIN: &str = "nft add table ip f; nft add chain ip f in '{ type filter hook input priority 0; }'; \
                     nft add chain ip f out '{ type filter hook output priority 0; }'";

/// In a command `$L`, `$A` and `$B` are addresses; the chains `in` and `out` are there. Drops stand on input: a sender
/// would notice one on output.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "loss",
        case: "N1",
        commands: &[("LAB", "nft add rule ip f in numgen random mod 100 '<' 30 counter drop")],
    },
    Scenario {
        name: "duplicate",
        case: "N2",
        commands: &[
            ("L", "nft add rule ip f out ip daddr $A counter dup to $A device eth0"),
            ("L", "nft add rule ip f out ip daddr $B counter dup to $B device eth0"),
            ("AB", "nft add rule ip f out ip daddr $L counter dup to $L device eth0"),
        ],
    },
    Scenario {
        name: "partition",
        case: "N5",
        commands: &[
            ("L", "nft add rule ip f in counter drop"),
            ("AB", "nft add rule ip f in ip saddr $L counter drop"),
        ],
    },
    Scenario { name: "one-way", case: "N6", commands: &[("L", "nft add rule ip f in counter drop")] },
    Scenario {
        name: "bridge",
        case: "N7",
        commands: &[
            ("L", "nft add rule ip f in ip saddr $A counter drop"),
            ("A", "nft add rule ip f in ip saddr $L counter drop"),
        ],
    },
    Scenario {
        name: "slow",
        case: "N10",
        commands: &[("A", "tc qdisc add dev eth0 root tbf rate 64kbit burst 4k latency 400ms")],
    },
    Scenario {
        name: "mtu",
        case: "N11",
        commands: &[
            ("A", "ip link set eth0 mtu 1280"),
            ("LB", "nft add rule ip f in meta length '>' 1280 counter drop"),
        ],
    },
    Scenario {
        name: "garble",
        case: "N15",
        commands: &[(
            "LAB",
            "nft add rule ip f in meta l4proto udp numgen random mod 100 '<' 20 counter @th,160,8 set 0x41",
        )],
    },
];

pub(crate) fn run(only: Option<&str>, seconds: u64) -> Result<()> {
    tools::need(&[("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables"), tools::MOUNT])?;
    let place = tempfile::tempdir().or_broken("making a place")?;
    let members = build(place.path())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_broken("starting a runtime")?;
    runtime.block_on(all(&members, only, Duration::from_secs(seconds)))
}

// ---- The network ----

fn sh(words: &str) -> Result<()> {
    tools::run("sh", &["-c", words])
}

/// Bridge, namespaces, identities. This process is in a network namespace of its own already.
fn build(place: &Path) -> Result<Members> {
    sh("ip link set lo up; mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns")?;
    sh("ip link add br0 type bridge && ip addr add 10.77.0.254/24 dev br0 && ip link set br0 up")?;
    let program = process::program()?.display().to_string();
    let at = |name: &str| place.join(name).display().to_string();
    tools::run(&program, &["cert", "new-cluster", "--out", &at("cluster")])?;
    let client = ["cert", "client", "--cluster", &at("cluster"), "--name", "faults", "--out", &at("client")];
    tools::run(&program, &client)?;
    let (mut dirs, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    for id in 1..=NODES {
        let number = id.to_string();
        let node = at(&format!("node-{id}"));
        tools::run(
            &program,
            &["cert", "node", "--cluster", &at("cluster"), "--id", &number, "--out", &node],
        )?;
        // Without the limit several packets cross as one, and a rule meets them as one.
        sh(&format!(
            "ip netns add m{id} && ip link add v{id} type veth peer name eth0 netns m{id} && \
             ip link set v{id} master br0 up && ip link set v{id} gso_max_segs 1 && \
             ip -n m{id} link set lo up && ip -n m{id} link set eth0 gso_max_segs 1 && \
             ip -n m{id} addr add 10.77.0.{id}/24 dev eth0 && ip -n m{id} link set eth0 up"
        ))?;
        dirs.insert(id, place.join(number));
        addresses
            .insert(id, SocketAddr::from((Ipv4Addr::new(10, 77, 0, u8::try_from(id).unwrap_or(0)), PORT)));
    }
    Ok(Members { dirs, addresses, identities: Some(place.into()) })
}

/// Runs `words` in the namespace of `id`; what it printed.
fn inside(id: u64, words: &str) -> Result<String> {
    let output = Command::new("ip")
        .args(["netns", "exec", &format!("m{id}"), "sh", "-c", words])
        .stdin(Stdio::null())
        .output()
        .or_broken("starting ip")?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Stop::Broken(format!("`{words}`: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

fn apply(scenario: &Scenario, leader: u64) -> Result<()> {
    let roles: BTreeMap<char, u64> =
        "LAB".chars().zip([leader, leader % NODES + 1, (leader + 1) % NODES + 1]).collect();
    roles.values().try_for_each(|id| inside(*id, CHAIN).map(drop))?;
    for (who, words) in scenario.commands {
        let mut words = (*words).to_owned();
        for (role, id) in &roles {
            words = words.replace(&format!("${role}"), &format!("10.77.0.{id}"));
        }
        for role in who.chars() {
            inside(roles[&role], &words)?;
        }
    }
    Ok(())
}

/// Takes all faults away. Packets that the rules or the queue have hit.
fn heal() -> Result<u64> {
    let mut hit = 0;
    for id in 1..=NODES {
        let rules = inside(id, "nft list table ip f; tc -s qdisc show dev eth0")?;
        hit += numbers_behind(&rules, "counter packets ") + numbers_behind(&rules, "overlimits ");
        inside(
            id,
            "nft delete table ip f; ip link set eth0 mtu 1500; tc qdisc del dev eth0 root 2>/dev/null; true",
        )?;
    }
    Ok(hit)
}

fn numbers_behind(text: &str, word: &str) -> u64 {
    let behind = text.split(word).skip(1).filter_map(|rest| rest.split_whitespace().next());
    behind.filter_map(|number| number.parse::<u64>().ok()).sum()
}

// ---- The members ----

async fn all(members: &Members, only: Option<&str>, time: Duration) -> Result<()> {
    let mut processes = BTreeMap::new();
    for id in 1..=NODES {
        let prefix = ["ip", "netns", "exec", &format!("m{id}")].map(String::from);
        processes.insert(id, members.start(id, &prefix)?);
    }
    let mut work = Work::default();
    let clerk = members.clerk(CALL)?;
    if !write_until(&mut work, &clerk, 20, &mut processes).await? {
        return Err(Stop::Broken("the members do not serve before anything was done to them".into()));
    }
    let mut ran = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| only == scenario.name)) {
        one(scenario, members, &mut work, &mut processes, time).await?;
        ran += 1;
    }
    if ran == 0 {
        return Err(Stop::Broken("there is no such scenario".into()));
    }
    same_map(members).await?;
    processes.clear();
    members.dirs.values().try_for_each(|dir| work::verify(dir))?;
    println!("{} acknowledged, none lost, none twice; {} calls without", work.acked, work.failed);
    Ok(())
}

async fn one(
    scenario: &Scenario,
    members: &Members,
    work: &mut Work,
    processes: &mut BTreeMap<u64, Process>,
    time: Duration,
) -> Result<()> {
    let clerk = members.clerk(CALL)?;
    apply(scenario, members.leader().await?)?;
    let (begin, before) = (Instant::now(), work.acked);
    // A busy machine gets more time, as far as it has nothing to show.
    while begin.elapsed() < time || work.acked < before + THROUGH_MIN && begin.elapsed() < PATIENCE {
        let _counted = work.write(&clerk).await;
    }
    let (through, lasted) = (work.acked - before, begin.elapsed().as_secs_f64());
    let hit = heal()?;
    let healed = Instant::now();
    if hit == 0 {
        return Err(Stop::Broken(format!("{}: the rules never met a packet", scenario.name)));
    }
    if through < THROUGH_MIN {
        return Err(Stop::Red(format!("{}: {through} writes went through in {PATIENCE:?}", scenario.name)));
    }
    if !write_until(work, &clerk, 20, processes).await? {
        return Err(Stop::Red(format!("{}: not served within {PATIENCE:?} of its end", scenario.name)));
    }
    work.reads_back(&clerk).await?;
    println!(
        "{:<10} {:<4} {hit:>6} packets hit, {through:>5} writes in its {lasted:.1} s, 20 more {:.1} s after",
        scenario.name,
        scenario.case,
        healed.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn write_until(
    work: &mut Work,
    clerk: &raftmap::Clerk,
    count: u64,
    processes: &mut BTreeMap<u64, Process>,
) -> Result<bool> {
    let first = processes.get_mut(&1).ok_or(Stop::Broken("no first member".into()))?;
    let did = work.write_some(clerk, count, first, PATIENCE).await;
    match processes.iter_mut().find_map(|(id, process)| Some((id, process.ended()?))) {
        Some((id, ended)) => Err(Stop::Red(format!("member {id} ended with {ended:?}"))),
        None => Ok(did),
    }
}

/// All members come to one map.
async fn same_map(members: &Members) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let mut digests = Vec::new();
        for address in members.addresses.values() {
            digests.extend(raftmap::admin::digest(*address, &members.options(), CALL).await.ok());
        }
        if digests.len() as u64 == NODES && digests.iter().all(|digest| digest.0 == digests[0].0) {
            return match digests.iter().all(|digest| digest.1 == digests[0].1) {
                true => Ok(()),
                false => Err(Stop::Red(format!("maps differ at entry {}", digests[0].0))),
            };
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Stop::Red("the members do not come to one map".into()))
}
