//! The house rules that no compiler holds: who may import whom, what must be absent where, and how long a file may be.
//! ARCHITECTURE.md says why. A rule's tables and the violations planted to test it are in `tidy/rules.rs`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends there")]

#[path = "tidy/absent.rs"]
mod absent;
#[path = "tidy/faults.rs"]
mod faults;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/switches.rs"]
mod switches;

use std::fs;
use std::path::Path;

use rules::Source;

/// Every text file of the repository, with its path from the root.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(root, root, &mut found);
    found.sort();
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of it").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Only where such folders belong: one inside the sources is read.
        let outside = folder == root || folder == root.join("fuzz");
        let made = ["target", "corpus", "artifacts", "data", "secrets"].contains(&&*name);
        if name == ".git" || outside && made {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, found);
        } else if let Ok(content) = fs::read_to_string(&path) {
            let inside = path.strip_prefix(root).expect("below the root");
            found.push((inside.to_string_lossy().into_owned(), content));
        }
    }
}

fn sources() -> Vec<Source> {
    let files = files();
    let rust = files.iter().filter(|(path, _)| path.ends_with(".rs"));
    let sources: Vec<_> = rust.map(|(path, content)| Source::new(path, content)).collect();
    // A rule over no file holds always.
    for path in
        ["src/raft/mod.rs", "src/kv/mod.rs", "storage/src/os/map.rs", "net/src/tls.rs", "tests/tidy.rs"]
    {
        assert!(sources.iter().any(|source| source.path == path), "{path} was not found");
    }
    sources
}

#[track_caller]
fn holds(rule: impl Fn(&Source) -> Vec<String>) {
    none(sources().iter().flat_map(rule).collect());
}

#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn imports_follow_the_arrows() {
    holds(rules::arrows);
}

#[test]
fn core_and_map_have_no_clock_file_thread_or_randomness() {
    let manifests = files().into_iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    let packages: Vec<String> = manifests.flat_map(|(_, content)| rules::packages(&content)).collect();
    assert!(packages.iter().any(|package| package == "tokio"), "{packages:?}");
    holds(|source| rules::purity(source, &packages));
    holds(rules::denies_the_lists);
}

#[test]
fn packages_stay_behind_their_fences() {
    holds(rules::fences);
    let manifests = files().into_iter().filter(|(path, _)| path.ends_with("Cargo.toml"));
    none(manifests.flat_map(|(path, content)| rules::manifest(&path, &content)).collect());
}

#[test]
fn temporary_files_get_their_names_in_one_place() {
    holds(rules::naming);
}

#[test]
fn nothing_is_said_before_the_handshake() {
    holds(absent::early_data);
}

#[test]
fn nothing_is_written_through_a_mapping() {
    holds(absent::writable_maps);
}

#[test]
fn no_path_comes_from_the_network() {
    holds(absent::paths);
}

#[test]
fn nothing_decompresses() {
    let lock =
        files().into_iter().find(|(path, _)| path == "Cargo.lock").expect("the packages that are built").1;
    assert!(lock.contains("name = \"bytes\""), "the packages that are built");
    none(absent::decompressing(&lock));
}

#[test]
fn nothing_is_unsafe_unfinished_or_ignored() {
    holds(rules::words);
}

#[test]
fn texts_are_short_and_finished() {
    none(files().iter().flat_map(|(path, content)| rules::text(path, content)).collect());
}

/// The list is `tests/reintroduced/bugs.tsv`; this build, like every one but that which goes through it, has no switch.
#[test]
fn known_bugs_are_in_the_list_and_in_no_build() {
    let files = files();
    let table = files.iter().find(|(path, _)| path == "tests/reintroduced/bugs.tsv").expect("the list");
    let (hooks, listed) = (switches::hooks(&files), switches::listed(&table.1));
    assert!(!hooks.is_empty());
    assert_eq!(hooks, listed, "switches in the code, and in the list");
    none(files.iter().flat_map(|(path, content)| switches::leaks(path, content)).collect());
    const { assert!(!cfg!(raftmap_bugs), "this build has the switches on") };
}

#[test]
fn the_catalogue_of_faults_names_tests_that_are_there() {
    let files = files();
    let text =
        |wanted: &str| files.iter().find(|(path, _)| path == wanted).map(|(_, content)| content.clone());
    let catalogue = text("tests/FAULTS.md").expect("the catalogue");
    none(faults::wrong(&catalogue, text));
}
