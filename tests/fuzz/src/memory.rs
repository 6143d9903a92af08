//! A heap that is counted, so that a target can say how much a piece of work may take.

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What any decoder may take beyond its input.
pub const SLACK: usize = 64 * 1024;

/// Does `work`, which may take `bound` bytes of heap at a time beyond what is there before.
pub fn within<T>(bound: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let (result, taken) = taken(work);
    assert!(taken <= bound, "{what}: {taken} bytes of heap, {bound} are allowed");
    result
}

/// Does `work`, and tells the most bytes of heap that it held at a time.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HEAP.reset_peak_usage();
    let before = HEAP.current_usage();
    let result = work();
    (result, HEAP.peak_usage().saturating_sub(before))
}
