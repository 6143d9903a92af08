//! The rare things that a world can meet. What stands here and is never met in a long run makes the run red: then a
//! branch is not tested, whatever its tests say.

/// All of them, sorted.
pub const ALL: &[&str] = &[
    "a call ended as unknown",
    "a clock leapt",
    "a copy was started as another node",
    "a crash loop came to its end",
    "a damaged node refused to start and said where",
    "a directory sync failed",
    "a directory was emptied",
    "a directory was rolled back",
    "a disk call was made to fail",
    "a disk lost what others hold, and could not know",
    "a disk was full",
    "a disk was slow",
    "a file vanished",
    "a file was cut short",
    "a leader named a member that lost what it had acknowledged",
    "a leader was elected",
    "a log found space again without a restart",
    "a log ran out of space",
    "a log was reset by a snapshot",
    "a log was truncated",
    "a map was misread",
    "a message overtook another",
    "a message was doubled",
    "a message was lost",
    "a node could not start for its disk",
    "a node died behind the OPEN of a segment",
    "a node died in a chore",
    "a node died in the midst of writing",
    "a node died writing a snapshot",
    "a node stopped by itself",
    "a node was cut off one way",
    "a node was in a crash loop",
    "a node was killed",
    "a node was killed and its cache dropped",
    "a node was paused",
    "a node went on from a copy of its directory",
    "a node will die in the midst of writing",
    "a read failed",
    "a recovery was crashed",
    "a second process was started on a directory",
    "a sector became unreadable",
    "a sector was zeroed",
    "a segment was sealed",
    "a session expired under a doubtful write",
    "a snapshot could not be received",
    "a snapshot could not be written",
    "a snapshot to be sent was gone",
    "a snapshot transfer broke off",
    "a snapshot transfer was resumed",
    "a snapshot was delivered",
    "a snapshot was marked",
    "a sound copy was brought back",
    "a sync failed and dropped its pages",
    "a sync failed and everything was on the disk",
    "a sync lied",
    "a write failed",
    "a write was short",
    "a write went astray",
    "another disk call failed",
    "bits rotted in NODE",
    "bits rotted in a sealed segment",
    "bits rotted in a snapshot",
    "bits rotted in the last segment",
    "bits rotted under a running node",
    "damage did not matter",
    "one direction of a link was slow",
    "one node saw both parts of a cut network",
    "one node was cut off",
    "the atlas kept a disk from harm",
    "the end came with a damaged node",
    "the end came with a dead node",
    "the end came with a disk that hangs",
    "the end came with a node cut off",
    "the end came with a stopped process",
    "the network was a ring",
    "the network was cut",
    "the network was cut in two",
    "the power was cut",
    "the power was cut and sectors torn",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn sources() -> String {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files =
            std::fs::read_dir(here).expect("the crate's own sources").map(|entry| entry.expect("one").path());
        let others = files.filter(|path| path.file_name().is_none_or(|name| name != "marks.rs"));
        others
            .filter(|path| path.is_file())
            .map(|path| std::fs::read_to_string(path).expect("text"))
            .collect()
    }

    #[test]
    fn all_that_is_marked_is_in_the_list_and_the_other_way_round() {
        assert!(ALL.is_sorted_by(|one, next| one < next), "not sorted");
        let sources = sources();
        let calls = sources.split("sometimes(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let unlisted: BTreeSet<&str> = calls.filter(|name| !ALL.contains(name)).collect();
        assert!(unlisted.is_empty(), "not in the list: {unlisted:?}");
        let unused: Vec<_> = ALL.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
        assert!(unused.is_empty(), "nobody marks these: {unused:?}");
    }

    #[test]
    #[should_panic(expected = "is not in the list of marks")]
    fn what_is_not_in_the_list_cannot_be_marked() {
        crate::trace::Trace::default().sometimes(concat!("nobody", " knows this"));
    }
}
