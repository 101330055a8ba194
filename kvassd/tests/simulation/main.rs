//! Whole worlds in simulated time: a server, full or blind, and devices, real stores, sessions and links, over a network
//! that loses, holds and cuts, with kills, slow and full disks, clocks that jump, restored and copied stores, and
//! changes of key. In the end all machines must have the same, and nothing that was acknowledged may be missing.
//!
//! Everything follows from a seed. `KVASS_SEED=17` runs one world and prints what happens in it; `KVASS_SEEDS=2000`
//! runs that many in place of a hundred, from `KVASS_FIRST_SEED` on.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod acts;
mod boundaries;
mod chance;
mod fate;
mod frames;
mod links;
mod machine;
mod model;
mod network;
mod quiet;
mod trace;
mod trap;
mod waits;
mod world;

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::time::Instant;

use model::Content;
use trace::Trace;
use world::{Way, World};

/// Worlds of a normal run.
const SEEDS: u64 = 100;

/// Ticks until a session that has told a digest may tell another one.
const DIGESTS: u64 = 3_100;

/// Of so many boundaries of a session a normal run looks at one. They go by twos and threes, so that it meets all kinds.
const SOME: usize = 11;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

thread_local! {
    /// Panics on this thread. Those in a task of a machine end that task, and nobody else would hear of them.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Lives a world in which nothing may panic.
fn watched(live: impl FnOnce() -> (Trace, f64)) -> (Trace, f64) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            usual(panic);
        }));
    });
    PANICS.set(0);
    let lived = live();
    assert_eq!(PANICS.get(), 0, "a task panicked");
    lived
}

/// Runs worlds on all processors. For those that fail, `again` says the command that runs one again.
fn run(numbers: Range<u64>, live: impl Fn(u64) -> (Trace, f64) + Sync, again: impl Fn(u64) -> String + Sync) {
    let (next, failed) = (AtomicU64::new(numbers.start), Mutex::new(Vec::new()));
    let (events, seconds, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    // One failure is enough for whoever only asks whether there is any.
    let stops = std::env::var_os("KVASS_STOP").is_some();
    let work = || loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= numbers.end || (stops && !failed.lock().unwrap().is_empty()) {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| watched(|| live(number)))) {
            Ok((trace, lived)) => {
                events.fetch_add(trace.events.len() as u64, Relaxed);
                seconds.fetch_add(lived as u64, Relaxed);
            }
            Err(_) => {
                eprintln!("{}", again(number));
                failed.lock().unwrap().push(number);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (events, seconds) = (events.into_inner(), seconds.into_inner());
    println!("worlds {numbers:?}: {events} events, {seconds} simulated seconds in {:?}", begun.elapsed());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of the worlds {numbers:?} failed: {failed:?}", failed.len());
}

/// The command that runs one world of a test.
fn alone(variable: &str, number: u64, test: &str) -> String {
    format!("{variable}={number} cargo test -p kvassd --test simulation {test} -- --nocapture")
}

#[test]
fn worlds_converge() {
    if let Some(seed) = number("KVASS_SEED") {
        return println!("{}", watched(|| fate::live(seed, true)).0.hash());
    }
    let first = number("KVASS_FIRST_SEED").unwrap_or(0);
    let count = number("KVASS_SEEDS").unwrap_or(SEEDS);
    run(first..first + count, |seed| fate::live(seed, false), |seed| alone("KVASS_SEED", seed, "worlds_converge"));
}

#[test]
fn a_session_may_be_cut_behind_each_of_its_frames() {
    let cases = boundaries::cases();
    if let Some(case) = number("KVASS_BOUNDARY") {
        let case = cases[case as usize];
        println!("{case:?}");
        return println!("{}", watched(|| boundaries::live(case, true)).0.hash());
    }
    // With more worlds than usual, all of them.
    let step = if number("KVASS_SEEDS").is_none_or(|seeds| seeds <= SEEDS) { SOME } else { 1 };
    let count = cases.len().div_ceil(step) as u64;
    let which = |number: u64| number as usize * step;
    let again =
        |number| alone("KVASS_BOUNDARY", which(number) as u64, "a_session_may_be_cut_behind_each_of_its_frames");
    run(0..count, |number| boundaries::live(cases[which(number)], false), again);
    println!("of {} boundaries", cases.len());
}

/// Found as seeds 189 and 290.
#[test]
fn what_is_merged_while_a_digest_is_read_makes_no_difference() {
    let mut world = World::new(0, false, false);
    world.add("device1", None);
    world.machines[1].slowness_ms.store(5_000, Relaxed);
    // The device reads its digest a second after it has merged the first of two, which takes it up to ten seconds. So
    // the second comes at all times of that, and before and behind it.
    for behind in 40..300 {
        world.write(0, 0, Some(Content { seed: behind, size: 9 }));
        (0..behind).for_each(|_| world.step());
        world.write(0, 0, Some(Content { seed: behind + 1, size: 9 }));
        let end = world.ticks + DIGESTS;
        while world.ticks < end {
            (0..10).for_each(|_| world.step());
            world.check_alarms();
        }
    }
    fate::end(&mut world);
}

/// Found as seed 112.
#[test]
fn whoever_waits_for_both_sides_is_told_though_the_key_changes_meanwhile() {
    let mut world = World::new(0, false, false);
    world.add("device1", None);
    // The log of the new key is shorter: what was replaced is not in it.
    for seed in 0..5 {
        world.write(1, 0, Some(Content { seed, size: 9 }));
    }
    world.wait_for_both(1);
    world.set_way(1, Way::Lost);
    world.step();
    world.choose_key();
    fate::end(&mut world);
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..number("KVASS_SEEDS").unwrap_or(SEEDS) / 20 {
        let [one, other] = [0; 2].map(|_| fate::live(seed, false).0);
        let differs = one.events.iter().zip(&other.events).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.hash(), other.hash(), "seed {seed}");
    }
}
