//! What befalls a world, by chance.

use std::sync::atomic::Ordering::Relaxed;

use kvassd::store::ShareOptions;

use crate::machine::PLENTY;
use crate::model::{Content, NAMES};
use crate::network::{Boundary, Direction, Fate};
use crate::trace::Trace;
use crate::world::{Way, World};

/// An hour, in microseconds.
const HOUR: i64 = 3_600_000_000;

/// The most clones that one world has.
const CLONES: usize = 2;

/// Lives one world from its seed to its end. Gives what happened, and how many seconds passed in it.
pub fn live(seed: u64, print: bool) -> (Trace, f64) {
    let mut world = World::new(seed, print, seed % 3 == 2);
    for device in 1..=3 + world.chance.below(4) {
        world.add(&format!("device{device}"), None);
    }
    for at in 0..world.machines.len() {
        if world.chance.one_in(4) {
            slow_down(&mut world, at);
        }
    }
    let ticks = 500 + world.chance.below(3_000);
    let rest = 10 + world.chance.below(60);
    while world.ticks < ticks {
        if world.chance.one_in(rest) {
            befall(&mut world);
        }
        world.step();
    }
    end(&mut world);
    // All links live on.
    let at = world.a_device();
    write(&mut world, at);
    world.wait_for_quiet();
    world.check();
    let seconds = world.seconds();
    (world.trace, seconds)
}

/// Ends all that befalls a world, and looks whether all is as it must be.
pub fn end(world: &mut World) {
    world.heal();
    world.wait_for_quiet();
    world.check();
}

/// Does something to a machine.
fn befall(world: &mut World) {
    free_disks(world);
    let at = world.chance.index(world.machines.len());
    let device = world.a_device();
    let what = world.chance.below(100);
    if (60..74).contains(&what) {
        return disturb(world, device);
    }
    if !world.is_up(at) || world.machines[at].trap.is_sprung() {
        return;
    }
    let is_blind = world.is_blind && at == 0;
    match what {
        0..48 if is_blind => open_link(world, at),
        0..38 => write(world, at),
        38..46 => share(world, at),
        46..48 => revoke(world, at),
        48..57 => open_link(world, at),
        57..60 => look(world, at, is_blind),
        74 => slow_down(world, at),
        75 => fill_disk(world, at),
        76..79 => {
            world.note(at, "is killed");
            world.kill(at);
            skew_at_restart(world, at);
        }
        79..81 => {
            world.note(at, "loses power");
            world.unplug(at);
            skew_at_restart(world, at);
        }
        81..84 => {
            let count = 1 + world.chance.below(12);
            world.set_trap(at, count);
        }
        84..86 => cut_behind(world, at),
        86..88 => world.restart(at),
        88..91 => skew(world, at),
        91..94 => world.back_up(at),
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
    write_name(world, at, which);
    // Somebody else writes the same name in the same moment.
    let other = world.a_device();
    let can_write = other != at && world.is_up(other) && !world.machines[other].trap.is_sprung();
    if can_write && world.chance.one_in(5) {
        write_name(world, other, which);
    }
}

fn write_name(world: &mut World, at: usize, which: usize) {
    let size = match world.chance.below(20) {
        0 => Some(0),
        1..11 => Some(world.chance.index(200)),
        11..14 => Some(4_080 + world.chance.index(40)),
        14..16 => Some(32_750 + world.chance.index(40)),
        16 => Some(world.chance.index(300_000)),
        _ => None,
    };
    let content = size.map(|size| Content { seed: world.chance.next(), size });
    let version = world.write(at, which, content);
    if let Some(version) = version.filter(|_| at > 0 && world.chance.one_in(3)) {
        world.wait_for_held(at, which, version);
    }
}

/// Makes a link of some kind.
fn share(world: &mut World, at: usize) {
    let which = world.chance.index(NAMES);
    let mut options = ShareOptions::default();
    match world.chance.below(6) {
        0 => options.pin = true,
        1 => options.expiry_us = world.time_of(at) + 1 + world.chance.below(60_000_000),
        2 | 3 => options.reads = 1 + world.chance.below(3),
        _ => {}
    }
    world.share(at, which, options);
}

fn revoke(world: &mut World, at: usize) {
    if !world.links.is_empty() {
        let which = world.chance.index(world.links.len());
        world.revoke(at, which);
    }
}

/// Opens a link, mostly at the server, which may be killed right after it has answered.
fn open_link(world: &mut World, at: usize) {
    let at = if world.is_up(0) && world.chance.one_in(2) { 0 } else { at };
    if world.links.is_empty() || world.machines[at].trap.is_sprung() {
        return;
    }
    let which = world.chance.index(world.links.len());
    for _ in 0..1 + world.chance.below(3) {
        world.open_link(at, which);
    }
    if world.chance.one_in(4) {
        world.note(at, "is killed after it was read");
        world.kill(at);
    }
}

/// Looks at what a machine says.
fn look(world: &mut World, at: usize, is_blind: bool) {
    if !is_blind {
        let which = world.chance.index(NAMES);
        world.read(at, which);
    }
    world.look_at_pending();
    if at > 0 {
        world.wait_for_both(at);
    }
}

/// Makes a machine's disk slow, or fast again.
fn slow_down(world: &mut World, at: usize) {
    let longest_ms = [0, 100, 1_000, 5_000][world.chance.index(4)];
    world.note(at, &format!("has a disk that takes up to {longest_ms} ms"));
    world.machines[at].slowness_ms.store(longest_ms, Relaxed);
}

/// Fills a machine's disk, or frees it: to nothing, to what removals may use, or to plenty.
fn fill_disk(world: &mut World, at: usize) {
    let free = [0, 2 << 20, PLENTY][world.chance.index(3)];
    world.note(at, &format!("has {free} bytes free"));
    world.machines[at].free.store(free, Relaxed);
}

/// Full disks do not stay so for long.
fn free_disks(world: &mut World) {
    for at in 0..world.machines.len() {
        if world.machines[at].free.load(Relaxed) < PLENTY && world.chance.one_in(8) {
            world.note(at, "has space again");
            world.machines[at].free.store(PLENTY, Relaxed);
        }
    }
}

/// Cuts or kills a machine behind one of the next frames.
fn cut_behind(world: &mut World, at: usize) {
    let direction = if world.chance.one_in(2) { Direction::In } else { Direction::Out };
    let fate = if world.chance.one_in(2) { Fate::Cut } else { Fate::Killed };
    let frames = 1 + world.chance.below(30);
    world.cut_behind(at, Boundary { direction, frames, fate });
}

/// Does something to a device's way to the server.
fn disturb(world: &mut World, device: usize) {
    match world.chance.below(12) {
        0..3 => {
            world.note(device, "is cut");
            world.machines[device].scissors.cut();
        }
        3 => world.new_latency(device),
        10.. if world.is_up(device) && !world.machines[device].trap.is_sprung() => cut_behind(world, device),
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

/// Sets a machine's clock wrong, or right again: it jumps, forwards or backwards.
fn skew(world: &mut World, at: usize) {
    let skew_us = match world.chance.below(6) {
        0 | 1 => 0,
        2 | 3 => world.chance.below(2_000_000) as i64 - 1_000_000,
        4 => world.chance.below(10) as i64 * HOUR - 5 * HOUR,
        _ => world.chance.below(80) as i64 * 24 * HOUR - 40 * 24 * HOUR,
    };
    world.note(at, &format!("has a clock that is wrong by {skew_us}"));
    world.machines[at].skew_us.store(skew_us, Relaxed);
}

/// A machine that comes again may have another time.
fn skew_at_restart(world: &mut World, at: usize) {
    if world.chance.one_in(3) {
        skew(world, at);
    }
}

fn put_back(world: &mut World, at: usize) {
    let backups = world.machines[at].backups.len();
    if backups > 0 {
        let which = world.chance.index(backups);
        world.note(at, &format!("is put back to backup {which}"));
        world.put_back(at, Some(which));
    }
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
