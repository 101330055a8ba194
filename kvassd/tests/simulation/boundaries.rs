//! One session that is cut behind each of its frames: once for each frame, in either direction, at either end, with the
//! connection gone, the machine killed, or the device put back to an older copy, before a full server and a blind one.

use kvassd::store::ShareOptions;

use crate::fate;
use crate::model::Content;
use crate::network::{Boundary, Direction, Fate};
use crate::trace::Trace;
use crate::world::World;

/// The device whose session is cut, and the one that was there before.
const DEVICE: usize = 2;
const OTHER: usize = 1;

/// Ticks in which a session that has nothing to say says all that it says then.
const AFTER: u64 = 100;

/// A world of this family.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Where the frames are counted: at the server, or at the device.
    at: usize,
    boundary: Boundary,
    /// Whether the device is put back to what it was before its last write.
    puts_back: bool,
    is_blind: bool,
}

/// All cases; the session is lived once before each kind of server to see how many frames it has.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for is_blind in [false, true] {
        for (at, passed) in frames(is_blind) {
            for (direction, count) in [Direction::In, Direction::Out].into_iter().zip(passed) {
                for frames in 1..=count {
                    let fates = [(Fate::Cut, false), (Fate::Killed, false), (Fate::Cut, true)];
                    let fates = fates.into_iter().filter(|(_, puts_back)| at == DEVICE || !puts_back);
                    cases.extend(fates.map(|(fate, puts_back)| {
                        let boundary = Boundary { direction, frames, fate };
                        Case { at, boundary, puts_back, is_blind }
                    }));
                }
            }
        }
    }
    cases
}

/// How many frames pass at either end.
fn frames(is_blind: bool) -> [(usize, [u64; 2]); 2] {
    let mut world = begin(is_blind, false);
    let before = world.machines[0].scissors.passed();
    join(&mut world);
    world.wait_for_quiet();
    (0..AFTER).for_each(|_| world.step());
    let passed = world.machines[0].scissors.passed();
    let at_server = [passed[0] - before[0], passed[1] - before[1]];
    [(0, at_server), (DEVICE, world.machines[DEVICE].scissors.passed())]
}

/// Lives one case to its end.
pub fn live(case: Case, print: bool) -> (Trace, f64) {
    let mut world = begin(case.is_blind, print);
    join(&mut world);
    world.cut_behind(case.at, case.boundary);
    let end = world.ticks + 20 * AFTER;
    while world.machines[case.at].scissors.is_set() && world.ticks < end {
        world.step();
    }
    if case.puts_back {
        world.put_back(DEVICE, Some(0));
    }
    change(&mut world, case.boundary.frames.is_multiple_of(2));
    fate::end(&mut world);
    let seconds = world.seconds();
    (world.trace, seconds)
}

/// A server and a device that have something of everything, and all of it.
fn begin(is_blind: bool, print: bool) -> World {
    let mut world = World::new(1, print, is_blind);
    world.add("device1", None);
    write(&mut world, OTHER, &[(0, 100), (1, 5_000), (2, 400_000), (3, 10)]);
    world.write(OTHER, 3, None);
    world.share(OTHER, 0, ShareOptions::default());
    world.share(OTHER, 2, ShareOptions { reads: 2, ..ShareOptions::default() });
    world.wait_for_quiet();
    world
}

/// A device comes that has other values, some of them of the same names, and somebody waits for one of them.
fn join(world: &mut World) {
    world.add("device2", None);
    write(world, DEVICE, &[(1, 3), (3, 4_096), (4, 200_000), (5, 0)]);
    world.share(DEVICE, 4, ShareOptions::default());
    world.back_up(DEVICE);
    let version = world.write(DEVICE, 5, Some(Content { seed: 9, size: 9 })).unwrap();
    world.wait_for_held(DEVICE, 5, version);
    world.wait_for_taken(DEVICE);
}

/// What happens right behind the cut. What was on its way is replaced, or goes on its way again.
fn change(world: &mut World, replaces: bool) {
    if replaces && world.is_up(DEVICE) && !world.machines[DEVICE].trap.is_sprung() {
        write(world, DEVICE, &[(2, 40_000)]);
        world.write(DEVICE, 4, None);
    }
    world.write(OTHER, 1, None);
    world.revoke(OTHER, 0);
    for _ in 0..3 {
        if world.is_up(0) && !world.machines[0].trap.is_sprung() {
            world.open_link(0, 1);
        }
    }
}

fn write(world: &mut World, at: usize, sizes: &[(usize, usize)]) {
    for (which, size) in sizes {
        let seed = world.chance.next();
        world.write(at, *which, Some(Content { seed, size: *size }));
    }
}
