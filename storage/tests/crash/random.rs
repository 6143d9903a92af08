//! Random steps, faults and crashes beside a story that knows what must be there. Each run has a seed, and the seed is
//! in every failure.

use raftmap_storage::Options;
use raftmap_storage::model::{Cut, Effect, Fault, ModelFs, Op, Random};

use crate::sample;
use crate::world::{Act, World, open_and_read_with, options};

/// Small segments that rotate all the time, or several pages with frames that end where pages do.
fn pick_options(random: &mut Random) -> Options {
    let wide = Options { segment_bytes: 16384, payload_max: 5000, spares: 2, batch_bytes: 8192 };
    if random.one_in(2) { wide } else { options() }
}

/// Few sizes, so that one frame often stands exactly where another one stood before.
fn pick_size(random: &mut Random, payload_max: u32) -> usize {
    let sizes = [0, 40, 472, 600, 4056, payload_max as usize, random.below(601) as usize];
    sizes[random.below(sizes.len() as u64) as usize].min(payload_max as usize)
}

fn pick_act(random: &mut Random, payload_max: u32) -> Act {
    match random.below(23) {
        0..=5 => Act::Append(1 + random.below(4) as usize, pick_size(random, payload_max)),
        6 => Act::Append(1 + random.below(12) as usize, 600),
        7 => Act::Vote,
        8 => Act::Overwrite(random.below(6) as usize),
        9 => Act::Truncate(random.below(4) as usize),
        10 => Act::Snapshot(random.below(3) as usize),
        11 => Act::Install(random.below(20)),
        12..=14 => Act::Sync,
        15 => Act::SyncOnce,
        16 => Act::Chores,
        17 => Act::Idle,
        18 => Act::Reopen,
        19 | 20 => Act::TakeChore,
        21 => Act::RunChore,
        _ => Act::Kill,
    }
}

fn pick_fault(random: &mut Random) -> Fault {
    let effect = match random.below(6) {
        0 => Effect::Eio,
        1 => Effect::Enospc,
        2 => Effect::Short,
        3 => Effect::SyncDropped,
        4 => Effect::SyncDroppedSome(random.next_u64()),
        _ => Effect::SyncKept,
    };
    let on = match random.below(4) {
        0 => None,
        1 => Some(Op::SyncDir),
        _ => Some(Op::SyncData),
    };
    Fault { on, after: random.below(12), effect, lasting: false }
}

fn pick_crash(random: &mut Random, fs: &ModelFs) -> ModelFs {
    match random.below(7) {
        0 => fs.kill(),
        1 => fs.kill_and_evict(),
        2 => fs.cut(Cut::LoseAll),
        3 => fs.cut(Cut::KeepAll),
        4 => fs.cut(Cut::Torn(random.next_u64())),
        _ => fs.cut(Cut::Some(random.next_u64())),
    }
}

/// A recovery that was crashed behind one of its calls, or that failed at one and left it at that.
fn half_recovered(fs: &ModelFs, options: Options, random: &mut Random) -> Result<ModelFs, String> {
    if random.one_in(2) {
        fs.fail(pick_fault(random));
        let opened = open_and_read_with(fs, options).map(|_| ());
        let struck = opened.is_err();
        fs.heal();
        return Ok(if struck && random.one_in(2) { fs.kill() } else { pick_crash(random, fs) });
    }
    fs.keep_photos();
    open_and_read_with(fs, options).map(|_| ())?;
    let photos = fs.take_photos();
    let (_, photo) = &photos[random.below(photos.len() as u64) as usize];
    Ok(pick_crash(random, photo))
}

/// Crashes until one recovery gets through; recoveries are crashed too, in the middle.
fn crash_and_recover(world: &mut World, random: &mut Random) -> Result<(), String> {
    let mut fs = pick_crash(random, &world.fs);
    for _ in 0..random.below(4) {
        fs = half_recovered(&fs, world.options, random)?;
    }
    world.recover_on(fs)?;
    // It was opened, so it stays: whatever happens now, before anything else is written.
    let (_, state) = open_and_read_with(&pick_crash(random, &world.fs), world.options)?;
    if &state != world.story.now() {
        return Err(format!(
            "what was opened once did not stay\nopened: {:?}\nthen: {state:?}",
            world.story.now()
        ));
    }
    Ok(())
}

fn run(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut world = World::with(ModelFs::new(seed), pick_options(&mut random), false)?;
    for _ in 0..4 + random.below(6) {
        if random.one_in(3) {
            world.fs.fail(pick_fault(&mut random));
        }
        for _ in 0..random.below(25) {
            let act = pick_act(&mut random, world.options.payload_max);
            if world.act(act).is_err() {
                break;
            }
        }
        world.fs.heal();
        crash_and_recover(&mut world, &mut random)?;
    }
    Ok(())
}

#[test]
fn random_steps_faults_and_crashes() {
    let wanted =
        std::env::var("RAFTMAP_SEED").ok().map(|seed| seed.parse().expect("RAFTMAP_SEED is a number"));
    let seeds = match wanted {
        Some(seed) => seed..seed + 1,
        None => 0..sample(600, 100_000),
    };
    for seed in seeds {
        let replay = "cargo test -p raftmap-storage --test crash random_steps_faults_and_crashes";
        run(seed).unwrap_or_else(|error| panic!("{error}\nRAFTMAP_SEED={seed} {replay}"));
    }
}
