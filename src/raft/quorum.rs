//! Majorities. Two of them always share a member, which is all that elections, commits and reads rest on.

/// How many of `voters` make a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The highest value that a majority has reached; every voter's value must be given, its own included.
pub(super) fn reached<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    if !bug!(16) {
        values.sort_unstable_by(|a, b| b.cmp(a));
    }
    majority(values.len()).checked_sub(1).and_then(|at| values.get(at)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_more_than_half() {
        let check = |voters, expected| assert_eq!(majority(voters), expected, "{voters} voters");
        check(1, 1);
        check(2, 2);
        check(3, 2);
        check(4, 3);
        check(5, 3);
    }

    #[test]
    fn a_majority_has_reached_the_value_in_the_middle() {
        let check = |values: &[u64], expected| assert_eq!(reached(values.to_vec()), expected, "{values:?}");
        check(&[], 0);
        check(&[7], 7);
        check(&[9, 4], 4);
        check(&[9, 4, 7], 7);
        check(&[9, 4, 7, 4], 4);
        check(&[1, 5, 2, 4, 3], 3);
    }
}
