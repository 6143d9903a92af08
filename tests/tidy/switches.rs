//! The switches that put known bugs into the code: each is in the list, each of the list is in the code where it says,
//! and a build without the cfg has none.

use std::collections::BTreeSet;

/// Where `bug!` is defined; `net` has its own, for it knows nothing of `storage`.
const DEFINED: [&str; 2] = ["storage/src/bugs.rs", "net/src/bugs.rs"];

/// What keeps them out: without the cfg a constant, held by the compiler; with it no release build; else no function.
const GUARDS: [&str; 3] = [
    "#[cfg(not(raftmap_bugs))]\nconst _: () = assert!(!bug!(1)",
    "#[cfg(all(raftmap_bugs, not(debug_assertions)))]\ncompile_error!",
    "#[cfg(raftmap_bugs)]\npub",
];

type Places = BTreeSet<(u32, String)>;

/// Number and file of every `bug!(…)` in production code.
pub(crate) fn hooks(files: &[(String, String)]) -> Places {
    let production = ["src/", "storage/src/", "net/src/"];
    let mut found = Places::new();
    for (path, content) in files.iter().filter(|(path, _)| path.ends_with(".rs")) {
        if DEFINED.contains(&path.as_str()) || !production.iter().any(|root| path.starts_with(root)) {
            continue;
        }
        let numbers = content.split("bug!(").skip(1).filter_map(|rest| rest.split_once(')')?.0.parse().ok());
        found.extend(numbers.map(|number| (number, path.clone())));
    }
    found
}

/// Number and file of every switch in the list.
pub(crate) fn listed(table: &str) -> Places {
    let switches = table.lines().skip(1).filter_map(|line| {
        let (number, _) = line.split_once('\t')?;
        let (files, _) = line.rsplit('\t').next()?.split_once(".rs: ")?;
        Some((number.parse::<u32>().ok()?, format!("{files}.rs")))
    });
    switches
        .flat_map(|(number, files)| {
            files.split(", ").map(move |file| (number, file.to_owned())).collect::<Vec<_>>()
        })
        .collect()
}

/// What brings a switch into a build that has none.
pub(crate) fn leaks(path: &str, content: &str) -> Vec<String> {
    let mut found = Vec::new();
    if DEFINED.contains(&path) {
        let missing = GUARDS.iter().filter(|guard| !content.contains(**guard));
        found.extend(missing.map(|guard| format!("{path}: without {guard:?}")));
        return found;
    }
    let manifest = path.ends_with("Cargo.toml") || path.contains(".cargo/");
    if !manifest && !path.starts_with("src/") && !path.starts_with("storage/") && !path.starts_with("net/") {
        return found;
    }
    for (line, text) in (1..).zip(content.lines().map(str::trim)) {
        let declared = manifest && text.starts_with("unexpected_cfgs");
        if text.contains("raftmap_bugs") && text != "#[cfg(raftmap_bugs)]" && !declared {
            found.push(format!("{path}:{line}: the cfg stands in a line of its own, and only to be asked"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_leaks_are_found() {
        assert!(!leaks("src/raft/log.rs", "if cfg!(raftmap_bugs) { x() }").is_empty());
        assert!(!leaks("src/raft/log.rs", "#[cfg(any(raftmap_bugs, test))]\nfn f() {}").is_empty());
        assert!(!leaks(".cargo/config.toml", "rustflags = [\"--cfg\", \"raftmap_bugs\"]").is_empty());
        assert!(!leaks(DEFINED[0], "macro_rules! bug { ($n:literal) => { true }; }").is_empty());
        assert!(leaks("src/raft/log.rs", "#[cfg(raftmap_bugs)]\nif bug!(3) {}").is_empty());
    }

    #[test]
    fn switches_and_list_are_read() {
        let code = ("src/a.rs".to_owned(), "if bug!(7) && !bug!(31) {}".to_owned());
        let expected = Places::from([(7, "src/a.rs".into()), (31, "src/a.rs".into())]);
        assert_eq!(hooks(&[code]), expected);
        let row = "number\tplace\n7\tsim\tsrc/a.rs, src/b.rs: words\n8\t-\tmembers cannot change yet\n";
        assert_eq!(listed(row), Places::from([(7, "src/a.rs".into()), (7, "src/b.rs".into())]));
    }
}
