//! Bits that flip on a disk: found, named, in the same words by `log verify` and `serve`, while the others go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cluster::{Cluster, Ended, copy_dir, run};

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named_and_keeps_a_node_from_starting() {
    let mut cluster = Cluster::start(&["--max-raft-state", "256KiB", "--limit-value", "8KiB"]).await;
    let clerk = cluster.clerk();
    // Five segments of 64 KiB: a snapshot at three quarters of the bound, sealed ones above it, one in use.
    for number in 0..330 {
        clerk.put(format!("key-{}", number % 50), [b'v'; 1_024]).await.unwrap();
    }
    cluster.wait_all_applied().await;
    let victim = (1..=3).find(|id| *id != 1).unwrap();
    let (_, status) = cluster.terminate(victim).await;
    assert!(status.success());
    let dir = cluster.node_dir(victim);
    let sound = cluster.dir.path().join("sound");
    copy_dir(&dir, &sound);
    run(&["log", "verify", "--dir", &dir.display().to_string()]).code(0);

    for (what, place) in places(&dir) {
        flip(&place);
        refused(&cluster, victim, what, &place.file);
        clerk.put("still", what).await.unwrap();
        fs::remove_dir_all(&dir).unwrap();
        copy_dir(&sound, &dir);
    }
    let (_, Place { file, offset }) = places(&dir).swap_remove(0);
    let whole = fs::read(&file).unwrap();
    for length in [whole.len() - 1, offset, 0] {
        fs::write(&file, &whole[..length]).unwrap();
        refused(&cluster, victim, "shortened", &file);
    }
    fs::write(&file, &whole).unwrap();
    // A sound copy, taken after the last stop, is good.
    cluster.spawn(victim);
    cluster.wait_all_applied().await;
    cluster.wait_equal().await;
}

/// Where a bit will flip.
struct Place {
    file: PathBuf,
    offset: usize,
}

/// A byte in the middle of synced content of each kind of file, by what the command itself says of the directory.
fn places(dir: &Path) -> Vec<(&'static str, Place)> {
    let dir = dir.display().to_string();
    let files = run(&["log", "verify", "--dir", &dir, "--json"]).code(0).json();
    let file = |what: &str| -> PathBuf {
        let files = files["files"].as_array().unwrap();
        let found = files.iter().find(|file| file["what"] == what);
        found.unwrap_or_else(|| panic!("no {what} in {files:?}"))["path"].as_str().unwrap().into()
    };
    let frames = run(&["log", "dump", "--dir", &dir, "--json"]).code(0).json();
    let first_entry = |file: &Path| -> usize { first_entry(&frames, file) + 48 };
    let (sealed, live, snapshot) =
        (file("sealed segment"), file("segment in use"), file("snapshot in force"));
    let middle = fs::metadata(&snapshot).unwrap().len() as usize / 2;
    vec![
        ("sealed", Place { offset: first_entry(&sealed), file: sealed }),
        ("live", Place { offset: first_entry(&live), file: live }),
        ("snapshot", Place { offset: middle, file: snapshot }),
    ]
}

/// Where the first entry of a segment begins, by the dump.
fn first_entry(frames: &Value, file: &Path) -> usize {
    let mut lines = frames["lines"].as_array().unwrap().iter();
    lines.find(|line| line["path"].as_str().is_some_and(|path| Path::new(path) == file)).unwrap();
    let entry = lines.find(|line| line["payload_bytes"].as_u64().is_some_and(|bytes| bytes > 100)).unwrap();
    entry["at"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn flip(place: &Place) {
    let mut bytes = fs::read(&place.file).unwrap();
    bytes[place.offset] ^= 0x10;
    fs::write(&place.file, bytes).unwrap();
}

fn refused(cluster: &Cluster, id: u64, what: &str, file: &Path) {
    let dir = cluster.node_dir(id).display().to_string();
    let found = run(&["log", "verify", "--dir", &dir]).code(1);
    let serve = Ended::of(cluster.serve(id).output().unwrap()).code(5);
    let name = file.file_name().unwrap().to_str().unwrap();
    for words in [name, "offset", "do not empty it"] {
        assert!(found.stderr.contains(words), "{what}: {words}: {found:?}");
    }
    let json = run(&["log", "verify", "--dir", &dir, "--json"]).code(1).json();
    assert_eq!(json["path"].as_str(), file.to_str(), "{what}: {json}");
    assert!(json["sound"] == false && json["offset"].is_u64() && json.get("index").is_some(), "{json}");
    let words = found.stderr.lines().last().unwrap();
    assert!(serve.stderr.contains(words), "{what}: the same words: {found:?} {serve:?}");
}
