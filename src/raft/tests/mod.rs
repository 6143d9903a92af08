//! Tests of the core: a cluster of real cores in a made-up world, told as scripts and shaken at random.
#![allow(clippy::disallowed_methods, reason = "scripts are files, and a seed may come from the environment")]

mod cluster;
mod dice;
mod files;
mod limits;
mod noise;
mod random;
mod script;
mod scripts;
mod units;
