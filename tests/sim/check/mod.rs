//! Whether what clients saw can be true of one map that does everything once, in an order that respects real time.

pub(crate) mod history;
pub(crate) mod order;
mod tests;
pub(crate) mod witness;
