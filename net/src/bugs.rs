//! Known bugs of others on switches, as in the file of this name in `storage/`, of which this package knows nothing.

/// Whether this bug is switched on: `false`, a constant.
#[cfg(not(raftmap_bugs))]
macro_rules! bug {
    ($number:literal) => {
        false
    };
}

/// Whether this bug is switched on.
#[cfg(raftmap_bugs)]
macro_rules! bug {
    ($number:literal) => {
        crate::bugs::is_on($number)
    };
}

#[cfg(not(raftmap_bugs))]
const _: () = assert!(!bug!(1), "a build without the cfg has no bug");

#[cfg(all(raftmap_bugs, not(debug_assertions)))]
compile_error!("raftmap_bugs puts known bugs into the code: never in a release build");

/// Whether `RAFTMAP_BUG` names this bug.
#[cfg(raftmap_bugs)]
pub(crate) fn is_on(number: u32) -> bool {
    static NUMBER: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    let read = || std::env::var("RAFTMAP_BUG").ok().and_then(|value| value.parse().ok());
    *NUMBER.get_or_init(read) == Some(number)
}
