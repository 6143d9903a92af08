//! `raftmap torture`: that it finds nothing where nothing is wrong, and what is wrong where something is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::{Ended, raftmap, run};

/// A machine that has no time for the nodes proves nothing, as the command then says itself: it is asked again so often.
const TRIES: usize = 3;

/// A test of the plan holds it to that: the leader is stopped, and later killed, with nothing before that deposes it.
const SEED_OF_LEADERS: &str = "9623";

#[test]
fn a_short_run_with_every_fault_is_well() {
    let dir = tempfile::tempdir().unwrap();
    for attempt in 1..=TRIES {
        let history = dir.path().join(format!("history-{attempt}.jsonl"));
        let name = history.display().to_string();
        let args = ["torture", "--minutes", "0.2", "--clients", "6", "--seed", SEED_OF_LEADERS];
        let ended = run(&[&args[..], &["--history", &name, "--json"]].concat());
        let json = ended.json();
        nothing_is_wrong(&ended);
        within_bounds(&json);
        ledger_is_whole(&history, &json);
        assert_eq!(json["history"], name, "{json}");
        assert_eq!(run(&["check", &name, "--json"]).code(0).json()["passed"], true);
        let met = json["says_nothing"].is_null()
            && count(&json, "pauses", "leader") * count(&json, "kills", "leader") > 0;
        if !met && attempt < TRIES {
            forget(&json);
            continue;
        }
        passes(&ended, 3);
        for (kind, name) in [("pauses", "leader"), ("kills", "leader")] {
            assert!(count(&json, kind, name) > 0, "{kind} {name}: {json}");
        }
        for kind in ["kills", "pauses", "partitions", "disk_full"] {
            assert!(json[kind].as_object().unwrap().values().any(|count| *count != 0), "{kind}: {json}");
        }
        a_doctored_ledger_is_noticed(&history);
        return;
    }
}

#[test]
fn a_short_run_of_five_is_well() {
    for attempt in 1..=TRIES {
        let args = ["torture", "--nodes", "5", "--minutes", "0.2", "--clients", "8", "--json"];
        let ended = run(&[&args[..], &["--faults", "kill,partition", "--seed", SEED_OF_FIVE]].concat());
        let json = ended.json();
        nothing_is_wrong(&ended);
        within_bounds(&json);
        if !json["says_nothing"].is_null() && attempt < TRIES {
            forget(&json);
            continue;
        }
        passes(&ended, 5);
        assert!(count(&json, "kills", "one") > 0 && count(&json, "partitions", "ring") > 0, "{json}");
        assert!(json["history"].is_null() && !Path::new(&dir_of(&ended.stderr)).exists(), "{ended:?}");
        return;
    }
}

/// A test of the plan holds it to that: all are a ring at first, and one is killed.
const SEED_OF_FIVE: &str = "66522";

#[track_caller]
fn nothing_is_wrong(ended: &Ended) {
    let json = ended.json();
    for name in ["lost", "doubled", "stale", "changed_later", "unresolved"] {
        assert_eq!(json[name], 0, "{name}: {ended:?}");
    }
    assert_eq!((&json["problems"], &json["findings"]), (&json!([]), &json!({})), "{ended:?}");
}

/// It passes, and leaves nothing behind.
#[track_caller]
fn passes(ended: &Ended, nodes: u64) {
    let json = ended.json();
    assert_eq!((&json["passed"], ended.code), (&Value::Bool(true), Some(0)), "{ended:?}");
    assert_eq!((&json["complete"], &json["directories_verified"]), (&Value::Bool(true), &nodes.into()));
    assert!(json["dir"].is_null() && !Path::new(&dir_of(&ended.stderr)).exists(), "{ended:?}");
}

/// Where the nodes' data is, as the command says at the beginning.
fn dir_of(words: &str) -> String {
    let line = words.lines().find(|line| line.contains(" leads; seed ")).expect("a leader");
    line.split_once(", in ").expect("a directory").1.to_owned()
}

/// Takes away what a run has kept.
fn forget(json: &Value) {
    if let Some(dir) = json["dir"].as_str() {
        fs::remove_dir_all(dir).unwrap();
    }
}

fn count(json: &Value, kind: &str, name: &str) -> u64 {
    json[kind][name].as_u64().unwrap()
}

/// Everything was measured, and the bounds are no larger than what these nodes are told makes them.
#[track_caller]
fn within_bounds(json: &Value) {
    for (name, bound_max) in [("log", 600 << 10), ("disk", 4 << 20), ("memory", 128 << 20)] {
        let of = |what: &str| json[format!("{name}_bytes_{what}")].as_u64().unwrap();
        assert!(of("max") > 0 && of("max") <= of("bound") && of("bound") <= bound_max, "{name}: {json}");
    }
}

/// What cannot be true in a ledger is found.
fn a_doctored_ledger_is_noticed(path: &Path) {
    let lines = lines_of(path);
    let write = lines.iter().rfind(|line| line["operation"] == "append" && line["index"].is_u64()).unwrap();
    let mut more = write.clone();
    (more["client"], more["value"]) = (json!(99), json!("c99-000001;"));
    doctored(path, lines.iter().chain([&more]), "lost: c99");
    // Both of its lines.
    doctored(path, lines.iter().filter(|line| line["value"] != write["value"]), "never sent: ");
    for index in [&write["index"], &Value::Null] {
        let returned = write["returned_ns"].as_u64().unwrap();
        let read = json!({
            "client": 99, "operation": "get", "key": write["key"], "value": null, "index": index,
            "invoked_ns": returned + 1, "returned_ns": returned + 2, "result": {"version": 0, "value": null},
        });
        doctored(path, lines.iter().chain([&read]), "stale read: ");
    }
}

#[track_caller]
fn doctored<'a>(path: &Path, lines: impl Iterator<Item = &'a Value>, words: &str) {
    let text: Vec<String> = lines.map(Value::to_string).collect();
    let path = path.with_extension("doctored");
    fs::write(&path, text.join("\n")).unwrap();
    let ended = run(&["check", &path.display().to_string()]).code(1);
    assert!(ended.text().contains(words), "{words}: {ended:?}");
}

fn lines_of(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every operation has its line, a write one more from before it was sent.
fn ledger_is_whole(path: &Path, json: &Value) {
    let lines = lines_of(path);
    let operation = |line: &Value| (line["client"].as_u64().unwrap(), line["invoked_ns"].as_u64().unwrap());
    let (mut begun, mut ended) = (BTreeSet::new(), 0);
    for line in &lines {
        if line["returned_ns"].is_null() {
            begun.insert(operation(line));
        } else {
            ended += 1;
            assert!(line["operation"] == "get" || begun.contains(&operation(line)), "sent before: {line}");
        }
    }
    let number = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(number("ledger_operations"), number("operations") + number("audited"), "{json}");
    // All that the auditor does has an outcome.
    let counted = ["acknowledged", "reads", "refused", "audited"].map(number);
    assert_eq!(ended, counted.iter().sum::<u64>(), "lines with an outcome, {counted:?} operations");
}

/// All nodes are killed at once by this seed, and what they had is taken away before they are back.
#[test]
fn a_loss_is_noticed() {
    for attempt in 1..=TRIES {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("run");
        let Some(ended) = lose_everything(&dir) else {
            assert!(attempt < TRIES, "the nodes were back before anything could be taken away");
            continue;
        };
        let json = ended.code(1).json();
        assert_eq!(json["passed"], false, "{json}");
        assert!(dir.join("history.jsonl").exists() && dir.join("node-1.log").exists(), "kept");
        assert_eq!(json["history"], dir.join("history.jsonl").display().to_string(), "{json}");
        let problems = json["problems"].as_array().unwrap();
        let told = problems.iter().any(|words| words.as_str().unwrap().starts_with("lost: "));
        if told && json["lost"].as_u64() > Some(0) {
            return;
        }
        assert!(!json["says_nothing"].is_null() && attempt < TRIES, "{json}");
    }
}

/// [`None`]: this machine was too slow for it.
fn lose_everything(dir: &Path) -> Option<Ended> {
    let args = ["torture", "--minutes", "0.25", "--faults", "kill", "--seed", SEED_OF_ALL, "--json", "--dir"];
    let mut torture = raftmap(&args);
    let mut torture = torture.arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = BufReader::new(torture.stderr.take().unwrap()).lines();
    words.find(|line| line.as_ref().unwrap().contains("kill all")).expect("all are killed").unwrap();
    // Whoever reads nothing more would stop the other from writing.
    let rest = std::thread::spawn(move || words.map(Result::unwrap).count());
    let name = dir.display().to_string();
    let begun = Instant::now();
    while nodes_of(&name) > 0 && begun.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(2));
    }
    // Asleep it starts nobody.
    signal(&torture, "-STOP");
    let gone = nodes_of(&name) == 0;
    if gone {
        (1..=3).for_each(|id| fs::remove_dir_all(dir.join(format!("node-{id}"))).unwrap());
    }
    signal(&torture, "-CONT");
    // That is all it needs to know.
    signal(&torture, "-INT");
    let ended = Ended::of(torture.wait_with_output().unwrap());
    rest.join().unwrap();
    gone.then_some(ended)
}

fn signal(process: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
}

/// A test of the plan holds it to that: all are down for more than a second, after two seconds.
const SEED_OF_ALL: &str = "923";

#[test]
fn an_interrupt_ends_it_with_a_report_and_a_second_one_at_once() {
    let place = tempfile::tempdir().unwrap();
    for attempt in 1..=TRIES {
        let tally = place.path().join(format!("tally-{attempt}.json")).display().to_string();
        let args = ["torture", "--minutes", "10", "--faults", "stop", "--tally", &tally, "--json"];
        let json = interrupted(&[&args[..], &["--seed", "40"]].concat(), &["stop "]);
        assert_eq!(
            (&json["directories_verified"], &json["tally"]["passed"]),
            (&3.into(), &0.into()),
            "{json}"
        );
        let cut_off = interrupted(&args, &[" leads; ", "once more ends it"]);
        assert_eq!((&cut_off["seed"], &cut_off["tally"]["runs"]), (&41.into(), &2.into()), "{cut_off}");
        assert!(cut_off["problems"].to_string().contains("a second SIGINT"), "{cut_off}");
        let sums: Value = serde_json::from_slice(&fs::read(&tally).unwrap()).unwrap();
        assert_eq!(
            (&sums, &sums["operations"]),
            (&cut_off["tally"], &json["operations"]),
            "the second did none"
        );
        let told = json["problems"][0].as_str().unwrap_or_default();
        if told.contains("stopped by SIGINT") && json["cycles"] == 1 {
            return;
        }
        assert!(!json["says_nothing"].is_null() && attempt < TRIES, "{json}");
    }
}

/// What a run says that is sent an interrupt at each of these words of its. Its data is kept, and none of its nodes runs.
fn interrupted(args: &[&str], at: &[&str]) -> Value {
    let mut torture = raftmap(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(torture.stderr.take().unwrap()).lines();
    for words in at {
        lines.find(|line| line.as_ref().unwrap().contains(words)).expect(words).unwrap();
        signal(&torture, "-INT");
    }
    // Whoever reads nothing more would stop the other from writing.
    lines.for_each(|line| drop(line.unwrap()));
    let json = Ended::of(torture.wait_with_output().unwrap()).code(1).json();
    let dir = json["dir"].as_str().unwrap();
    assert!(Path::new(dir).join("node-1").exists(), "kept: {json}");
    assert_eq!(json["history"], format!("{dir}/history.jsonl"), "{json}");
    assert_eq!(nodes_of(dir), 0, "none is left behind");
    forget(&json);
    json
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (used, ledger) = (dir.path().display().to_string(), dir.path().join("history.jsonl"));
    fs::write(&ledger, b"older\n").unwrap();
    let ledger = ledger.display().to_string();
    for (args, words) in [
        (&["--nodes", "4"][..], "neither 3 nor 5"),
        (&["--minutes", "0"], "no number from 0.2"),
        (&["--clients", "0"], "0 is not in 1..=64"),
        (&["--faults", "fire"], "[possible values: kill, stop, partition, disk]"),
        (&["--faults", "kill,kill"], "name each once"),
        (&["--history", &ledger], "exists: name a new file"),
        (&["--dir", &used], "is not empty"),
        (&["--tally", &ledger], "is no tally"),
    ] {
        let ended = run(&[&["torture"], args].concat()).code(2);
        assert!(ended.stderr.contains(words), "{args:?}: {ended:?}");
    }
    assert_eq!(fs::read(&ledger).unwrap(), b"older\n");
}

/// How many processes serve below a directory of this name.
fn nodes_of(dir: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|process| {
        let line = fs::read(process.ok()?.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("\0serve\0") && line.contains(dir)).then_some(())
    });
    processes.count()
}
