//! What runs on real nodes have in common.
//!
//! | file    | its job                                     |
//! |---------|---------------------------------------------|
//! | `nodes` | child processes, each with its own directory |
//! | `place` | where their data goes                       |

pub(crate) mod nodes;
pub(crate) mod place;
