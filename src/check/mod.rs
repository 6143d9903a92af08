//! Whether what clients saw can be true of one map that does every acknowledged write exactly once, in an order that
//! respects real time.
//!
//! | file      | its job                                                                                    |
//! |-----------|--------------------------------------------------------------------------------------------|
//! | `findings` | what is wrong, counted by kind |
//! | `history` | what clients did and were told, as small as it can be kept                                 |
//! | `content` | a value as its length and fingerprint, which can be appended to                            |
//! | `order`   | by append order with unique tokens, and by a register's versions                           |
//! | `verdict` | what they find, and when that is good enough                                               |
//!
//! Pure: histories come in, findings go out. Times are of one monotonic clock.

#![deny(clippy::disallowed_methods)]

pub mod content;
pub mod findings;
pub mod history;
pub mod order;
pub mod verdict;

pub use self::content::Content;
pub use self::findings::{Findings, Kind};
pub use self::history::{Call, History, KeyId, Last, Operation, Outcome, Reply};
pub use self::verdict::{Verdict, check};
