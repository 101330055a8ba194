"""See power.sh."""

import random
import sys
import time

from disk import MOUNT, cut, make, mount, remove, unmount
from load import Load
from programs import Store, fail, finish

rounds = int(sys.argv[1])
chance = random.Random()
totals = {"acknowledged": 0, "unanswered": 0, "lost": 0, "checked": 0}


def cuts(system, mode, count):
    """Makes one store and cuts its power `count` times."""
    make(system)
    store = Store(MOUNT + "/db")
    load = Load(store, mode, keys=8, seed=chance.random())
    store.run("status", expect=0)
    for number in range(1, count + 1):
        when = f"{system}, {mode} values, cut {number}"
        before = load.figures["acknowledged"]
        load.start()
        time.sleep(chance.uniform(0.2, 1.5))
        cut()
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
    remove()
    for figure in totals:
        totals[figure] += load.figures[figure]


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
