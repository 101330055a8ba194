//! What befalls a world, by chance.

use std::sync::atomic::Ordering::Relaxed;

use crate::model::{Content, NAMES};
use crate::trace::Trace;
use crate::world::{Way, World};

/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// The most clones that one world has.
const CLONES: usize = 2;

/// Lives one world from its seed to its end. Gives what happened, and how many seconds passed in it.
pub fn live(seed: u64, print: bool) -> (Trace, f64) {
    let mut world = World::new(seed, print);
    let ticks = 500 + world.chance.below(3_000);
    let rest = 10 + world.chance.below(60);
    while world.ticks < ticks {
        if world.chance.one_in(rest) {
            befall(&mut world);
        }
        world.step();
    }
    world.heal();
    world.wait_for_quiet();
    world.check();
    // All links live on.
    let at = world.chance.index(world.machines.len());
    write(&mut world, at);
    world.wait_for_quiet();
    world.check();
    let seconds = world.seconds();
    (world.trace, seconds)
}

/// Does something to a machine.
fn befall(world: &mut World) {
    let at = world.chance.index(world.machines.len());
    let device = 1 + world.chance.index(world.machines.len() - 1);
    let what = world.chance.below(100);
    if (60..76).contains(&what) {
        return disturb(world, device);
    }
    if !world.is_up(at) || world.machines[at].trap.is_sprung() {
        return;
    }
    match what {
        0..60 => write(world, at),
        76..80 => {
            world.note(at, "is killed");
            world.kill(at);
        }
        80..82 => {
            world.note(at, "loses power");
            world.unplug(at);
        }
        82..86 => {
            let count = 1 + world.chance.below(12);
            world.set_trap(at, count);
        }
        86..88 => world.restart(at),
        88..91 => skew(world, at),
        91..94 => {
            world.note(at, "is backed up");
            world.machines[at].back_up();
        }
        94..96 => put_back(world, at),
        96 => add_clone(world, device),
        97 => {
            if at == 0 {
                world.note(0, "loses its store");
                world.put_back(0, None);
            }
        }
        98 => {
            world.choose_key();
            world.set_key(at);
        }
        _ => world.set_key(at),
    }
}

fn write(world: &mut World, at: usize) {
    let which = world.chance.index(NAMES);
    let size = match world.chance.below(20) {
        0 => 0,
        1..11 => world.chance.index(200),
        11..14 => 4_080 + world.chance.index(40),
        14..16 => 32_750 + world.chance.index(40),
        16 => world.chance.index(300_000),
        _ => return world.write(at, which, None),
    };
    let seed = world.chance.next();
    world.write(at, which, Some(Content { seed, size }));
}

/// Does something to a device's way to the server.
fn disturb(world: &mut World, device: usize) {
    match world.chance.below(10) {
        0..3 => {
            world.note(device, "is cut");
            world.machines[device].scissors.cut();
        }
        3 => world.new_latency(device),
        number => {
            let way = match number {
                _ if world.ways[device] != Way::Open => Way::Open,
                4..7 => Way::Lost,
                7 => Way::LostOut,
                8 => Way::LostIn,
                _ => Way::Held,
            };
            world.note(device, &format!("has a way that is {way:?}"));
            world.set_way(device, way);
        }
    }
}

/// Sets a machine's clock wrong, or right again.
fn skew(world: &mut World, at: usize) {
    let skew_us = match world.chance.below(3) {
        0 => 0,
        1 => world.chance.below(2_000_000) as i64 - 1_000_000,
        _ => world.chance.below(10) as i64 * HOUR - 5 * HOUR,
    };
    world.note(at, &format!("has a clock that is wrong by {skew_us}"));
    world.machines[at].skew_us.store(skew_us, Relaxed);
}

fn put_back(world: &mut World, at: usize) {
    let backups = world.machines[at].backups.clone();
    if backups.is_empty() {
        return;
    }
    let which = world.chance.index(backups.len());
    world.note(at, &format!("is put back to backup {which}"));
    world.put_back(at, Some(&backups[which]));
}

/// Starts a copy of a device beside it.
fn add_clone(world: &mut World, device: usize) {
    let clones = world.machines.iter().filter(|machine| machine.name.starts_with("clone")).count();
    if clones < CLONES && world.is_up(device) {
        let name = format!("clone{}", clones + 1);
        world.note(device, &format!("is copied to {name}"));
        world.add(&name, Some(device));
    }
}
