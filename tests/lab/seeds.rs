//! Each test under several seeds.

/// Seeds of a test in an ordinary run.
const USUAL: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs `test` with seeds 0 to 3, or those that `LAB_SEED` or `LAB_SEEDS` ask for.
pub(crate) fn each_seed(name: &str, test: impl Fn(u64)) {
    let seeds = match number("LAB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("LAB_SEEDS").unwrap_or(USUAL),
    };
    assert!(!seeds.is_empty(), "no seed, no test");
    for seed in seeds {
        let replay = Replay { name, seed };
        test(seed);
        drop(replay);
    }
}

/// Says how to see a failure again.
struct Replay<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("LAB_SEED={} cargo test --test lab {}", self.seed, self.name);
        }
    }
}
