//! What may appear nowhere, so that what it would bring cannot happen. Below stand violations planted to see it red.

use super::rules::Source;

/// Data before the handshake is complete: whoever records it can play it again. A test knocks with it all the same.
const EARLY: &[&str] = &["into_0rtt"];
const EARLY_TESTS: &[&str] = &["net/tests/wire/bare.rs", "net/tests/wire/hostile.rs"];
/// What stands in the code has these values alone.
const EARLY_OFF: &[[&str; 4]] =
    &[["max_early_data_size", "=", "0", ";"], ["enable_early_data", "=", "false", ";"]];

pub(crate) fn early_data(source: &Source) -> Vec<String> {
    if EARLY_TESTS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let code: Vec<_> = source.tokens.iter().filter(|token| !token.literal).collect();
    let off = |at: usize, wanted: &[&str; 4]| {
        wanted
            .iter()
            .enumerate()
            .all(|(ahead, word)| code.get(at + ahead).is_some_and(|token| token.text == *word))
    };
    let on = |at: usize| {
        EARLY.contains(&code[at].text.as_str())
            || EARLY_OFF.iter().any(|wanted| code[at].text == wanted[0] && !off(at, wanted))
    };
    (0..code.len()).filter(|at| on(*at)).map(|at| named(source, code[at].line, &code[at].text)).collect()
}

/// A write through a mapping kills the process where the disk is full.
const WRITABLE: &[&str] = &["MmapMut", "MmapRaw", "make_mut", "map_anon", "map_copy", "map_mut", "map_raw"];

pub(crate) fn writable_maps(source: &Source) -> Vec<String> {
    let maps = source.paths.iter().any(|path| path.first() == "memmap2");
    let wrong = |text: &str| WRITABLE.contains(&text) && (maps || text != "make_mut");
    let code = source.tokens.iter().filter(|token| !token.literal && wrong(&token.text));
    code.map(|token| named(source, token.line, &token.text)).collect()
}

fn named(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: `{what}`", source.path)
}

/// What comes from others is numbers and bytes: where they are heard, there is no file system to name anything in.
/// `src/wire` may use no such thing as it is pure.
const NAMELESS: &str = "net/src/";
/// Certificates come from files, and the operator says from which.
const NAMES_FILES: &str = "net/src/identity/";

pub(crate) fn paths(source: &Source) -> Vec<String> {
    if !source.path.starts_with(NAMELESS) || source.path.starts_with(NAMES_FILES) {
        return Vec::new();
    }
    let files = ["std::fs", "std::path", "tokio::fs", "std::os"];
    let wrong = source.paths.iter().filter(|path| files.iter().any(|files| path.is_below(files)));
    wrong.map(|path| named(source, path.line, &path.name)).collect()
}

/// A few bytes that become many: no package here can do that.
const DECOMPRESSING: &[&str] = &[
    "async-compression",
    "brotli",
    "brotli-decompressor",
    "bzip2",
    "bzip2-rs",
    "flate2",
    "libz-sys",
    "lz4",
    "lz4_flex",
    "lzma-rs",
    "lzma-rs2",
    "miniz_oxide",
    "ruzstd",
    "snap",
    "xz2",
    "zip",
    "zlib-rs",
    "zopfli",
    "zstd",
    "zstd-safe",
];

/// `lock` is the list of all packages that are built.
pub(crate) fn decompressing(lock: &str) -> Vec<String> {
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.filter(|name| DECOMPRESSING.contains(name)).map(|name| format!("{name} decompresses")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::{green, red};

    #[test]
    fn planted_violations_are_found() {
        for code in [
            "fn f() { connecting.into_0rtt() }",
            "tls.max_early_data_size = u32::MAX;",
            "tls.max_early_data_size = 0 + 1;",
            "client.enable_early_data = true;",
        ] {
            red(early_data, "net/src/tls.rs", code);
            green(early_data, "net/tests/wire/hostile.rs", code);
        }
        green(early_data, "net/src/tls.rs", "tls.max_early_data_size = 0; // into_0rtt");
        for code in
            ["use memmap2::MmapMut;", "use memmap2::Mmap; fn f() { map.make_mut() }", "o.map_mut(&file)"]
        {
            red(writable_maps, "storage/src/os/map.rs", code);
        }
        green(writable_maps, "src/kv/pairs.rs", "Arc::make_mut(&mut map); let x = \"MmapMut\";");
        for code in ["use std::fs::File;", "fn f(name: std::path::PathBuf) {}", "tokio::fs::read(name)"] {
            red(paths, "net/src/peers/snapshot.rs", code);
            green(paths, "net/src/identity/mod.rs", code);
            green(paths, "src/node/jobs.rs", code);
        }
        assert_eq!(decompressing("name = \"zstd\"\nname = \"bytes\"\n"), ["zstd decompresses"]);
    }
}
