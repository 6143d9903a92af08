//! Suites: a test binary of this workspace, a filter, and how many seeds it may take; and how they are built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Binaries by the names that bugs.tsv uses: package, cargo's words for the target, and what says how many seeds.
const BINARIES: &[(&str, &str, &[&str], &str)] = &[
    ("lib", "raftmap", &["--lib"], "RAFTMAP_WORLDS"),
    ("sim", "raftmap", &["--test", "sim"], "SIM_SEEDS"),
    ("lab", "raftmap", &["--test", "lab"], "LAB_SEEDS"),
    ("bounds", "raftmap", &["--test", "bounds"], ""),
    ("embedded", "raftmap", &["--test", "embedded"], ""),
    ("faults", "raftmap", &["--test", "faults"], ""),
    ("storage", "raftmap-storage", &["--lib"], ""),
    ("crash", "raftmap-storage", &["--test", "crash"], ""),
    ("wire", "raftmap-net", &["--test", "wire"], ""),
];

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
        let known = BINARIES.iter().find(|(known, ..)| *known == binary);
        let (binary, ..) = known.ok_or_else(|| format!("there is no suite {binary:?}"))?;
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
    /// By binary: the executable, and the folder it runs in.
    built: BTreeMap<&'static str, (PathBuf, PathBuf)>,
    /// Where runs leave what they printed.
    pub(crate) logs: PathBuf,
}

impl Suites {
    pub(crate) fn build(root: &Path, wanted: &[&Suite]) -> Result<Self, String> {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let target = target.join("reintroduced");
        let mut built = BTreeMap::new();
        for (name, package, words, _) in BINARIES {
            if wanted.iter().any(|suite| suite.binary == *name) {
                built.insert(*name, build(root, &target, package, words)?);
            }
        }
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
        let variable = BINARIES.iter().find(|(name, ..)| *name == suite.binary).map_or("", |found| found.3);
        if let (Some(seeds), false) = (suite.seeds, variable.is_empty()) {
            command.env(variable, seeds.to_string());
        }
        Ok(command)
    }
}

/// Builds one test binary and says where it is, and where it runs.
fn build(root: &Path, target: &Path, package: &str, words: &[&str]) -> Result<(PathBuf, PathBuf), String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["test", "--no-run", "--message-format=json-render-diagnostics", "-p", package])
        .args(words)
        .env("RUSTFLAGS", "--cfg raftmap_bugs")
        .env("CARGO_TARGET_DIR", target)
        // Worlds run five times as fast; the debug assertions, without which there are no switches, stay.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_INCREMENTAL", "0")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{package} {} does not build", words.join(" ")));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = artifacts.filter(|message| message["profile"]["test"] == true);
    let found = tests.filter_map(|message| {
        let manifest = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
        Some((PathBuf::from(message["executable"].as_str()?), manifest))
    });
    found.last().ok_or_else(|| format!("cargo names no executable of {package} {}", words.join(" ")))
}
