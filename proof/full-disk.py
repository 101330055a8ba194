"""See full-disk.sh."""

import os
import random
import subprocess
import sys
import time

import walls
from load import Load
from programs import WORK, Store, fail, finish, one_line, wait_until

MIB = 1024 * 1024
DISK, FILLER = WORK + "/disk", WORK + "/disk/filler"
rounds, stride = int(sys.argv[1]), int(sys.argv[2])
store = Store(DISK + "/db")
refused = 0


def free():
    figures = os.statvfs(DISK)
    return figures.f_bavail * figures.f_frsize


def fill(leave):
    """Fills the disk with a file, so that `leave` bytes are left."""
    with open(FILLER, "ab") as filler:
        while free() > leave:
            try:
                os.posix_fallocate(filler.fileno(), filler.seek(0, 2), max(4096, min(free() - leave, 8 * MIB)))
            except OSError:
                break


def unfill():
    if os.path.exists(FILLER):
        os.unlink(FILLER)


def refuses(what, *arguments, **streams):
    """A write that must end with 3 and one line."""
    global refused
    ended = store.run(*arguments, expect=3, **streams)
    if ended.code == 3:
        refused += 1
        one_line(ended.err, " ".join(arguments))
    else:
        fail(f"{what}: the disk was full, but the write was not refused")


def reads(what):
    """Everything that was there is readable."""
    for key, value in there.items():
        ended = store.get(key)
        if ended.out != value:
            fail(f"{what}: {key} is not what was set")
    shown = store.keys()
    if shown is not None and not set(there) <= set(shown):
        fail(f"{what}: `ls` misses keys")


def writes(what):
    """The next set works, with no restart."""
    for key, value in ((f"after/{len(there)}", b"small"), (f"after/{len(there)} large", os.urandom(MIB))):
        store.set(key, value)
        there[key] = value


def same_daemon(what, daemon):
    if store.daemon() != daemon:
        fail(f"{what}: process {daemon} served, now it is {store.daemon()}")


# Nearly full: what is left is less than the reserve.
there = {f"small/{n}": random.Random(n).randbytes(n * 80) for n in range(50)}
there.update({f"large/{n}": random.Random(n).randbytes(MIB + n) for n in range(5)})
for key, value in there.items():
    store.set(key, value)
store.set("to be removed", b"x")
daemon = store.daemon()
fill(40 * MIB)
refuses("40 MiB left", "set", "more", "value")
refuses("40 MiB left", "set", "more", data=os.urandom(2 * MIB))
reads("40 MiB left")
store.run("rm", "to be removed", expect=0)

# Full to the last byte.
fill(0)
refuses("nothing left", "set", "more", "value")
refuses("nothing left", "set", "small/1", data=b"another value")
refuses("nothing left", "set", "more", data=os.urandom(2 * MIB))
reads("nothing left")
unfill()
writes("space again")
reads("space again")
same_daemon("a full disk", daemon)

# A value that does not fit: from a file, whose size is known before, and from a pipe. Nothing of it may stay.
before = free()
whole = WORK + "/whole"
with open(whole, "wb") as file:
    file.truncate(400 * MIB)
with open(whole, "rb") as file:
    refuses("a file that does not fit", "set", "whole", stdin=file)
pipe = subprocess.Popen(["cat", whole], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
refuses("a pipe that does not fit", "set", "whole", stdin=pipe.stdout)
pipe.stdout.close()
pipe.wait()
store.run("get", "whole", expect=1)
if not wait_until(lambda: free() > before - 8 * MIB, 10):
    fail(f"a value that did not fit left {(before - free()) / MIB:.0f} MiB behind")
writes("after a value that did not fit")
same_daemon("a value that does not fit", daemon)

# The disk fills up under load.
load = Load(store, "mixed", keys=6)
for number in range(1, rounds + 1):
    when = f"filled under load, round {number}"
    load.start()
    for left in range(int(free() / MIB), -1, -6):
        fill(left * MIB)
        time.sleep(0.03)
    fill(0)
    time.sleep(0.5)
    reads(when)
    unfill()
    time.sleep(0.3)
    load.stop()
    load.verify(when)
    writes(when)
    reads(when)
    same_daemon(when, daemon)

# A start on a full disk: after a stop, and after kill -9.
for how, end in (("a stop", store.stop), ("kill -9", store.kill)):
    when = f"started on a full disk after {how}"
    end()
    fill(0)
    store.get("small/1")
    daemon = store.daemon()
    reads(when)
    # What the daemon gave up to be able to start is filled as well.
    fill(0)
    refuses(when, "set", "more", "value")
    reads(when)
    unfill()
    writes(when)
    reads(when)
    same_daemon(when, daemon)

store.stop()
unfill()

# The disk is full from each single write on.
shim = walls.build()
met = walls.Sweep(shim) if shim else None
if met:
    walls.device_sweep(met, stride)
    walls.pair_sweep(met, stride)
figures = load.figures
finish(
    "full-disk",
    f"{refused} writes refused with one line, {rounds} fillings under load with {figures['acknowledged']} writes acknowledged, "
    f"{figures['unanswered']} refused and {figures['lost']} lost, 2 starts on a full disk, {len(there)} values readable throughout; "
    + (met.words() if met else "no C compiler, so no walls at single writes"),
)
