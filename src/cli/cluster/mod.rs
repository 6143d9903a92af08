//! What runs on real nodes have in common.
//!
//! | file      | its job                                      |
//! |-----------|----------------------------------------------|
//! | `answers` | what the map answers, in the checkers' words |
//! | `nodes`   | child processes, each with its own directory |
//! | `place`   | where their data goes                        |

pub(crate) mod answers;
pub(crate) mod nodes;
pub(crate) mod place;
