"""See power.sh."""

import os
import random
import subprocess
import sys
import time

from load import Load
from programs import WORK, Store, fail, finish, wait_until

IMAGE, MOUNT = WORK + "/image", WORK + "/disk"
rounds = int(sys.argv[1])
chance = random.Random()
totals = {"acknowledged": 0, "unanswered": 0, "lost": 0, "checked": 0}


def do(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def mount(system):
    options = "loop,nouuid" if system == "xfs" else "loop"
    do("mount", "-t", system, "-o", options, IMAGE, MOUNT)


def unmount():
    def unmounted():
        return subprocess.run(["umount", MOUNT], stderr=subprocess.DEVNULL).returncode == 0

    if not wait_until(unmounted, 10):
        raise SystemExit("power: the file system cannot be unmounted")


def cuts(system, mode, count):
    """Makes one store and cuts its power `count` times."""
    with open(IMAGE, "wb") as image:
        image.truncate(512 * 1024 * 1024)
    do("mkfs." + system, "-q", "-F" if system == "ext4" else "-f", IMAGE)
    mount(system)
    store = Store(MOUNT + "/db")
    load = Load(store, mode, keys=8, seed=chance.random())
    store.run("status", expect=0)
    for number in range(1, count + 1):
        when = f"{system}, {mode} values, cut {number}"
        before = load.figures["acknowledged"]
        load.start()
        time.sleep(chance.uniform(0.2, 1.5))
        do("xfs_io", "-x", "-c", "shutdown", MOUNT)
        load.stop()
        store.kill_all()
        unmount()
        mount(system)
        if load.figures["acknowledged"] == before:
            fail(f"{when}: nothing was acknowledged before the cut, so it proves nothing")
        ended = store.run("status")
        if ended.code != 0:
            fail(f"{when}: the daemon did not start: {ended.words()}")
            break
        load.verify(when)
    store.kill_all()
    unmount()
    os.unlink(IMAGE)
    for figure in totals:
        totals[figure] += load.figures[figure]


os.mkdir(MOUNT)
groups = [(system, mode) for mode in ("mixed", "small", "large") for system in ("ext4", "xfs")]
for index, (system, mode) in enumerate(groups):
    share = rounds // len(groups) + (index < rounds % len(groups))
    if share:
        cuts(system, mode, share)

finish(
    "power",
    f"{rounds} cuts on ext4 and xfs, {totals['acknowledged']} writes acknowledged, {totals['unanswered']} unanswered, "
    f"{totals['lost']} lost, {totals['checked']} reads checked",
)
