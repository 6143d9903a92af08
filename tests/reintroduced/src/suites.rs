//! Suites: a test binary of this workspace, a filter, and how many seeds it may take; and how they are built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A test binary.
struct Binary {
    /// What bugs.tsv calls it.
    name: &'static str,
    package: &'static str,
    /// The test target; none: the library's unit tests.
    test: Option<&'static str>,
    /// The variable that says how many seeds; empty where it takes none.
    seeds: &'static str,
}

const fn binary(
    name: &'static str,
    package: &'static str,
    test: Option<&'static str>,
    seeds: &'static str,
) -> Binary {
    Binary { name, package, test, seeds }
}

const BINARIES: &[Binary] = &[
    binary("lib", "raftmap", None, "RAFTMAP_WORLDS"),
    binary("sim", "raftmap", Some("sim"), "SIM_SEEDS"),
    binary("lab", "raftmap", Some("lab"), "LAB_SEEDS"),
    binary("bounds", "raftmap", Some("bounds"), ""),
    binary("embedded", "raftmap", Some("embedded"), ""),
    binary("faults", "raftmap", Some("faults"), ""),
    binary("hostile", "raftmap", Some("hostile"), ""),
    binary("storage", "raftmap-storage", None, ""),
    binary("crash", "raftmap-storage", Some("crash"), ""),
    binary("wire", "raftmap-net", Some("wire"), ""),
];

fn find(name: &str) -> Result<&'static Binary, String> {
    BINARIES.iter().find(|binary| binary.name == name).ok_or_else(|| format!("there is no suite {name:?}"))
}

/// Some tests of a binary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suite {
    binary: &'static str,
    filter: String,
    /// `None`: as many as the suite takes by itself.
    pub(crate) seeds: Option<u64>,
}

impl Suite {
    /// `binary` or `binary:filter`; `-` for the suite's own number of seeds.
    pub(crate) fn parse(name: &str, seeds: &str) -> Result<Self, String> {
        let (binary, filter) = name.split_once(':').unwrap_or((name, ""));
        let binary = find(binary)?.name;
        let seeds = match seeds {
            "-" => None,
            seeds => Some(seeds.parse().map_err(|_| format!("{seeds:?} is no number of seeds"))?),
        };
        Ok(Self { binary, filter: filter.into(), seeds })
    }

    pub(crate) fn words(&self) -> String {
        let colon = if self.filter.is_empty() { "" } else { ":" };
        let seeds = self.seeds.map(|seeds| format!(", {seeds} seeds")).unwrap_or_default();
        format!("{}{colon}{}{seeds}", self.binary, self.filter)
    }
}

/// Each suite once, with the most seeds that any bug gives it.
pub(crate) fn largest(suites: &[&Suite]) -> Vec<Suite> {
    let mut largest = BTreeMap::new();
    for suite in suites {
        let seeds = largest.entry((suite.binary, suite.filter.clone())).or_insert(suite.seeds);
        *seeds = (*seeds).max(suite.seeds);
    }
    largest.into_iter().map(|((binary, filter), seeds)| Suite { binary, filter, seeds }).collect()
}

/// The suites, built with the switches in.
pub(crate) struct Suites {
    built: Built,
    /// Where runs leave what they printed.
    pub(crate) logs: PathBuf,
}

impl Suites {
    pub(crate) fn build(root: &Path, wanted: &[&Suite]) -> Result<Self, String> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let target = target.join("reintroduced");
        let binaries =
            BINARIES.iter().filter(|binary| wanted.iter().any(|suite| suite.binary == binary.name));
        let built = build(root, &target, &binaries.collect::<Vec<_>>())?;
        let logs = target.join("logs");
        std::fs::create_dir_all(&logs).map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
        Ok(Self { built, logs })
    }

    /// The command that runs `suite`.
    pub(crate) fn command(&self, suite: &Suite) -> Result<Command, String> {
        let (executable, folder) =
            self.built.get(suite.binary).ok_or_else(|| format!("{} was not built", suite.binary))?;
        let mut command = Command::new(executable);
        command.current_dir(folder).arg(&suite.filter).env_remove("SIM_SEED").env_remove("RAFTMAP_SEED");
        let variable = find(suite.binary)?.seeds;
        if let (Some(seeds), false) = (suite.seeds, variable.is_empty()) {
            command.env(variable, seeds.to_string());
        }
        Ok(command)
    }
}

/// By a binary's name: the executable, and the folder it runs in.
type Built = BTreeMap<&'static str, (PathBuf, PathBuf)>;

/// Builds them in one go, and says of each where it is and where it runs.
fn build(root: &Path, target: &Path, binaries: &[&'static Binary]) -> Result<Built, String> {
    let mut words = vec!["test", "--no-run", "--message-format=json-render-diagnostics"];
    for binary in binaries {
        words.extend(["-p", binary.package]);
        words.extend(binary.test.map_or(vec!["--lib"], |test| vec!["--test", test]));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo told this process of its own package would make some build scripts run anew.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .current_dir(root)
        .args(words)
        .env("RUSTFLAGS", "--cfg raftmap_bugs")
        .env("CARGO_TARGET_DIR", target)
        // Worlds run several times as fast; the debug assertions, without which there are no switches, stay.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_INCREMENTAL", "0")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("the suites do not build".into());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let built = |binary: &&'static Binary| {
        let found = artifacts.iter().find_map(|artifact| executable(artifact, binary));
        found.map(|found| (binary.name, found)).ok_or_else(|| format!("cargo built no {}", binary.name))
    };
    binaries.iter().map(built).collect()
}

/// Where this artifact is and runs, if it is the binary.
fn executable(artifact: &Value, binary: &Binary) -> Option<(PathBuf, PathBuf)> {
    let target = &artifact["target"];
    let kind = if binary.test.is_some() { "test" } else { "lib" };
    let name = binary.test.map_or_else(|| binary.package.replace('-', "_"), str::to_owned);
    if artifact["profile"]["test"] != true || target["kind"][0] != kind || target["name"] != name.as_str() {
        return None;
    }
    let folder = Path::new(artifact["manifest_path"].as_str()?).parent()?.to_path_buf();
    Some((PathBuf::from(artifact["executable"].as_str()?), folder))
}
