//! The rules: each takes a file and says what is wrong in it. Below each table stand violations planted to see it red.

use super::scan::{self, Path, Token};

/// A source file, read.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) paths: Vec<Path>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let tokens = scan::tokens(text);
        let root = ["storage/src", "net/src", "src"].into_iter().find(|root| within(path, root));
        let paths = scan::paths(&tokens, &scan::home(path, root.unwrap_or_default()));
        Self { path: path.into(), tokens, paths }
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Whether the tokens from `at` on are these.
    fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| {
            self.tokens.get(at + ahead).is_some_and(|token| !token.literal && token.text == *word)
        })
    }

    fn finds(&self, words: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).find(|at| self.reads(*at, words)).map(|at| self.tokens[at].line)
    }
}

/// Whether `path` is `place` or lies below it.
fn within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn within_any(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| within(path, place))
}

/// Who may import what of ours. The first place that holds a file counts; the crate's own name is `crate`.
const ARROWS: &[(&str, &[&str])] = &[
    ("src/codec.rs", &["crate::codec"]),
    ("src/check", &["crate::check"]),
    ("src/lines.rs", &["crate::lines", "crate::check"]),
    ("src/kv", &["crate::kv", "crate::codec", "raftmap_storage::types"]),
    ("src/raft", &["crate::raft", "raftmap_storage::types"]),
    ("src/wire", &["crate::wire", "crate::kv", "crate::raft", "crate::codec", "raftmap_storage::types"]),
    ("src/config.rs", &["crate::config", "crate::kv::Limits", "raftmap_storage::types"]),
    (
        "src/error.rs",
        &["crate::error", "crate::clerk::ConnectError", "crate::clerk::Pending", "crate::wire::client"],
    ),
    (
        "src/clerk/tests.rs",
        &["crate::clerk", "crate::error", "crate::kv", "crate::wire", "raftmap_storage::types"],
    ),
    ("src/clerk/world.rs", &["crate::clerk", "crate::kv", "crate::wire", "raftmap_storage::types"]),
    ("src/clerk", &["crate::clerk", "crate::error", "crate::kv", "crate::wire", "raftmap_net"]),
    (
        "src/node",
        &[
            "crate::node",
            "crate::clerk",
            "crate::config",
            "crate::error",
            "crate::kv",
            "crate::raft",
            "crate::wire",
            "raftmap_net",
            "raftmap_storage",
        ],
    ),
    ("src/local.rs", &["crate::local", "crate::config", "crate::node"]),
    ("src/admin.rs", &["crate::admin", "crate::clerk", "crate::error", "crate::wire::client", "raftmap_net"]),
    ("src/lib.rs", &["crate", "raftmap_net", "raftmap_storage"]),
    ("src/main.rs", &["crate::cli"]),
    ("src/cli", &["crate::cli", "raftmap"]),
    ("storage/src", &["crate"]),
    ("storage/tests", &["crate", "raftmap_storage"]),
    ("storage/benches", &["crate", "raftmap_storage"]),
    ("net/src", &["crate"]),
    ("net/tests", &["crate", "raftmap_net"]),
    ("net/examples", &["crate", "raftmap_net"]),
    ("examples", &["crate", "raftmap"]),
    ("benches", &["crate", "raftmap"]),
    ("tests", &["crate", "raftmap", "raftmap_net", "raftmap_storage"]),
    ("fuzz", &["crate", "raftmap", "raftmap_net", "raftmap_storage"]),
];

/// Public for tests and fuzzing alone: the command and the examples do without.
const HIDDEN: &[&str] =
    &["raftmap::clerk", "raftmap::codec", "raftmap::kv", "raftmap::node", "raftmap::raft", "raftmap::wire"];
const FACE_ONLY: &[&str] = &["src/cli", "src/main.rs", "examples"];

/// Imports of ours against [`ARROWS`].
pub(crate) fn arrows(source: &Source) -> Vec<String> {
    let Some((_, allowed)) = ARROWS.iter().find(|(place, _)| within(&source.path, place)) else {
        return vec![source.at(1, "no arrows are drawn for this file: give it a line in ARROWS")];
    };
    let ours = ["crate", "raftmap", "raftmap_net", "raftmap_storage"];
    let face_only = within_any(&source.path, FACE_ONLY);
    let wrong = |path: &&Path| {
        let hidden = face_only && HIDDEN.iter().any(|hidden| path.is_below(hidden));
        hidden || ours.contains(&path.first()) && !allowed.iter().any(|allowed| path.is_below(allowed))
    };
    source
        .paths
        .iter()
        .filter(wrong)
        .map(|path| source.at(path.line, &format!("may not import {}", path.name)))
        .collect()
}

/// Code without clock, file, thread, socket, randomness and async of its own.
const PURE: &[&str] = &[
    "src/raft",
    "src/check",
    "src/kv",
    "src/wire",
    "src/codec.rs",
    "src/clerk/machine.rs",
    "src/clerk/servers.rs",
    "src/clerk/session.rs",
    "src/node/log_time.rs",
    "src/node/log_writer.rs",
    "src/node/host.rs",
    "src/node/replica.rs",
    "src/node/waiting.rs",
    "storage/src/types.rs",
];
/// Their tests may read scripts and the environment.
const PURE_TESTS: &[&str] = &["src/raft/tests", "src/kv/tests", "src/wire/golden.rs"];

/// What pure code may use of others.
const PURE_ALLOWED: &[&str] = &[
    "std::cmp",
    "std::collections::BTreeMap",
    "std::collections::BTreeSet",
    "std::collections::VecDeque",
    "std::convert",
    "std::error::Error",
    "std::fmt",
    "std::iter",
    "std::marker",
    "std::mem",
    "std::net::SocketAddr",
    "std::num",
    "std::ops",
    "std::slice",
    "std::str",
    "std::sync::Arc",
    "std::time::Duration",
    "bincode",
    "blake3",
    "bytes",
    "crc32fast",
    "imbl::OrdMap",
    "imbl::OrdSet",
    "imbl::ordmap",
    "imbl::shared_ptr",
    "serde",
    "smallvec",
    "thiserror",
    "tracing",
];
const PURE_FORBIDDEN_WORDS: &[&str] = &[
    "async",
    "await",
    "HashMap",
    "HashSet",
    "Instant",
    "RandomState",
    "SystemTime",
    "eprintln",
    "print",
    "println",
    "thread_local",
    "unsafe",
];

/// `packages` are the names by which code can reach another package.
pub(crate) fn purity(source: &Source, packages: &[String]) -> Vec<String> {
    if !within_any(&source.path, PURE) || within_any(&source.path, PURE_TESTS) {
        return Vec::new();
    }
    let foreign = |path: &&Path| {
        let first = path.first();
        ["std", "core", "alloc"].contains(&first)
            || packages.iter().any(|package| package == first) && !first.starts_with("raftmap")
    };
    let allowed = |path: &Path| PURE_ALLOWED.iter().any(|allowed| path.is_below(allowed));
    let wrong = source.paths.iter().filter(foreign).filter(|path| !allowed(path));
    let mut found: Vec<String> =
        wrong.map(|path| source.at(path.line, &format!("pure code may not use {}", path.name))).collect();
    for token in source.tokens.iter().filter(|token| !token.literal) {
        if PURE_FORBIDDEN_WORDS.contains(&token.text.as_str()) {
            found.push(source.at(token.line, &format!("`{}` in pure code", token.text)));
        }
    }
    found
}

/// Modules that also deny the lists of `clippy.toml`, which see through types.
pub(crate) const DENY_LISTED: &[&str] = &["src/check/mod.rs", "src/raft/mod.rs", "src/kv/mod.rs"];

pub(crate) fn denies_the_lists(source: &Source) -> Vec<String> {
    let wanted = ["#", "!", "[", "deny", "(", "clippy", "::", "disallowed_methods"];
    match DENY_LISTED.contains(&source.path.as_str()) && source.finds(&wanted).is_none() {
        true => vec![source.at(1, "must begin with deny(clippy::disallowed_methods)")],
        false => Vec::new(),
    }
}

/// Packages that one place alone may touch.
const FENCES: &[(&[&str], &[&str])] = &[
    (&["bincode"], &["src/codec.rs"]),
    (
        &["quinn", "quinn_proto", "rustls", "rcgen", "x509_parser", "socket2"],
        &["net", "tests/hostile", "tests/fuzz"],
    ),
    (&["memmap2"], &["storage/src/os/map.rs"]),
    (&["getrandom"], &["storage/src/os.rs"]),
    (&["fs2"], &["storage/src/os.rs", "net/src/identity/dev.rs"]),
    (&["imbl", "smallvec"], &["src/kv"]),
    (
        &["clap", "indicatif", "tracing_subscriber"],
        &["src/cli", "src/main.rs", "tests", "examples", "benches"],
    ),
];

pub(crate) fn fences(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    // The tables above name in strings what they fence in.
    if within(&source.path, "tests/tidy") {
        return found;
    }
    for path in &source.paths {
        let fence = FENCES.iter().find(|(packages, _)| packages.contains(&path.first()));
        if fence.is_some_and(|(_, places)| !within_any(&source.path, places)) {
            found.push(source.at(path.line, &format!("{} is fenced in elsewhere", path.name)));
        }
        // std has methods of the same names: only a full path says which is meant.
        if path.first() == "fs2" && path.imported {
            found.push(source.at(path.line, "fs2 is called by its full path, not imported"));
        }
    }
    found
}

/// The one place where a temporary file gets its name: a sync belongs before it and one behind it.
const NAMING: &str = "storage/src/os.rs";

pub(crate) fn naming(source: &Source) -> Vec<String> {
    let names_tempfile = source.paths.iter().any(|path| path.first() == "tempfile");
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.literal) {
        let before = |word| at > 0 && source.reads(at - 1, &[word]);
        // Ours takes the temporary file and a name; tempfile's, as a method, takes a name.
        let theirs = match token.text.as_str() {
            "persist" | "persist_noclobber" if before(".") => arguments(source, at + 1) == 1,
            "persist" | "persist_noclobber" => names_tempfile && before("::"),
            _ => false,
        };
        if theirs && source.path != NAMING {
            found.push(
                source.at(token.line, &format!("`{}` of a temporary file outside {NAMING}", token.text)),
            );
        }
    }
    found
}

/// How many arguments the call has whose bracket opens at `open`; 0 if none does.
fn arguments(source: &Source, open: usize) -> usize {
    if !source.reads(open, &["("]) {
        return 0;
    }
    let (mut depth, mut count, mut empty) = (0_usize, 0, true);
    for token in source.tokens.iter().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" if !token.literal => depth += 1,
            ")" | "]" | "}" if !token.literal => depth = depth.saturating_sub(1),
            "," if !token.literal && depth == 1 => {
                count += usize::from(!empty);
                empty = true;
                continue;
            }
            _ => {}
        }
        match depth {
            0 => return count + usize::from(!empty),
            _ => empty = depth == 1 && token.text == "(" && !token.literal && count == 0 && empty,
        }
    }
    count
}

/// The one file with unsafe code.
const UNSAFE: &str = "storage/src/os/map.rs";

/// Words that stand for something unfinished, unsafe or switched off.
pub(crate) fn words(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| !token.literal) {
        let unfinished =
            ["todo", "unimplemented"].contains(&token.text.as_str()) && source.reads(at + 1, &["!"]);
        let ignored = token.text == "ignore" && in_attribute(source, at);
        let unsafe_code = token.text == "unsafe" && source.path != UNSAFE;
        // They would bring code in past the module that these rules take a file for.
        let smuggled = token.text == "include" && source.reads(at + 1, &["!"])
            || source.reads(at, &["path", "="])
                && in_attribute(source, at)
                && !within_any(&source.path, &["tests", "src/cli"]);
        if unfinished || ignored || unsafe_code || smuggled {
            found.push(source.at(token.line, &format!("`{}`", token.text)));
        }
    }
    found
}

/// Whether the token lies in `#[…]` or `#![…]`.
fn in_attribute(source: &Source, at: usize) -> bool {
    let mut depth = 0_usize;
    for back in (0..at).rev() {
        let token = &source.tokens[back];
        match token.text.as_str() {
            "]" | ")" if !token.literal => depth += 1,
            "[" | "(" if !token.literal && depth > 0 => depth -= 1,
            "[" if !token.literal => {
                let before = |words: &[&str]| back >= words.len() && source.reads(back - words.len(), words);
                return before(&["#"]) || before(&["#", "!"]);
            }
            "{" | "}" | ";" if !token.literal => return false,
            _ => {}
        }
    }
    false
}

/// The longest file, in lines.
const LINES_MAX: usize = 900;
/// In two pieces each, so that this file does not find itself.
const FORBIDDEN_TEXT: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("```", "ignore"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/tm", "p/"),
    concat!("<<<", "<<<<"),
    concat!(">>>", ">>>>"),
];

/// Any text file, whatever its language.
pub(crate) fn text(path: &str, content: &str) -> Vec<String> {
    let lines = content.lines().count();
    let long = lines > LINES_MAX && !path.ends_with(".lock");
    let mut found: Vec<String> =
        long.then(|| format!("{path}: {lines} lines, {LINES_MAX} allowed")).into_iter().collect();
    for (line, text) in (1..).zip(content.lines()) {
        for word in FORBIDDEN_TEXT.iter().filter(|word| text.contains(**word)) {
            found.push(format!("{path}:{line}: {word:?}"));
        }
    }
    found
}

/// The names by which code reaches the packages of a manifest.
pub(crate) fn packages(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut dependencies = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            dependencies = section.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| dependencies) {
            let name = name.trim().trim_end_matches(".workspace");
            names.extend((!name.starts_with('#')).then(|| name.replace('-', "_")));
        }
    }
    names
}

/// A dependency under another name would pass every fence.
pub(crate) fn manifest(path: &str, content: &str) -> Vec<String> {
    let renames = |line: &&str| line.replace(' ', "").contains("package=");
    content.lines().filter(renames).map(|line| format!("{path}: a dependency renamed: {line}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Each of these lines, put in that file, is found; and the file's neighbour may have it.
    #[track_caller]
    pub(crate) fn red(rule: impl Fn(&Source) -> Vec<String>, file: &str, code: &str) {
        assert!(!rule(&Source::new(file, code)).is_empty(), "not found in {file}: {code}");
    }

    #[track_caller]
    pub(crate) fn green(rule: impl Fn(&Source) -> Vec<String>, file: &str, code: &str) {
        assert_eq!(rule(&Source::new(file, code)), Vec::<String>::new(), "{file}: {code}");
    }

    fn pure(source: &Source) -> Vec<String> {
        purity(source, &["tokio".into(), "rand".into(), "imbl".into(), "bytes".into()])
    }

    #[test]
    fn planted_imports_are_found() {
        for code in [
            "use crate::kv::Command;",
            "use super::kv;",
            "fn f() { crate::node::open::open() }",
            "use crate::{config, raft::Raft};",
            "use crate as ours;",
            "use super::*;",
            "use crate::net;",
            "use raftmap_storage::{types::Index, Wal};",
            "use raftmap_storage as disk;",
            "extern crate raftmap_net;",
            "type X = ::raftmap_net::Peers;",
            "#[cfg(test)] mod tests { use crate::wire::peer; }",
        ] {
            red(arrows, "src/raft/mod.rs", code);
        }
        red(arrows, "src/kv/pairs.rs", "use super::super::raft::Raft;");
        red(arrows, "src/kv/pairs.rs", "#[serde(with = \"crate::wire::octets\")] struct X;");
        red(arrows, "src/codec.rs", "use crate::kv::Command;");
        red(arrows, "src/clerk/mod.rs", "use crate::node::Node;");
        red(arrows, "src/clerk/mod.rs", "use raftmap_storage::Wal;");
        red(arrows, "src/node/mod.rs", "use crate::cli::calls;");
        red(arrows, "src/cli/serve.rs", "use raftmap_storage::Wal;");
        red(arrows, "src/cli/serve.rs", "use raftmap::{Node, node::Host};");
        red(arrows, "examples/embedded.rs", "fn f(x: raftmap::raft::Raft) {}");
        red(arrows, "storage/src/wal.rs", "use raftmap_net::Peers;");
        red(arrows, "net/src/lib.rs", "use raftmap_storage::types::Term;");
        red(arrows, "src/newcomer.rs", "");

        green(
            arrows,
            "src/raft/mod.rs",
            "use raftmap_storage::types::{Index, Term}; use self::log::Log; use super::raft;",
        );
        green(
            arrows,
            "src/raft/log.rs",
            "use super::error::E; mod tests { use super::super::Ready; } // crate::kv::X",
        );
        green(arrows, "src/kv/mod.rs", "use crate::codec::CodecError; use std::collections::BTreeMap;");
        green(arrows, "src/cli/serve.rs", "use raftmap::{Node, storage::os::OsFs}; use crate::cli::exit;");
        green(arrows, "storage/src/wal.rs", "use crate::types::Term;");
    }

    #[test]
    fn planted_impurities_are_found() {
        for code in [
            "use std::time::Instant;",
            "use std::{time::{Duration, SystemTime}};",
            "use std::time;",
            "use std::collections::*;",
            "let now = std::time::Instant::now();",
            "use core::hash::BuildHasher;",
            "use std::collections::HashMap;",
            "let order = HashMap::new();",
            "std::thread::spawn(f)",
            "use std::fs::File;",
            "std::env::var(\"X\")",
            "use rand::random;",
            "tokio::spawn(f)",
            "use imbl::HashMap;",
            "async fn f() {}",
            "f().await",
            "thread_local! { static X: u8 = 0 }",
            "mod tests { use std::thread::sleep; }",
        ] {
            red(pure, "src/raft/log.rs", code);
            red(pure, "src/node/replica.rs", code);
            green(pure, "src/node/mod.rs", code);
            green(pure, "src/raft/tests/files.rs", code);
        }
        green(
            pure,
            "src/kv/pairs.rs",
            "use imbl::{OrdMap, ordmap}; use bytes::Bytes; use std::time::Duration; // Instant",
        );
        red(denies_the_lists, "src/raft/mod.rs", "#![deny(missing_docs)]");
        green(denies_the_lists, "src/raft/mod.rs", "#![deny(clippy::disallowed_methods, missing_docs)]");
    }

    #[test]
    fn planted_climbers_are_found() {
        red(fences, "src/wire/mod.rs", "fn f() { bincode::serde::encode(x) }");
        red(fences, "src/node/links.rs", "use quinn::Connection;");
        red(fences, "src/node/links.rs", "use {std::fmt, quinn as q};");
        red(fences, "storage/src/sealed.rs", "use memmap2::Mmap;");
        red(fences, "storage/src/os.rs", "use fs2::FileExt;");
        red(fences, "src/lib.rs", "clap::Command");
        green(fences, "storage/src/os.rs", "fs2::FileExt::lock(&file)");
        green(fences, "net/src/tls.rs", "use quinn::Connection;");
        red(naming, "storage/src/boots.rs", "temp.persist(path)");
        red(naming, "storage/src/boots.rs", "temp.persist(&path.join(a, b),)");
        red(naming, "storage/src/boots.rs", "use tempfile::NamedTempFile as T; T::persist(temp, path)");
        green(naming, "storage/src/boots.rs", "fs.persist(temp, &path)");
        green(naming, "storage/src/boots.rs", "fs.persist((a, b), &path.join(x)); self.persisted = true");
        green(naming, NAMING, "temp.persist(path)");
    }

    #[test]
    fn planted_words_are_found() {
        for code in [
            "fn f() { unsafe { g() } }",
            "unsafe impl Send for X {}",
            "#[test] #[ignore] fn f() {}",
            "#[ignore = \"slow\"] fn f() {}",
            "#[cfg_attr(miri, ignore)] fn f() {}",
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"later\") }",
            "include!(\"other.rs\");",
            "#[path = \"other.rs\"] mod x;",
        ] {
            red(words, "storage/src/wal.rs", code);
        }
        green(words, UNSAFE, "let map = unsafe { f() };");
        green(
            words,
            "src/a.rs",
            "#![deny(unsafe_code)] // unsafe, todo!()\nfn ignore(path: X) { path == todo; [ignore] }",
        );
        green(words, "src/a.rs", "const HELP: &str = \"#[ignore] unsafe todo!()\"; include_str!(\"x\")");
    }

    #[test]
    fn planted_text_is_found() {
        for word in FORBIDDEN_TEXT {
            assert_eq!(text("a.md", &format!("one\ntwo {word} three")).len(), 1, "{word}");
        }
        assert_eq!(text("a.rs", &"x\n".repeat(LINES_MAX)), Vec::<String>::new());
        assert_eq!(text("a.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn manifests_are_read() {
        let names = packages(
            "[package]\nname = \"x\"\n[dependencies]\na-b = \"1\"\n# c = 1\n[dev-dependencies]\nd.workspace = true\n[x]\ne = 1",
        );
        assert_eq!(names, ["a_b", "d"]);
        assert_eq!(manifest("Cargo.toml", "x = { package = \"bincode\" }").len(), 1);
        assert_eq!(manifest("Cargo.toml", "[package]\nx = { path = \"x\" }").len(), 0);
    }
}
