//! Whole worlds in simulated time: a server and devices, real stores, sessions and links, over a network that loses,
//! holds and cuts, with kills, wrong clocks, restored and copied stores, and changes of key. In the end all machines
//! must have the same, and nothing that was acknowledged may be missing.
//!
//! Everything follows from a seed. `KVASS_SEED=17` runs one world and prints what happens in it; `KVASS_SEEDS=2000`
//! runs that many in place of a hundred.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod chance;
mod fate;
mod machine;
mod model;
mod network;
mod trace;
mod world;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Worlds of a normal run.
const SEEDS: u64 = 100;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// Runs worlds on all processors, and names those that fail.
fn run(seeds: u64) {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let (events, seconds, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let work = || loop {
        let seed = next.fetch_add(1, Relaxed);
        if seed >= seeds {
            return;
        }
        match catch_unwind(|| fate::live(seed, false)) {
            Ok((trace, lived)) => {
                events.fetch_add(trace.events.len() as u64, Relaxed);
                seconds.fetch_add(lived as u64, Relaxed);
            }
            Err(_) => {
                eprintln!("KVASS_SEED={seed} cargo test -p kvassd --test simulation worlds_converge -- --nocapture");
                failed.lock().unwrap().push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (events, seconds) = (events.into_inner(), seconds.into_inner());
    println!("{seeds} worlds, {events} events, {seconds} simulated seconds in {:?}", begun.elapsed());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {seeds} worlds failed: {failed:?}", failed.len());
}

#[test]
fn worlds_converge() {
    match number("KVASS_SEED") {
        Some(seed) => println!("{}", fate::live(seed, true).0.hash()),
        None => run(number("KVASS_SEEDS").unwrap_or(SEEDS)),
    }
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
