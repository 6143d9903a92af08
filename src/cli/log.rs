//! `raftmap log`: a node's directory, looked at while nobody has it open. Nothing in it is changed.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use raftmap::storage::os::OsFs;
use raftmap::storage::{self, Damage, DumpLine, Finding, OpenError, Part, Summary};
use serde_json::{Map, Value, json};

use super::exit::{Exit, Failure, Outcome};
use super::output::Style;

/// Look at a node's log, offline.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Check segments and snapshots as `serve` would, and change nothing
    #[command(
        after_help = "Exit codes: 0 sound (bytes behind the end that were never acknowledged are sound), 1 damaged, and \
                            where, 5 in use, or not to be read.\nExample: raftmap log verify --dir data/1"
    )]
    Verify {
        /// The node's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print every frame of every segment
    #[command(
        after_help = "One line a frame: segment:offset, kind, index@term, payload bytes, what it knew to be durable.\n\
                            Example: raftmap log dump --dir data/1"
    )]
    Dump {
        /// The node's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Looks.
pub(crate) fn run(command: Command, style: Style) -> Outcome {
    match command {
        Command::Verify { dir } => verify(&dir, style),
        Command::Dump { dir } => dump(&dir, style),
    }
}

fn verify(dir: &Path, style: Style) -> Outcome {
    let mut findings = Vec::new();
    let summary = storage::verify(OsFs, dir, |finding| findings.push(finding)).map_err(refused)?;
    style.print(|| sound_words(&findings, &summary), || sound_json(&findings, &summary))?;
    Ok(Exit::Done)
}

/// Damage is what was looked for; everything else keeps from looking.
fn refused(error: OpenError) -> Failure {
    let words = super::exit::chain(&error);
    let exit = match error {
        OpenError::Damaged(damage) => return Failure::new(Exit::No, words).with_details(details(&damage)),
        OpenError::InUse { .. }
        | OpenError::WrongIdentity { .. }
        | OpenError::Version { .. }
        | OpenError::Empty { .. }
        | OpenError::NoSpace { .. }
        | OpenError::Options { .. }
        | OpenError::Io { .. } => Exit::Storage,
    };
    Failure::new(exit, words)
}

/// Where the damage is; `null` for an entry that can no longer be told.
fn details(damage: &Damage) -> Map<String, Value> {
    let fields = [
        ("sound", false.into()),
        ("path", json!(damage.path)),
        ("offset", damage.offset.into()),
        ("index", json!(damage.entry.map(|entry| entry.index.0))),
        ("term", json!(damage.entry.map(|entry| entry.term.0))),
        ("what", damage.what.as_str().into()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn describe(finding: &Finding) -> (&Path, &'static str) {
    match finding {
        Finding::Segment { path, part: Part::Sealed } => (path, "sealed segment"),
        Finding::Segment { path, part: Part::Tail } => (path, "segment in use"),
        Finding::Segment { path, part: Part::Spare } => (path, "spare segment"),
        Finding::Segment { path, part: Part::Superfluous } => (path, "superfluous segment"),
        Finding::Snapshot { path, in_force: true } => (path, "snapshot in force"),
        Finding::Snapshot { path, in_force: false } => (path, "superfluous snapshot"),
    }
}

fn sound_words(findings: &[Finding], summary: &Summary) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            let (path, what) = describe(finding);
            format!("{}: {what}, sound", path.display())
        })
        .collect();
    let snapshot = summary.snapshot.map_or("none".into(), |snapshot| snapshot.position.to_string());
    lines.push(format!(
        "sound: node {}, {} frames, last entry {}, term {}, snapshot {snapshot}, {} bytes never acknowledged",
        summary.identity.node, summary.frames, summary.last, summary.hard_state.term, summary.tail_bytes
    ));
    lines.join("\n")
}

fn sound_json(findings: &[Finding], summary: &Summary) -> Value {
    let files: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let (path, what) = describe(finding);
            json!({ "path": path, "what": what })
        })
        .collect();
    json!({
        "sound": true,
        "node": summary.identity.node.0,
        "cluster": summary.identity.cluster.to_string(),
        "frames": summary.frames,
        "last_index": summary.last.index.0,
        "last_term": summary.last.term.0,
        "term": summary.hard_state.term.0,
        "vote": summary.hard_state.vote.map(|vote| vote.0),
        "snapshot_index": summary.snapshot.map(|snapshot| snapshot.position.index.0),
        "tail_bytes": summary.tail_bytes,
        "files": files,
    })
}

/// Frames are printed as they are read: a log may be larger than memory.
fn dump(dir: &Path, style: Style) -> Outcome {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut first = true;
    let mut failed = None;
    let mut write = |line: DumpLine| {
        if failed.is_none() {
            let written = match style {
                Style::Human => writeln!(out, "{}", line_words(&line)),
                Style::Json => {
                    write!(out, "{}{}", if first { "{\"lines\":[" } else { "," }, line_json(&line))
                }
            };
            first = false;
            failed = written.err();
        }
    };
    storage::dump(OsFs, dir, &mut write).map_err(refused)?;
    let printed = match (failed, style, first) {
        (Some(error), ..) => Err(error),
        (None, Style::Human, _) => Ok(()),
        (None, Style::Json, true) => writeln!(out, "{{\"lines\":[]}}"),
        (None, Style::Json, false) => writeln!(out, "]}}"),
    };
    printed.and_then(|()| out.flush())?;
    Ok(Exit::Done)
}

fn line_words(line: &DumpLine) -> String {
    match line {
        DumpLine::Segment { path, id, capacity } => {
            format!("segment {id}: {} of {capacity} bytes", path.display())
        }
        DumpLine::Frame { at, kind, position, payload_len, durable } => {
            format!("  {at}  {kind:<10}  {position}  {payload_len} bytes, durable {durable}")
        }
        DumpLine::End { at, what: Some(what) } => format!("  {at}  no frame: {what}"),
        DumpLine::End { at, what: None } => format!("  {at}  end"),
    }
}

fn line_json(line: &DumpLine) -> Value {
    match line {
        DumpLine::Segment { path, id, capacity } => {
            json!({ "segment": id, "path": path, "capacity": capacity })
        }
        DumpLine::Frame { at, kind, position, payload_len, durable } => json!({
            "at": at.to_string(),
            "kind": kind,
            "index": position.index.0,
            "term": position.term.0,
            "payload_bytes": payload_len,
            "durable": durable.to_string(),
        }),
        DumpLine::End { at, what } => json!({ "at": at.to_string(), "kind": "end", "what": what }),
    }
}
