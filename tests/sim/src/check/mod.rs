//! Whether what clients saw can be true of one map that does everything once, in an order that respects real time.

pub mod history;
pub mod order;
#[cfg(test)]
mod tests;
pub mod witness;
