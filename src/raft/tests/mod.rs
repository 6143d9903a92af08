//! Tests of the core: a cluster of real cores in a made-up world, told as scripts and shaken at random.

mod cluster;
mod files;
mod noise;
mod random;
mod script;
mod scripts;
mod units;
