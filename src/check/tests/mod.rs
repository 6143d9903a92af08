//! The checkers are checked: by hand-made cases, by true histories with one lie told in them, and against all orders.

mod brute;
mod deeds;
mod lies;
mod world;
