//! Whether what clients saw can be true of one map that does every acknowledged write exactly once, in an order that
//! respects real time. Three checkers trust different things:
//!
//! | file       | its job                                                                          |
//! |------------|----------------------------------------------------------------------------------|
//! | `history`  | what clients did and were told, as small as it can be kept                       |
//! | `content`  | a value as its length and a fingerprint that can be appended to                  |
//! | `lane`     | the operations of one key                                                        |
//! | `floor`    | what had returned when something began                                           |
//! | `order`    | by the order that values show: of unique tokens appended, and of versions        |
//! | `witness`  | by the place in the log that each answer names                                   |
//! | `search`   | by trying every order that real time allows, key by key                          |
//! | `frontier` | all that a key can be after some answers, for the last two                       |
//! | `model`    | what an operation does to a key, and may be told                                 |
//! | `findings` | what is wrong, by kind                                                           |
//! | `verdict`  | all three over one history, and when that is good enough                         |
//!
//! A history begins with an empty map, and its times are of one monotonic clock. Pure: it comes in, findings go out.

#![deny(clippy::disallowed_methods)]

mod budget;
pub mod content;
pub mod findings;
mod floor;
mod frontier;
pub mod history;
mod lane;
mod model;
mod order;
mod search;
#[cfg(test)]
mod tests;
mod verdict;
mod witness;

pub use self::budget::{Budget, Checks};
pub use self::content::Content;
pub use self::findings::{Findings, Kind};
pub use self::history::{Call, History, KeyId, Last, Operation, Outcome, Reply};
pub use self::verdict::{Verdict, check};
