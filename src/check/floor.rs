//! Real time, turned into numbers: what an operation may not stand before.

/// The least place that an operation may have: the highest one among those that had returned when it began.
pub(super) struct Floor {
    /// By time; the place is the highest so far.
    steps: Vec<(u64, u64)>,
}

impl Floor {
    /// From (returned, place) of operations, in any order.
    pub(super) fn new(mut steps: Vec<(u64, u64)>) -> Self {
        steps.sort_unstable();
        let mut highest = 0;
        for (_, place) in &mut steps {
            highest = highest.max(*place);
            *place = highest;
        }
        Self { steps }
    }

    /// 0 where nothing had returned before it began.
    pub(super) fn at(&self, invoked_ns: u64) -> u64 {
        let before = self.steps.partition_point(|(returned, _)| *returned < invoked_ns);
        before.checked_sub(1).and_then(|step| self.steps.get(step)).map_or(0, |(_, place)| *place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_with_what_had_returned() {
        let floor = Floor::new(vec![(20, 3), (10, 5), (30, 7)]);
        let at: Vec<u64> = [0, 10, 11, 20, 21, 30, 31].into_iter().map(|invoked| floor.at(invoked)).collect();
        assert_eq!(at, [0, 0, 5, 5, 5, 5, 7], "what returns as another begins is beside it");
    }
}
