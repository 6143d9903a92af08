//! The programs that the scripts call, and the Debian packages they come from.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Result, Scenery, Stop};

/// A program and the package that has it.
pub(crate) type Tool = (&'static str, &'static str);

pub(crate) const MOUNT: Tool = ("mount", "mount");
pub(crate) const SETPRIV: Tool = ("setpriv", "util-linux");
pub(crate) const STORAGE_DAEMON: Tool = ("qemu-storage-daemon", "qemu-system-common");
pub(crate) const FUSE: Tool = ("fusermount3", "fuse3");
pub(crate) const MKFS_EXT4: Tool = ("mkfs.ext4", "e2fsprogs");
pub(crate) const MKFS_XFS: Tool = ("mkfs.xfs", "xfsprogs");

/// Refuses with the name of the first package that is missing.
pub(crate) fn need(tools: &[Tool]) -> Result<()> {
    if !is_root() {
        return Err(Stop::Skipped("needs root".into()));
    }
    match tools.iter().find(|(program, _)| !on_path(program)) {
        Some((program, package)) => Err(Stop::Skipped(format!("needs {program} (Debian package {package})"))),
        None => Ok(()),
    }
}

/// Refuses where a device file is missing.
pub(crate) fn need_device(path: &str) -> Result<()> {
    match Path::new(path).exists() {
        true => Ok(()),
        false => Err(Stop::Skipped(format!("this kernel has no {path}"))),
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Runs a program to its end; what it said on stderr is the error.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .or_broken(&format!("starting {program}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Stop::Broken(format!(
                "{program} {}: {}: {}",
                arguments.join(" "),
                output.status,
                said.trim()
            )))
        }
    }
}
