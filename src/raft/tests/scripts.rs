//! One test a script; each script tells one story.

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            super::script::run(stringify!($name));
        })*

        /// A script that nobody runs would prove nothing.
        #[test]
        fn every_script_is_run() {
            let run = [$(stringify!($name)),*];
            let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/testscripts");
            for file in std::fs::read_dir(scripts).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(name.strip_suffix(".txt").is_some_and(|name| run.contains(&name)), "{name} is not run");
            }
        }
    };
}

scripts! {
    absurd_messages
    acknowledgement_waits_for_its_sync
    append_again_changes_nothing
    append_needs_the_entry_before
    append_replaces_conflicts
    backtracking_over_a_short_log
    backtracking_over_terms
    batching
    candidate_yields_to_leader
    check_quorum
    commit_told_once
    election
    failover
    figure_7
    follower_commit
    full_follower
    full_leader
    full_leader_on_a_hung_disk
    heap_tail
    heartbeat_commits_only_what_is_verified
    higher_term_adopted
    late_answers
    leader_counts_its_own_disk
    leader_yields_to_higher_term
    lost_acknowledgement
    lost_append
    old_terms_are_safe_below_a_commit
    old_terms_commit_with_the_new
    one_vote_a_term
    partial_partition
    pipelining_window
    pre_vote_across_terms
    pre_vote_disturbs_nobody
    pre_vote_refused_near_a_leader
    proposals_refused
    read_fails_on_step_down
    read_index
    read_needs_a_fresh_majority
    read_round_repeated
    read_waits_for_the_first_commit
    regressed_copies_do_not_count
    regression
    regression_that_was_a_late_answer
    replication
    restart_from_a_snapshot
    single_node
    snapshot_acknowledged_early
    snapshot_compacts
    snapshot_drops_a_log_that_differs
    snapshot_keeps_a_matching_suffix
    snapshot_overtaken_by_the_next
    snapshot_retried
    snapshot_to_a_lagging_follower
    snapshot_too_late
    snapshot_waits_for_its_sync
    snapshot_without_acknowledgement
    split_vote
    stale_term_refused
    stickiness
    strangers_and_reserved_messages
    stuck_disk_gives_no_hope
    stuck_followers
    stuck_leader
    timer_and_refused_votes
    two_leaders_in_one_term
    two_nodes
    uncommitted_bytes
    vote_for_up_to_date_logs_only
    vote_waits_for_its_sync
    window_in_bytes
}
